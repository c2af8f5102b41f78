"""Configs as an older transformers reads them, for places that run one: Bedrock's import has 4.51.3.

transformers 5 renamed keys, and reads the older ones too, so a model written for such a place can go anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Places that a model can be written for, and the version that their readers have, where that is known.
PLACES: dict[str, str | None] = {"bedrock": "4.51.3", "vllm": None, "sagemaker": None, "oci": None}
#: Kinds of attention that have a base of their own for positions, and the older key for it.
_THETAS = {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"}
#: The tokenizer class of transformers 5 that older releases do not know, and the one that reads the same files.
_TOKENIZER = ("TokenizersBackend", "PreTrainedTokenizerFast")


def older_config(config: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return a model's config in the older words, for a place among :data:`PLACES`."""
    found = _older(config)
    version = PLACES[place]
    if version is not None and "transformers_version" in found:
        found["transformers_version"] = version
    return found


def _older(config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key == "dtype":
            found.setdefault("torch_dtype", value)
        elif key == "rope_parameters" and isinstance(value, Mapping):
            found |= _older_rope(value)
        elif key.endswith("_config") and isinstance(value, Mapping) and key != "quantization_config":
            found[key] = _older(value)
        else:
            found[key] = value
    return found


def _older_rope(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Return what older releases have of ``rope_parameters``: the base apart, and the scaling if there is one."""
    kinds = {kind: one for kind, one in rope.items() if kind in _THETAS and isinstance(one, Mapping)}
    if kinds:
        found = {_THETAS[kind]: one["rope_theta"] for kind, one in kinds.items() if "rope_theta" in one}
        return found | {"rope_scaling": _scaling(kinds.get("full_attention", {}))}
    apart = {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    return apart | {"rope_scaling": _scaling(rope)}


def _scaling(rope: Mapping[str, Any]) -> dict[str, Any] | None:
    if rope.get("rope_type", "default") == "default":
        return None
    return {key: value for key, value in rope.items() if key not in {"rope_theta", "partial_rotary_factor"}}


def older_tokenizer(config: Mapping[str, Any], template: str | None) -> dict[str, Any]:
    """Return a tokenizer's config in the older words; a chat template beside it is taken in."""
    found = dict(config)
    if found.get("tokenizer_class") == _TOKENIZER[0]:
        found["tokenizer_class"] = _TOKENIZER[1]
    extra = found.get("extra_special_tokens")
    if isinstance(extra, list):
        del found["extra_special_tokens"]
        found.setdefault("additional_special_tokens", extra)
    if template is not None:
        found.setdefault("chat_template", template)
    return found
