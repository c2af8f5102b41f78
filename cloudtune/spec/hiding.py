"""Secrets in free-form data: taken out, with ``${masked:NAME}`` in their places."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cloudtune.node.masks import is_secret_name, mask_of, secret_spans, shown

#: What stands in place of a secret in data that is kept.
MASK = re.compile(r"\$\{masked:([^${}]+)\}")
#: A text that holds a shorter secret literally is no secret for that: it is an ordinary word too often.
SHORTEST = 4


def is_secret_key(key: str) -> bool:
    """Whether the text under a key is a secret; the ``key`` of a toleration or a tag is none."""
    return is_secret_name(key) and (key == "KEY" or key.lower() != "key")


def taken_apart(
    data: Any, known: Mapping[str, str | None] | None = None, *, addresses: bool = True
) -> tuple[Any, dict[str, str]]:
    """Return data without its secrets, and their values by name.

    A text is a secret under a key that says so, as the ``value`` beside such a ``name``, for the value of a ``known``
    secret in it, and with ``addresses`` for a password or a signed query in a URI. ``known`` are the names that have a
    meaning already, with their values or None; what is masked already stays so.
    """
    walk = _Walk(dict(known or {}), addresses)
    return walk.of(data, (), ""), walk.values


def described(value: Any) -> str:
    """Return a value as Python shows it, without its secrets."""
    return shown(repr(taken_apart(value, addresses=False)[0]))


class _Walk:
    """One walk over data; ``values`` are the secrets met."""

    def __init__(self, known: Mapping[str, str | None], addresses: bool) -> None:
        self.values: dict[str, str] = {}
        self._known = known
        self._contents = [value for value in known.values() if value and len(value) >= SHORTEST]
        self._addresses = addresses

    def of(self, value: Any, path: tuple[str, ...], key: str) -> Any:
        """Return a value without its secrets; ``key`` is what it is called."""
        if isinstance(value, str):
            return self._text(value, path, key)
        if isinstance(value, Mapping):
            name = value.get("name")
            called = name if isinstance(name, str) and is_secret_key(name) else ""
            return {
                word: self.of(item, (*path, str(word)), called if called and word == "value" else str(word))
                for word, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return tuple(self.of(item, (*path, str(index)), key) for index, item in enumerate(value))
        return value

    def _text(self, text: str, path: tuple[str, ...], key: str) -> str:
        named = is_secret_key(key)
        if not text or MASK.fullmatch(text):
            return text
        held = any(one in text for one in self._contents) or (self._addresses and secret_spans(text))
        if not named and not held:
            return text
        name = self._name(text, path, key if named else "")
        self.values[name] = text
        return mask_of(name)

    def _name(self, text: str, path: tuple[str, ...], key: str) -> str:
        """Return the key itself, or what the path makes of it where the key is no secret's name or means another."""
        long = re.sub(r"\W", "_", "_".join((*path, "SECRET"))).upper()
        names = [re.sub(r"\W", "_", key)] if key else []
        names += [long, *(f"{long[:-7]}_{number}_SECRET" for number in range(2, len(self.values) + 3))]
        return next(name for name in names if self.values.get(name, self._known.get(name, text)) == text)
