"""How the values of a spec are declared: one field, its YAML key, what it means.

The types are read by :mod:`cloudtune.spec.convert`, which turns YAML into values and back, and by
:mod:`cloudtune.spec.schema`, which makes the JSON Schema: so the modules that declare values do not use
``from __future__ import annotations``.
"""

import math
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import attrs

from cloudtune.errors import SpecError
from cloudtune.spec.hiding import described

#: Lists and mappings of free-form data may be so deep; a whole document may be 64 deep.
DEPTH = 48


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


def freeze(value: Any, depth: int = DEPTH) -> Any:
    """Return JSON-like data with every list a tuple and every mapping a :class:`FrozenDict`; a path becomes text."""
    if isinstance(value, (Mapping, list, tuple)) and not depth:
        raise SpecError(f"data of a spec may be nested {DEPTH} deep", hint="is a list or mapping part of itself?")
    if isinstance(value, Mapping):
        return FrozenDict({key: freeze(item, depth - 1) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item, depth - 1) for item in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, int) and abs(value) >= 10**64):
        raise SpecError("a spec cannot hold infinity, nan or a number of more than 64 digits", hint="write it as text")
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
    of: type[Any] | None = None,
    converter: Callable[[Any], Any] = freeze,
    describe: Callable[[Any], str] = described,
) -> Any:
    """Declare one optional key of the spec.

    ``key`` is its YAML spelling where it is not the attribute in camelCase; ``aliases`` are other spellings that
    are read but never written; ``minimum`` and ``choices`` are checked on the way in and stand in the JSON Schema.
    ``of`` is the class of a nested value (or of a tuple of them): the constructor takes mappings in its place.
    ``describe`` gives the text in the value's ``repr``, in which no secret may stand.
    """
    return attrs.field(
        default=default,
        repr=describe,
        converter=partial(nested, of) if of else converter,
        metadata={"doc": doc, "key": key, "aliases": aliases, "minimum": minimum, "choices": choices},
    )


def nested(cls: type[Any], value: Any) -> Any:
    """Return a nested value, or a tuple of them, also from mappings of its keywords in Python's or YAML's spelling."""
    if isinstance(value, Mapping):
        names = {key.word: key.name for key in keys_of(cls)}
        return cls(**{names.get(word, str(word)): item for word, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(nested(cls, item) for item in value)
    return value


def flat(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of a call with lists and tuples among them taken apart."""
    return tuple(item for value in values for item in (value if isinstance(value, (list, tuple)) else (value,)))


def yaml_key(field: "attrs.Attribute[Any]") -> str:
    """Return the YAML key of an attribute of a spec value."""
    return field.metadata.get("key") or camel(field.name)


class Form(NamedTuple):
    """What a key may hold, read from its type.

    ``kind`` is one of ``text integer number boolean texts numbers command textMap json jsonMap jsonMaps value values``;
    ``cls`` is the class of the value(s).
    """

    kind: str
    cls: type[Any] | None = None
    nullable: bool = False


class Key(NamedTuple):
    """One key of a spec value: everything that reading, printing and the schema need to know about it."""

    name: str
    word: str
    aliases: tuple[str, ...]
    form: Form
    required: bool
    default: Any
    minimum: float | None
    choices: tuple[str, ...]
    doc: str


_SCALARS = {str: "text", int: "integer", float: "number", bool: "boolean", typing.Any: "json"}


def form_of(annotation: Any) -> Form:
    """Read the type of a field."""
    if annotation in _SCALARS:
        return Form(_SCALARS[annotation])
    if isinstance(annotation, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        nullable = len(members) < len(typing.get_args(annotation))
        form = form_of(members[0]) if len(members) == 1 else Form("command")
        return form._replace(nullable=nullable)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple:
        item = form_of(arguments[0])
        return Form(
            {"text": "texts", "number": "numbers", "value": "values", "jsonMap": "jsonMaps"}[item.kind], item.cls
        )
    if origin is Mapping:
        return Form({"text": "textMap", "json": "jsonMap"}[form_of(arguments[1]).kind])
    return Form("value", annotation)


_KEYS: dict[type[Any], tuple[Key, ...]] = {}


def keys_of(cls: type[Any]) -> tuple[Key, ...]:
    """Return the keys of a spec value, in the order of its fields."""
    if cls not in _KEYS:
        _KEYS[cls] = tuple(_key(field) for field in attrs.fields(cls))
    return _KEYS[cls]


def _key(field: "attrs.Attribute[Any]") -> Key:
    default: Any = field.default
    if hasattr(default, "factory"):
        default = default.factory()
    elif field.converter is not None and default is not attrs.NOTHING:
        default = cast("Callable[[Any], Any]", field.converter)(default)
    about = field.metadata
    return Key(
        name=field.name,
        word=yaml_key(field),
        aliases=about.get("aliases", ()),
        form=form_of(field.type),
        required=field.default is attrs.NOTHING,
        default=default,
        minimum=about.get("minimum"),
        choices=about.get("choices", ()),
        doc=about.get("doc", ""),
    )
