"""The families of models: from a config.json to the architecture, exactly as transformers builds it.

>>> tiny = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
>>> architecture({**tiny, "intermediate_size": 96, "vocab_size": 100}).parameters
82752
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from cloudtune.errors import UsageError
from cloudtune.memory.architecture import Architecture
from cloudtune.memory.families.config import Config

#: From a module of this package to the types that it knows: where a type's function has another name, after a colon.
_HOMES = {
    "decoders": ("llama granite:llama mistral qwen2 qwen3 phi3 olmo2 smollm3 gemma gemma2 gemma3_text starcoder2"),
    "mixtures": "mixtral qwen2_moe qwen3_moe gpt_oss",
    "older": "gpt2 gpt_neox falcon phi",
    "vision": "mllama gemma3",
}
#: From model_type to module and function.
FAMILIES: Mapping[str, tuple[str, str]] = {
    name.partition(":")[0]: (home, name.rpartition(":")[2]) for home, names in _HOMES.items() for name in names.split()
}
#: Keys without which nothing can be said about a decoder.
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def architecture(config: Mapping[str, Any]) -> Architecture:
    """Return what a model consists of, from its config.json.

    A type that is not known is counted as if it were built like Llama, and ``notes`` say so.

    Raises:
        UsageError: the config lacks what is needed, or holds what cannot be.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise UsageError("config.json has no model_type", hint="is it the config of a transformers model?")
    if model_type in FAMILIES:
        return _family(model_type)(Config(config, model_type))
    if missing := [key for key in _SIZES if not isinstance(config.get(key), int)]:
        raise UsageError(
            f"models of the type {model_type!r} are not known, and config.json lacks {', '.join(missing)}",
            hint=f"known are {', '.join(sorted(FAMILIES))}",
        )
    note = f"models of the type {model_type!r} are not known: counted as if built like Llama"
    return _family("llama")(Config(config, model_type))._replace(notes=(note,))


def _family(model_type: str) -> Callable[[Config], Architecture]:
    home, name = FAMILIES[model_type]
    function: Callable[[Config], Architecture] = getattr(import_module(f"{__name__}.{home}"), name)
    return function
