"""A small Llama that every place takes, written without torch, and ways to break it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cloudtune.weights.files.safetensors import make_header, size_bytes

TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = ("<|end|>", "<|pad|>", "<|user|>", "<|assistant|>")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 1,
    "transformers_version": "4.51.3",
}
ADAPTER = {
    "peft_type": "LORA",
    "base_model_name_or_path": "org/base",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "up_proj"],
    "bias": "none",
    "modules_to_save": None,
    "use_dora": False,
}
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def llama_tensors() -> Tensors:
    """Return the tensors of the model: random numbers in bfloat16."""
    shapes = {"model.embed_tokens.weight": (64, 32), "lm_head.weight": (64, 32), "model.norm.weight": (32,)}
    for layer in ("model.layers.0.", "model.layers.1."):
        shapes |= {
            f"{layer}self_attn.q_proj.weight": (32, 32),
            f"{layer}self_attn.k_proj.weight": (16, 32),
            f"{layer}self_attn.v_proj.weight": (16, 32),
            f"{layer}self_attn.o_proj.weight": (32, 32),
            f"{layer}mlp.gate_proj.weight": (48, 32),
            f"{layer}mlp.up_proj.weight": (48, 32),
            f"{layer}mlp.down_proj.weight": (32, 48),
            f"{layer}input_layernorm.weight": (32,),
            f"{layer}post_attention_layernorm.weight": (32,),
        }
    return {name: ("BF16", shape, numbers("BF16", shape)) for name, shape in shapes.items()}


def adapter_tensors(rank: int = 4) -> Tensors:
    """Return the tensors of an adapter of two modules."""
    tensors: Tensors = {}
    for module, (inputs, outputs) in {"self_attn.q_proj": (32, 32), "mlp.up_proj": (32, 48)}.items():
        name = f"base_model.model.model.layers.0.{module}"
        for half, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            tensors[f"{name}.lora_{half}.weight"] = ("F32", shape, numbers("F32", shape))
    return tensors


def numbers(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the bytes of a tensor of small random numbers."""
    count = int(np.prod(shape))
    values = np.random.default_rng(count).normal(0, 0.1, count).astype("<f4")
    if dtype == "BF16":
        return (values.view("<u4") >> 16).astype("<u2").tobytes()
    if dtype in {"F16", "F32", "F64"}:
        return values.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()
    return bytes(size_bytes(dtype, shape))


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file."""
    head, _ = make_header([(name, dtype, shape) for name, (dtype, shape, _) in tensors.items()])
    path.write_bytes(head + b"".join(data for _, _, data in tensors.values()))


def write_model(folder: Path, tensors: Tensors | None = None, *, shards: int = 2) -> Path:
    """Write a model that nothing is wrong with, in shards with an index, or one file."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = llama_tensors() if tensors is None else tensors
    names = list(tensors)
    if shards == 1:
        write_tensors(folder / "model.safetensors", tensors)
    else:
        files = {f"model-{n + 1:05}-of-{shards:05}.safetensors": names[n::shards] for n in range(shards)}
        for file, some in files.items():
            write_tensors(folder / file, {name: tensors[name] for name in some})
        total = sum(len(data) for _, _, data in tensors.values())
        table = {name: file for file, some in files.items() for name in some}
        write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": table})
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "generation_config.json", {"eos_token_id": 0, "pad_token_id": 1, "do_sample": True})
    words = {word: index for index, word in enumerate([*SPECIAL, *(f"w{n}" for n in range(60))])}
    added = [{"id": words[word], "content": word, "special": True} for word in SPECIAL]
    write_json(
        folder / "tokenizer.json", {"added_tokens": added, "model": {"type": "BPE", "vocab": words, "merges": []}}
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|end|>",
            "pad_token": {"content": "<|pad|>"},
            "chat_template": TEMPLATE,
        },
    )
    return folder


def write_adapter(folder: Path, tensors: Tensors | None = None, **config: Any) -> Path:
    """Write an adapter that nothing is wrong with, but for what ``config`` changes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "adapter_model.safetensors", adapter_tensors() if tensors is None else tensors)
    write_json(folder / "adapter_config.json", {**ADAPTER, **config})
    return folder


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value))


def change(path: Path, **keys: Any) -> None:
    """Set keys of a JSON file, or remove those that are given as ``...``."""
    value = {**json.loads(path.read_text()), **keys}
    write_json(path, {key: item for key, item in value.items() if item is not ...})
