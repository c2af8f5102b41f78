#!/usr/bin/env python3
"""Write the table of the fields that built-in kinds of Kubernetes have, from the models of its Python client.

    python tools/kubernetes_fields.py > cloudtune/rehearsal/kubernetes/fields.json

It reads the models of kubernetes 37 or later, which say which fields are required. A type is ``s`` for a text, ``i`` an
integer, ``b`` a boolean, ``n`` a number, ``q`` a quantity, ``x`` an integer or a text, ``t`` a time, ``o`` any object,
``[T]`` a list, ``{T}`` a mapping, or the name of another row; ``!`` behind it says that the field is required.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import kubernetes.client as models

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cloudtune.rehearsal.kubernetes.kinds import KINDS

#: Fields that hold quantities, which the models take for texts.
_QUANTITIES = {
    "allocatable",
    "capacity",
    "default",
    "defaultRequest",
    "divisor",
    "hard",
    "limits",
    "max",
    "maxLimitRequestRatio",
    "min",
    "overhead",
    "requests",
    "sizeLimit",
    "used",
}
_PLAIN = {str: "s", int: "i", bool: "b", float: "n", datetime: "t", bytes: "s", object: "o", Any: "o"}


def main() -> None:
    """Print the table."""
    types: dict[str, dict[str, str]] = {}
    kinds: dict[str, str] = {}
    for kind in KINDS:
        if kind.operator:
            continue
        found = _model_of(models, kind.kind, kind.version)
        kinds[kind.kind] = _named(found)
        _walk(found, types)
    table = {"source": f"kubernetes {version('kubernetes')}", "kinds": kinds, "types": dict(sorted(types.items()))}
    print(_text(table))


def _model_of(models: Any, kind: str, version: str) -> Any:
    prefix = version[0].upper() + version[1:]
    names = (f"{prefix}{kind}", f"Core{prefix}{kind}", f"Rbac{prefix}{kind}", f"Resource{prefix}{kind}")
    return next(getattr(models, name) for name in names if hasattr(models, name))


def _named(model: Any) -> str:
    return re.sub(r"V\d+(alpha\d+|beta\d+)?", "", model.__name__, count=1)


def _walk(model: Any, types: dict[str, dict[str, str]]) -> None:
    name = _named(model)
    if name in types:
        return
    types[name] = row = {}
    for attribute, field in model.model_fields.items():
        wire = field.serialization_alias or attribute
        told, below = _type(field.annotation, wire)
        row[wire] = told + ("!" if field.is_required() else "")
        for each in below:
            _walk(each, types)


def _type(annotation: Any, name: str) -> tuple[str, list[Any]]:
    if hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    origin, given = get_origin(annotation), [one for one in get_args(annotation) if one is not NoneType]
    if origin is list:
        told, below = _type(given[0], name)
        return f"[{told}]", below
    if origin is dict:
        told, below = _type(given[1], name)
        return f"{{{told}}}", below
    if given:
        told = {_type(one, name)[0] for one in given}
        return ("x", []) if told == {"i", "s"} else _type(given[0], name)
    if inspect.isclass(annotation) and hasattr(annotation, "model_fields"):
        return _named(annotation), [annotation]
    plain = _PLAIN.get(annotation, "o")
    return ("q" if plain == "s" and name in _QUANTITIES else plain), []


def _text(table: dict[str, Any]) -> str:
    rows = [f'  "{name}": {json.dumps(row)}' for name, row in table["types"].items()]
    kinds = json.dumps(table["kinds"])
    return "\n".join([f'{{"source": "{table["source"]}",', f'"kinds": {kinds},', '"types": {', ",\n".join(rows), "}}"])


if __name__ == "__main__":
    main()
