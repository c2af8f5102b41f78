"""What JSON files say, read without trust: any value may be of any type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudtune.errors import UsageError
from cloudtune.weights.files.filenames import CONFIG
from cloudtune.weights.files.folder import Folder

_TIED = "tie_word_embeddings"
#: Settings of a model's config that decide what is made of its tensors, by the type that each has.
_SETTINGS = {"model_type": str, _TIED: bool, "text_config": dict, "quantization_config": dict}
_TYPES = {str: "a text", bool: "true or false", dict: "an object"}


def config_of(folder: Folder) -> dict[str, Any]:
    """Return the config of a model into which trained weights are to go.

    Raises:
        UsageError: a setting is of another type than it must be, or the model is quantized.
    """
    config = folder.json(CONFIG)
    for part in (config, _text_config(config)):
        for key, kind in _SETTINGS.items():
            value = part.get(key)
            if value is not None and not isinstance(value, kind):
                message = f"{folder.shown(CONFIG)} has {key} {str(value)[:80]!r}, which is not {_TYPES[kind]}"
                raise UsageError(message, hint="copy it from the model that it belongs to")
    if config.get("quantization_config"):
        hint = "name the model in 16 bits that it was quantized from; an adapter of QLoRA fits it, too"
        raise UsageError(f"{folder.shown()} is quantized, and trained weights are not", hint=hint)
    return config


def architecture_of(config: Mapping[str, Any]) -> str | None:
    """Return the class of the model that a config.json describes, None if it is not named."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


def is_tied(config: Mapping[str, Any]) -> bool | None:
    """Return whether input and output embeddings are one tensor by a config; None if it says nothing."""
    said = (part.get(_TIED) for part in (config, _text_config(config)))
    return next((one for one in said if isinstance(one, bool)), None)


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config for a model whose input and output embeddings are two tensors."""
    changed = {**config, _TIED: False}
    text = _text_config(config)
    return {**changed, "text_config": {**text, _TIED: False}} if _TIED in text else changed


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of the language model where that is a part of it, else an empty one."""
    found = config.get("text_config")
    return found if isinstance(found, dict) else {}


def text_of(found: Mapping[str, Any], key: str) -> str | None:
    """Return a text that is there and not empty, else None."""
    value = found.get(key)
    return value if isinstance(value, str) and value else None
