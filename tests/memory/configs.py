"""Small configs of every family, with the widths in odd proportions so that none can stand in for another."""

from __future__ import annotations

import json
from typing import Any

_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 120,
}
_MIXED = {"num_experts_per_tok": 2, "moe_intermediate_size": 48}

#: Name, model_type, keys.
CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("llama", "llama", {}),
    ("llama with biases", "llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 24}),
    ("llama, tied", "llama", {"tie_word_embeddings": True}),
    ("mistral", "mistral", {}),
    ("qwen2", "qwen2", {}),
    ("qwen3", "qwen3", {"head_dim": 24}),
    ("phi3", "phi3", {"pad_token_id": 0}),
    ("gemma", "gemma", {"head_dim": 24}),
    ("gemma2", "gemma2", {"head_dim": 24}),
    ("gemma3", "gemma3_text", {"head_dim": 24}),
    ("granite", "granite", {}),
    ("olmo2", "olmo2", {}),
    ("smollm3", "smollm3", {"pad_token_id": 0}),
    ("starcoder2", "starcoder2", {}),
    ("gpt2", "gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 120, "n_positions": 96}),
    ("gpt_neox", "gpt_neox", {}),
    ("falcon", "falcon", {}),
    ("falcon, new", "falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    ("phi", "phi", {}),
    ("mixtral", "mixtral", {"num_local_experts": 4}),
    (
        "qwen2_moe",
        "qwen2_moe",
        {**_MIXED, "num_experts": 4, "shared_expert_intermediate_size": 40, "mlp_only_layers": [1]},
    ),
    ("qwen3_moe", "qwen3_moe", {**_MIXED, "num_experts": 4, "head_dim": 24}),
    ("gpt_oss", "gpt_oss", {"num_experts_per_tok": 2, "num_local_experts": 4, "head_dim": 16}),
)
NAMES = [name for name, _, _ in CASES]


def config_of(name: str, **more: Any) -> Any:
    """Return transformers' config of a case."""
    from transformers import AutoConfig

    model_type, keys = next((kind, keys) for case, kind, keys in CASES if case == name)
    sizes = {} if model_type == "gpt2" else _SIZES
    return AutoConfig.for_model(model_type, **{**sizes, **keys, **more})


def written(config: Any, *, sparse: bool = False) -> dict[str, Any]:
    """Return a config as its config.json has it, ``sparse`` without what is the class's default."""
    text: dict[str, Any] = json.loads(config.to_json_string(use_diff=sparse))
    return {**text, "model_type": config.model_type}
