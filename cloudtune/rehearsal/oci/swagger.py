"""Any request against any model of the ``oci`` SDK: names, types, required fields, allowed values, subtypes.

The SDK is generated from the services' own descriptions and carries them: a model knows its fields and their types, its
documentation which are required and what they may hold, and its ``get_subtype`` which model a value of it is of.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import attrs

from cloudtune.errors import MissingExtra
from cloudtune.rehearsal.messages import Refused, Request
from cloudtune.rehearsal.oci.signatures import check_content
from cloudtune.rehearsal.oci.speech import read_moment

_ALLOWED = re.compile(r"Allowed values for this property are: (.*?)(?:\n\s*\n|\Z|Any unrecognized)", re.DOTALL)
_LIST = re.compile(r"list\[(.*)\]")
_DICT = re.compile(r"dict\(str, (.*)\)")
_PLAIN: Mapping[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}


@attrs.frozen(kw_only=True)
class Field:
    """One field of a model, by its name on the wire; ``allowed`` is () for any value."""

    name: str
    type: str
    required: bool
    allowed: tuple[str, ...]


def require_sdk() -> None:
    """Raise MissingExtra where the SDK, whose models are read, is not installed."""
    if find_spec("oci") is None:
        raise MissingExtra("oci", "a rehearsal of OCI")


def checked_body(request: Request, model: str, *, of: str) -> dict[str, Any]:
    """Return the body of a request without its nulls; Refused (400) where it is not of the model.

    ``of`` is the SDK's module that has the model, such as ``data_science``.
    """
    body = request.json()
    check_content(request)
    if body is None:
        raise Refused(400, "InvalidParameter", "the body must not be empty")
    return dict(Checker(of).value("", model, body))


class Checker:
    """Checks values against the models of one service."""

    def __init__(self, module: str) -> None:
        require_sdk()
        self._module = module

    def value(self, path: str, kind: str, given: Any) -> Any:
        """Return a value without nulls in it; Refused where it is not of the kind, as the SDK writes kinds."""
        if found := _LIST.fullmatch(kind):
            items = _taken(path, kind, given, list)
            return [self.value(f"{path}[{at}]", found[1], item) for at, item in enumerate(items)]
        if found := _DICT.fullmatch(kind):
            pairs = _taken(path, kind, given, dict)
            return {key: self.value(f"{path}.{key}", found[1], item) for key, item in pairs.items()}
        if kind in _PLAIN:
            return _plain(path, kind, given)
        if kind == "datetime":
            read_moment(path, _taken(path, "a time", given, str))
            return given
        if kind != "object" and _class(self._module, kind) is None:
            return _taken(path, "text", given, str)  # one of some words, which the SDK has no model for
        return given if kind == "object" else self._model(path, kind, given)

    def _model(self, path: str, kind: str, given: Any) -> dict[str, Any]:
        values = _taken(path, f"an object ({kind})", given, dict)
        kind = subtype(self._module, kind, path, values)
        fields = {field.name: field for field in fields_of(self._module, kind)}
        unknown = [name for name in values if name not in fields]
        if unknown:
            raise Refused(400, "CannotParseRequest", f"{_at(path, unknown[0])} is no field of {kind}")
        found = {}
        for name, field in fields.items():
            if values.get(name) is None:
                if field.required:
                    raise Refused(400, "InvalidParameter", f"{_at(path, name)} must not be null ({kind} needs it)")
                continue
            found[name] = self.value(_at(path, name), field.type, values[name])
            if field.allowed and values[name] not in field.allowed:
                raise Refused(400, "InvalidParameter", f"{_at(path, name)} must be one of {', '.join(field.allowed)}")
        return found


def subtype(module: str, kind: str, path: str, values: Mapping[str, Any]) -> str:
    """Return the model that a value of a model with subtypes is of; Refused where it does not say."""
    model = _class(module, kind)
    if not hasattr(model, "get_subtype"):
        return kind
    discriminator = inspect.getsource(model.get_subtype).partition("object_dictionary['")[2].partition("']")[0]
    if not isinstance(values.get(discriminator), str):
        raise Refused(400, "InvalidParameter", f"{_at(path, discriminator)} must not be null ({kind} needs it)")
    found: str = model.get_subtype(values)
    if found == kind:
        raise Refused(400, "InvalidParameter", f"{_at(path, discriminator)} is none that {kind} may have")
    return found


@cache
def fields_of(module: str, kind: str) -> tuple[Field, ...]:
    """Return the fields of a model."""
    model = _class(module, kind)
    blank = model()
    return tuple(
        Field(
            name=blank.attribute_map[attribute],
            type=type_,
            required=(words := inspect.getdoc(getattr(model, attribute)) or "").startswith("**[Required]**"),
            allowed=_allowed(words),
        )
        for attribute, type_ in blank.swagger_types.items()
    )


def check_query(request: Request, known: Iterable[str], *, required: Iterable[str] = ()) -> None:
    """Refuse a request whose query lacks a parameter or has one that the operation does not know."""
    for name in required:
        if not request.query.get(name):
            raise Refused(400, "MissingParameter", f"{name} is required")
    for name in request.query:
        if name not in known and name not in required:
            raise Refused(400, "InvalidParameter", f"{name} is no parameter of this operation")


def _allowed(words: str) -> tuple[str, ...]:
    found = _ALLOWED.search(words)
    return tuple(re.findall(r'"([^"]*)"', found[1])) if found else ()


def _class(module: str, kind: str) -> Any:
    return getattr(import_module(f"oci.{module}.models"), kind, None)


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _taken(path: str, kind: str, given: Any, wanted: type) -> Any:
    if not isinstance(given, wanted):
        raise Refused(400, "InvalidParameter", f"{path or 'the body'} must be {kind}, not {given!r}"[:400])
    return given


def _plain(path: str, kind: str, given: Any) -> Any:
    fits = isinstance(given, _PLAIN[kind]) and (kind == "bool" or not isinstance(given, bool))
    if not fits or (isinstance(given, float) and not math.isfinite(given)):
        raise Refused(400, "InvalidParameter", f"{path} must be {kind}, not {given!r}"[:400])
    return given
