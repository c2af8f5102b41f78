"""What JSON files say, read without trust: any value may be of any type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def architecture_of(config: Mapping[str, Any]) -> str | None:
    """Return the class of the model that a config.json describes, None if it is not named."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


def text_of(found: Mapping[str, Any], key: str) -> str | None:
    """Return a text that is there and not empty, else None."""
    value = found.get(key)
    return value if isinstance(value, str) and value else None
