"""The families of models: from a config.json to the architecture, exactly as transformers builds it.

>>> tiny = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
>>> architecture({**tiny, "intermediate_size": 96, "vocab_size": 100}).parameters
82752
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.memory.architecture import Architecture
from cloudtune.memory.families.config import Config
from cloudtune.memory.families.decoders import DECODERS, llama
from cloudtune.memory.families.mixtures import MIXTURES
from cloudtune.memory.families.older import OLDER
from cloudtune.memory.families.vision import VISION

#: From model_type to what reads its config.
FAMILIES: Mapping[str, Callable[[Config], Architecture]] = {**DECODERS, **MIXTURES, **OLDER, **VISION}
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
    family = FAMILIES.get(model_type)
    if family is not None:
        return family(Config(config, model_type))
    return _unknown(Config(config, model_type))


def _unknown(config: Config) -> Architecture:
    if missing := [key for key in _SIZES if not isinstance(config.keys.get(key), int)]:
        raise UsageError(
            f"models of the type {config.model_type!r} are not known, and config.json lacks {', '.join(missing)}",
            hint=f"known are {', '.join(sorted(FAMILIES))}",
        )
    note = f"models of the type {config.model_type!r} are not known: counted as if built like Llama"
    return attrs.evolve(llama(config), notes=(note,))
