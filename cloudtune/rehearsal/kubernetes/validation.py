"""What an API server refuses of objects that are made or changed, and the defaults that it sets."""

from __future__ import annotations

from collections.abc import Mapping

from cloudtune.rehearsal.kubernetes import fields, speech
from cloudtune.rehearsal.kubernetes.defaults import set_defaults
from cloudtune.rehearsal.kubernetes.kinds import Kind
from cloudtune.rehearsal.kubernetes.objects import Object, Objects
from cloudtune.rehearsal.kubernetes.rules import admit, broken
from cloudtune.rehearsal.kubernetes.speech import Cause


class Validation:
    """The validation of one cluster: types, defaults, rules, and what depends on other objects.

    ``types`` are those of kinds that have other fields in this cluster than the table says.
    """

    def __init__(self, objects: Objects, *, types: Mapping[str, str] | None = None) -> None:
        self._objects = objects
        self._types = dict(types or {})

    def drop_unknown(self, kind: Kind, thing: Object) -> list[str]:
        """Drop the fields that a kind does not have, and return their paths."""
        return fields.drop_unknown(self._type_of(kind), thing)

    def admit(self, kind: Kind, new: Object, old: Object | None) -> None:
        """Set the defaults of an object that is made or changed; Refused where it must not be."""
        name = (new.get("metadata") or {}).get("name") or ""
        found = fields.faults(self._type_of(kind), new, custom=bool(kind.operator))
        # what a status lacks is nothing to a server: a number is 0, a text is empty
        wrong = [one for one in found if one.word != "required" or not one.path.startswith("status.")]
        if wrong:
            raise _told(kind, name, wrong)
        set_defaults(kind.kind, new)
        causes = list(broken(kind, new, old))
        if causes:
            raise speech.invalid(kind, name, causes)
        admit(kind, new, old, self._objects)

    def _type_of(self, kind: Kind) -> str:
        return self._types.get(kind.kind) or fields.type_of(kind.kind)


def _told(kind: Kind, name: str, wrong: list[fields.Fault]) -> speech.Denied:
    """Return the refusal of values of wrong types: those of built-in kinds cannot even be read."""
    first = next((one for one in wrong if one.word in ("type", "quantity")), None)
    if first is not None and not kind.operator:
        found = f"cannot unmarshal {_go(first.value)} into Go struct field {kind.kind}.{first.path} of type"
        words = first.told if first.word == "quantity" else f"json: {found} {first.told}"
        return speech.bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {words}'
        )
    return speech.invalid(kind, name, [_cause(one) for one in wrong])


def _cause(one: fields.Fault) -> Cause:
    if one.word == "required":
        return Cause(one.path, "FieldValueRequired", "Required value")
    shown = f'"{one.value}"' if isinstance(one.value, str) else str(one.value)
    if one.word == "enum":
        allowed = ", ".join(f'"{word}"' for word in one.told.split("|"))
        return Cause(one.path, "FieldValueNotSupported", f"Unsupported value: {shown}: supported values: {allowed}")
    if one.word == "type":
        words = f'Invalid value: "{_go(one.value)}": {one.path} in body must be of type {one.told}: "{_go(one.value)}"'
        return Cause(one.path, "FieldValueTypeInvalid", words)
    return Cause(one.path, "FieldValueInvalid", f"Invalid value: {shown}: {one.told}")


def _go(value: object) -> str:
    names = {bool: "bool", int: "number", float: "number", str: "string", dict: "object", list: "array"}
    return names.get(type(value), "null")
