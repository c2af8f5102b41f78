"""A config.json, read with care: what is missing or wrong is said in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cloudtune.errors import UsageError

#: More than any model has: layers are counted one by one, and other sizes multiplied with each other.
MOST_LAYERS, MOST = 10_000, 1 << 32


class Config(NamedTuple):
    """A config.json, or a part of it, whose sizes are checked when they are read."""

    keys: Mapping[str, Any]
    model_type: str

    def size(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """Return a whole number; what is absent or null is the default.

        Raises:
            UsageError: the key has no default and is missing, or is no whole number of at least ``least``.
        """
        value = self.keys.get(key)
        if value is None:
            value = default
        if value is None:
            raise UsageError(f"the config.json of this {self.model_type} model has no {key}")
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{key} in config.json is {str(value)[:40]!r}, not a whole number of at least {least}")
        if value > (MOST_LAYERS if "layers" in key or key == "n_layer" else MOST):
            raise UsageError(f"{key} in config.json is {str(value)[:40]}, which no model has", hint="check the file")
        return value

    def head_dim(self, width: int, heads: int) -> int:
        """Return the width of one of so many heads; raises UsageError if there are more heads than that."""
        if width < heads:
            message = f"the config.json of this {self.model_type} model has {heads} heads for a width of {width}"
            raise UsageError(message, hint="check the file")
        return width // heads

    def number(self, key: str, default: float) -> float:
        """Return a number; what is absent, null or none is the default."""
        value = self.keys.get(key)
        return float(value) if isinstance(value, (int, float)) else default

    def length(self, key: str, default: int) -> int:
        """Return the length of a list; what is absent or none is the default."""
        value = self.keys.get(key)
        return len(value) if isinstance(value, list) else default

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a truth value."""
        value = self.keys.get(key)
        return default if value is None else bool(value)

    def text(self, *keys: str, default: str) -> str:
        """Return the first of these keys that is a text."""
        return next((value for key in keys if isinstance(value := self.keys.get(key), str)), default)

    def part(self, key: str, model_type: str) -> Config:
        """Return a part of the config, such as ``text_config``."""
        value = self.keys.get(key)
        return Config(value if isinstance(value, Mapping) else {}, model_type)
