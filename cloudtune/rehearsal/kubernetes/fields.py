"""Which fields objects have, and of what type: unknown ones are dropped, wrong values named.

The table of built-in kinds is made by ``tools/kubernetes_fields.py`` from the models of the Python client, which also
says what its words mean; the other one is our own, of the operators' kinds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import attrs

from cloudtune.rehearsal.kubernetes.quantities import quantity

_TABLES = ("fields.json", "custom_fields.json")
#: Types whose objects refer to themselves, or hold what nobody needs to be checked.
_OPEN = {"JSONSchemaProps", "ManagedFieldsEntry", "CustomResourceValidation"}
_PLAIN: Mapping[str, tuple[type, ...]] = {
    "s": (str,),
    "i": (int,),
    "b": (bool,),
    "n": (int, float),
    "x": (int, str),
    "q": (int, float, str),
    "t": (str,),
}
#: What Go calls the types, in the words of a refusal.
_GO = {"s": "string", "i": "int32", "b": "bool", "n": "float64", "x": "intstr.IntOrString", "t": "time.Time"}
#: Numbers that fields of 32 bits can hold.
_LARGEST = 2**63


@attrs.frozen
class Fault:
    """A value that is not of its field's type. ``word`` is what is wrong: ``type``, ``required``, ``enum``."""

    path: str
    word: str
    told: str
    value: Any = None


@cache
def _tables() -> tuple[Mapping[str, str], Mapping[str, Mapping[str, str]]]:
    kinds: dict[str, str] = {}
    types: dict[str, Mapping[str, str]] = {}
    for name in _TABLES:
        table = json.loads(files("cloudtune.rehearsal.kubernetes").joinpath(name).read_text(encoding="utf-8"))
        kinds.update(table["kinds"])
        types.update(table["types"])
    return kinds, types


def fields_of(name: str) -> Mapping[str, str]:
    """Return the fields of a type, by their types; none where it is open."""
    return {} if name in _OPEN else _tables()[1].get(name, {})


def type_of(kind: str) -> str:
    """Return the type of a kind's objects."""
    return _tables()[0][kind]


def drop_unknown(named: str, thing: dict[str, Any]) -> list[str]:
    """Drop the fields that objects of a type do not have, and return their paths."""
    return list(_dropped(thing, named, ""))


def faults(named: str, thing: Mapping[str, Any], *, custom: bool = False) -> list[Fault]:
    """Return the values of an object that are not of their fields' types; what is unknown is not looked at.

    Those of ``custom`` kinds take no fractions for quantities (``cpu: 0.5``), as built-in ones do.
    """
    types = {**_PLAIN, "q": (int, str)} if custom else _PLAIN
    return list(_faults(thing, named, "", types))


_Types = Mapping[str, tuple[type, ...]]


def _dropped(value: Any, told: str, path: str) -> Iterator[str]:
    word = told.removesuffix("!")
    if word.startswith("[") and isinstance(value, list):
        for number, one in enumerate(value):
            yield from _dropped(one, word[1:-1], f"{path}[{number}]")
    elif word.startswith("{") and isinstance(value, dict):
        for key, one in value.items():
            yield from _dropped(one, word[1:-1], f"{path}.{key}")
    elif isinstance(value, dict) and (fields := fields_of(word)):
        for key in [key for key in value if key not in fields]:
            del value[key]
            yield f"{path}.{key}".lstrip(".")
        for key, one in value.items():
            yield from _dropped(one, fields[key], f"{path}.{key}")


def _faults(value: Any, told: str, path: str, types: _Types) -> Iterator[Fault]:
    word = told.removesuffix("!")
    if value is None or word == "o":
        return
    if word.startswith("["):
        if not isinstance(value, list):
            yield Fault(path, "type", "array", value)
            return
        for number, one in enumerate(value):
            yield from _faults(one, word[1:-1], f"{path}[{number}]", types)
    elif word.startswith("{"):
        if not isinstance(value, dict):
            yield Fault(path, "type", "object", value)
            return
        for key, one in value.items():
            if one is None:
                yield Fault(f"{path}.{key}", "type", _GO.get(word[1:-1], "object"), one)
            yield from _faults(one, word[1:-1], f"{path}.{key}", types)
    elif word[0].isupper():
        yield from _faults_of_object(value, word, path, types)
    else:
        yield from _faults_of_plain(value, word, path, types)


def _faults_of_object(value: Any, word: str, path: str, types: _Types) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield Fault(path, "type", "object", value)
        return
    for key, told in fields_of(word).items():
        here = f"{path}.{key}".lstrip(".")
        if told.endswith("!") and value.get(key) is None:
            yield Fault(here, "required", "")
        elif key in value:
            yield from _faults(value[key], told, here, types)


def _faults_of_plain(value: Any, word: str, path: str, types: _Types) -> Iterator[Fault]:
    plain, _, allowed = word.partition(":")
    is_bool = isinstance(value, bool)
    if not isinstance(value, types[plain]) or (is_bool and plain != "b"):
        yield Fault(path, "type", _GO.get(plain, "quantity"), value)
    elif plain == "i" and isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        yield Fault(path, "type", "int64", value)
    elif plain == "q":
        try:
            quantity(value)
        except ValueError:
            yield Fault(path, "quantity", _QUANTITY, value)
    elif allowed and value not in allowed.split("|"):
        yield Fault(path, "enum", allowed, value)


_QUANTITY = r"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
