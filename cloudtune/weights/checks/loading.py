"""Loads a model with transformers, in a process of its own: ``python -m cloudtune.weights.checks.loading load FOLDER``.

The answer is a line of JSON, the last on stdout: ``missing``, ``unexpected`` and ``mismatched`` tensors; for
``generate`` the ``prompt`` and the ``text`` that follows it; ``error`` if it fails; and the ``version``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

_WORDS = 8
_QUESTION = "Is the sky blue?"


def load(folder: str) -> dict[str, Any]:
    """Return what transformers misses, does not know, or wants otherwise, of a model built on no device."""
    _, info = _class_of(folder).from_pretrained(
        folder,
        device_map="meta",
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        use_safetensors=True,
        dtype="auto",
    )
    return {
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
        "mismatched": sorted(item if isinstance(item, str) else item[0] for item in info["mismatched_keys"]),
    }


def generate(folder: str) -> dict[str, Any]:
    """Return what a model says to a question, or after it if it has no chat template."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = _QUESTION
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": _QUESTION}]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    model = _class_of(folder).from_pretrained(folder, dtype="auto", use_safetensors=True)
    asked = tokenizer(prompt, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)
    with torch.inference_mode():
        # sampling ends with an error where probabilities are NaN; taking the best would hide it
        said = model.generate(**asked, max_new_tokens=_WORDS, do_sample=True, top_k=1)
    text = tokenizer.decode(said[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    return {"prompt": _QUESTION, "text": text}


def _class_of(folder: str) -> Any:
    """Return the class that a model's config names, if transformers has it."""
    for name in AutoConfig.from_pretrained(folder).architectures or ():
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, PreTrainedModel):
            return found
    return AutoModelForCausalLM


def main() -> None:
    """Do what the command line says and print the answer."""
    what, folder = sys.argv[1:]
    try:
        answer = {"load": load, "generate": generate}[what](folder)
    except Exception as error:  # noqa: BLE001 - a broken model may raise anything
        answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    print()
    print(json.dumps({**answer, "version": transformers.__version__}))


if __name__ == "__main__":
    main()
