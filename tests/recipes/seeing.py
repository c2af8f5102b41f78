"""A very small model of the Mllama family with random weights, and rows like Mind2Web's with images made on the spot."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from tests.recipes.modules import RECIPES
from tests.tiny import ENVIRONMENT

_MAKE = """
import json, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
import quickstart
from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaProcessor
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
torch.manual_seed(0)
words = quickstart.build_tokenizer([m["content"] for row in quickstart.read_rows("train") for m in row["messages"]], 1024)
words.add_special_tokens({"bos_token": "<|begin|>"})
size = len(words)
words.add_tokens(["<|image|>"], special_tokens=True)
template = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{% if m['content'] is string %}"
    "{{ m['content'] }}{% else %}{% for p in m['content'] %}{% if p['type'] == 'image' %}<|image|>{% else %}"
    "{{ p['text'] }}{% endif %}{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
words.chat_template = template
pictures = MllamaImageProcessorPil(size={"height": 28, "width": 28}, max_image_tiles=4)
text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
text |= {"num_key_value_heads": 2, "vocab_size": size, "cross_attention_layers": [1], "max_position_embeddings": 512}
text |= {f"{name}_token_id": getattr(words, f"{name}_token_id") for name in ("pad", "bos", "eos")}
seen = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_global_layers": 1}
seen |= {"attention_heads": 2, "image_size": 28, "patch_size": 14, "intermediate_layers_indices": [0]}
config = MllamaConfig(text_config=text, vision_config=seen | {"vision_output_dim": 64}, image_token_index=size)
folder = Path(sys.argv[2])
MllamaForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
MllamaProcessor(pictures, words, chat_template=template).save_pretrained(folder)
# as the published models have it, which releases before 5 wrote
path = folder / "tokenizer_config.json"
told = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
path.write_text(json.dumps(told))
path = folder / "config.json"
path.write_text(json.dumps(json.loads(path.read_text()) | {"torch_dtype": "bfloat16"}))
"""
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


@cache
def seeing_model() -> Path:
    """Return the folder of a small Mllama in bfloat16; made once for all tests of a process."""
    folder = Path(mkdtemp(prefix="cloudtune-tests-")) / "seeing"
    done = subprocess.run(
        [sys.executable, "-c", _MAKE, str(RECIPES / "quickstart"), str(folder)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def web_pages(folder: Path, *, train: int = 16, test: int = 4) -> Path:
    """Write steps of tasks on the web, one JSON object a line, with their screenshots; return the folder."""
    from PIL import Image

    chances = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("test", test)):
        rows = []
        for number in range(count):
            colour = chances.choice(sorted(COLOURS))
            picture = folder / f"{name}-{number}.png"
            Image.new("RGB", chances.choice([(56, 28), (28, 28), (28, 84)]), COLOURS[colour]).save(picture)
            rows.append(
                {
                    "screenshot": picture.name,
                    "confirmed_task": "press the button that is as the page",
                    "action_reprs": ["[heading]  CAR -> CLICK", f"[button]  {colour} -> CLICK"],
                    "target_action_index": "1",
                    "raw_html": "<html></html>",
                }
            )
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
