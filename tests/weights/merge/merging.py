"""Small models of several architectures, adapters with random weights for them, and what PEFT makes of both."""

from __future__ import annotations

import json
import warnings
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

#: Sizes that are no multiples of anything in particular, and not so small that oneMKL takes other kernels.
_COMMON = {"vocab_size": 99, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2}
_LLAMA = {
    **_COMMON, "hidden_size": 48, "intermediate_size": 84, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12,
}  # fmt: skip
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {**_LLAMA, "tie_word_embeddings": False}),
    "tied": ("LlamaConfig", {**_LLAMA, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", {**_LLAMA, "tie_word_embeddings": False}),
    "gpt2": ("GPT2Config", {**_COMMON, "n_embd": 36, "n_layer": 2, "n_head": 3, "n_positions": 64, "n_inner": 36}),
    "mixtral": ("MixtralConfig", {**_LLAMA, "num_local_experts": 3, "num_experts_per_tok": 2}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 28, "decoder_sparse_step": 1},
    ),
}


@contextmanager
def quiet():
    """Let the tools warn of their own future unheard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def tools():
    """Return torch, peft and transformers; importing them is slow."""
    with quiet():
        import peft
        import torch
        import transformers
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return torch, peft, transformers


def make_base(folder: Path, architecture: str, dtype: str, **changes: Any) -> Path:
    """Write a model with random weights."""
    torch, _, transformers = tools()
    kind, settings = ARCHITECTURES[architecture]
    with quiet():
        torch.manual_seed(0)
        config = getattr(transformers, kind)(**{**settings, **changes})
        model = transformers.AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype))
        for parameter in model.parameters():
            parameter.data.normal_(std=0.05)
        model.save_pretrained(folder, max_shard_size="60KB")
    return folder


def make_adapter(folder: Path, base: Path, *, seed: int = 1, std: float = 0.05, **config: Any) -> Path:
    """Write an adapter with random weights for a model."""
    torch, peft, transformers = tools()
    with quiet():
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
        settings = {"task_type": "CAUSAL_LM", "target_modules": "all-linear", **config}
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**settings))
        torch.manual_seed(seed)
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad or "lora_" in name:
                noise = torch.randn_like(parameter.data.float()) * std
                parameter.data = (parameter.data + noise if "magnitude" in name else noise).to(parameter.dtype)
        wrapped.save_pretrained(folder)
    return folder


def by_peft(base: Path, adapter: Path, mode: str) -> dict[str, Any]:
    """Return what PEFT makes, by the way that a mode stands for."""
    torch, peft, transformers = tools()
    with quiet():
        if mode == "peft":
            dtype = json.loads((base / "config.json").read_text())["dtype"]
            model = peft.AutoPeftModelForCausalLM.from_pretrained(
                adapter, dtype=getattr(torch, dtype), low_cpu_mem_usage=True
            )
        else:
            model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
            model = peft.PeftModel.from_pretrained(model, adapter)
        return dict(model.merge_and_unload().state_dict())


def loaded(folder: Path) -> dict[str, Any]:
    """Return a model as transformers loads it."""
    transformers = tools()[2]
    with quiet():
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return dict(model.state_dict())


def differing(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, int]:
    """Return how many elements of each tensor differ, or -1 where a tensor or its type does."""
    torch = tools()[0]
    differences = dict.fromkeys(found.keys() ^ wanted.keys(), -1)
    for name in found.keys() & wanted.keys():
        one, other = found[name], wanted[name]
        if one.dtype != other.dtype or one.shape != other.shape:
            differences[name] = -1
        elif not torch.equal(one, other):
            differences[name] = int((one != other).sum())
    return differences
