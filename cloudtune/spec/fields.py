"""How the values of a spec are declared: one field, its YAML key, what it means.

The types are read by :mod:`cloudtune.spec.convert`, which turns YAML into values and back, and by
:mod:`cloudtune.spec.schema`, which makes the JSON Schema: so the modules that declare values do not use
``from __future__ import annotations``.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

T = TypeVar("T")


class FrozenDict(dict[str, Any]):
    """A mapping inside a frozen value: a dict to readers, closed to writers, hashable."""

    def _closed(self, *_: object, **__: object) -> Any:
        raise TypeError("a spec is a frozen value; use its with_* methods, which return a new one")

    __setitem__ = __delitem__ = __ior__ = _closed
    clear = pop = popitem = setdefault = update = _closed

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> Any:
        return (type(self), (dict(self),))


def freeze(value: Any) -> Any:
    """Return JSON-like data with every list a tuple and every mapping a :class:`FrozenDict`."""
    if isinstance(value, Mapping):
        return FrozenDict({key: freeze(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item) for item in value)
    return value


def thaw(value: Any) -> Any:
    """Return a mutable plain copy: lists and dicts again."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [thaw(item) for item in value]
    return value


def camel(name: str) -> str:
    """Return the YAML key of an attribute: ``max_wait_time`` is ``maxWaitTime``."""
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)


def setting(
    doc: str,
    *,
    default: Any = None,
    key: str | None = None,
    aliases: tuple[str, ...] = (),
    minimum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare one optional key of the spec.

    ``key`` is its YAML spelling where it is not the attribute in camelCase; ``aliases`` are other spellings that
    are read but never written; ``minimum`` and ``choices`` are checked on the way in and stand in the JSON Schema.
    """
    return attrs.field(
        default=default,
        converter=freeze,
        metadata={"doc": doc, "key": key, "aliases": aliases, "minimum": minimum, "choices": choices},
    )


def yaml_key(field: "attrs.Attribute[Any]") -> str:
    """Return the YAML key of an attribute of a spec value."""
    return field.metadata.get("key") or camel(field.name)
