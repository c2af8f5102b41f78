"""Any request or reply against botocore's model of a service: names, types, lengths, allowed values, patterns.

botocore's own validator looks at required members, types and least lengths alone. A few patterns are written for
another dialect and are translated; those that still do not compile are not checked: :func:`unchecked_patterns`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import attrs

from cloudtune.rehearsal.aws.models import model_of
from cloudtune.rehearsal.messages import Refused

#: What Python's dialect has for classes of Unicode characters; a little more than they mean.
_CLASSES = {r"\p{L}": r"\w", r"\p{N}": r"\d", r"\p{Z}": r"\s", r"\p{M}": "", r"\p{S}": "", r"\p{P}": ""}
_NUMBERS: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
}
#: Members of replies that the model calls required, and that services leave out until there is something to say.
_LATER = {("DescribeTrainingJobResponse", "modelArtifacts")}
#: How much of a wrong value is repeated.
_MOST = 200


@attrs.frozen(kw_only=True)
class Violation:
    """One thing in which a value is not as the model says: where (``resourceConfig.instanceType``), and what."""

    path: str
    value: str
    rule: str

    def __str__(self) -> str:
        return f"Value {self.value} at '{self.path}' failed to satisfy constraint: {self.rule}"


def checked(service: str, shape: str, value: Any) -> Any:
    """Return a request's parameters without nulls; Refused, in the services' words, where they are not as described."""
    plain = without_nulls(value)
    found = list(violations(service, shape, plain))
    if found:
        many = f"{len(found)} validation error{'s' if len(found) > 1 else ''} detected: "
        raise Refused(400, "ValidationException", many + "; ".join(map(str, found)))
    return plain


def must_fit(service: str, shape: str, value: Any) -> None:
    """Raise AssertionError for a reply that the service would not give: a fault of the stand-in."""
    found = [one for one in violations(service, shape, value, open_enums=True) if (shape, one.path) not in _LATER]
    if found:
        raise AssertionError(f"{service} {shape}: {'; '.join(map(str, found))}")


def without_nulls(value: Any) -> Any:
    """Return JSON data without the members that are null: the services take them for members that are missing."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def violations(
    service: str, shape: str, value: Any, path: str = "", *, open_enums: bool = False
) -> Iterator[Violation]:
    """Yield everything in which a value is not of the shape; ``open_enums`` lets texts be other than those listed."""
    kind: Mapping[str, Any] = model_of(service)["shapes"][shape]
    match kind["type"]:
        case "structure":
            yield from _structure(service, kind, value, path, open_enums=open_enums)
        case "list":
            yield from _items(service, kind, value, path, open_enums=open_enums)
        case "map":
            yield from _pairs(service, kind, value, path, open_enums=open_enums)
        case "string":
            yield from _text(kind, value, path, open_enums=open_enums)
        case _:
            yield from _plain(kind, value, path)


def _structure(
    service: str, kind: Mapping[str, Any], value: Any, path: str, *, open_enums: bool
) -> Iterator[Violation]:
    if not isinstance(value, Mapping):
        yield _wrong(path, value, "Member must be an object")
        return
    for name in kind.get("required", ()):
        if name not in value:
            yield Violation(path=_at(path, name), value="null", rule="Member must not be null")
    if kind.get("union") and len(value) != 1:
        yield _wrong(path, sorted(value), f"Member must be one of {', '.join(kind['members'])}")
    for name, item in value.items():
        member = kind["members"].get(name)
        if member is None:
            yield _wrong(_at(path, name), item, "Member is not known")
        else:
            yield from violations(service, member["shape"], item, _at(path, name), open_enums=open_enums)


def _items(service: str, kind: Mapping[str, Any], value: Any, path: str, *, open_enums: bool) -> Iterator[Violation]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        yield _wrong(path, value, "Member must be a list")
        return
    yield from _size(kind, len(value), value, path)
    for number, item in enumerate(value, 1):
        yield from violations(service, kind["member"]["shape"], item, f"{path}.{number}.member", open_enums=open_enums)


def _pairs(service: str, kind: Mapping[str, Any], value: Any, path: str, *, open_enums: bool) -> Iterator[Violation]:
    if not isinstance(value, Mapping):
        yield _wrong(path, value, "Member must be an object")
        return
    yield from _size(kind, len(value), dict(value), path)
    for key, item in value.items():
        yield from violations(service, kind["key"]["shape"], key, f"{path}.{key}.key", open_enums=open_enums)
        yield from violations(service, kind["value"]["shape"], item, f"{path}.{key}.member", open_enums=open_enums)


def _text(kind: Mapping[str, Any], value: Any, path: str, *, open_enums: bool) -> Iterator[Violation]:
    if not isinstance(value, str):
        yield _wrong(path, value, "Member must be a string")
        return
    wrong_size = list(_size(kind, len(value), value, path))
    yield from wrong_size
    allowed = kind.get("enum")
    if allowed and value not in allowed and not open_enums:
        yield _wrong(path, value, f"Member must satisfy enum value set: [{', '.join(allowed)}]")
    # some patterns take for ever on texts that are longer than may be
    if "pattern" in kind and not wrong_size:
        pattern = _compiled(kind["pattern"])
        if pattern is not None and pattern.fullmatch(value) is None:
            yield _wrong(path, value, f"Member must satisfy regular expression pattern: {kind['pattern']}")


def _plain(kind: Mapping[str, Any], value: Any, path: str) -> Iterator[Violation]:
    name = kind["type"]
    if name == "boolean":
        fits = isinstance(value, bool)
    elif name in _NUMBERS:
        fits = isinstance(value, _NUMBERS[name]) and not isinstance(value, bool)
    elif name == "timestamp":
        fits = isinstance(value, (int, float, str)) and not isinstance(value, bool)
    else:
        fits = isinstance(value, str)  # bytes, in base 64
    if not fits:
        yield _wrong(path, value, f"Member must be of type {name}")
    elif name in _NUMBERS:
        least, most = kind.get("min", -math.inf), kind.get("max", math.inf)
        if value < least:
            yield _wrong(path, value, f"Member must have value greater than or equal to {least}")
        if value > most:
            yield _wrong(path, value, f"Member must have value less than or equal to {most}")


def _size(kind: Mapping[str, Any], size: int, value: Any, path: str) -> Iterator[Violation]:
    if size < kind.get("min", 0):
        yield _wrong(path, value, f"Member must have length greater than or equal to {kind['min']}")
    if size > kind.get("max", math.inf):
        yield _wrong(path, value, f"Member must have length less than or equal to {kind['max']}")


@cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    for theirs, ours in _CLASSES.items():
        pattern = pattern.replace(theirs, ours)
    try:
        return re.compile(pattern)
    except re.error:
        return None


def unchecked_patterns(service: str) -> tuple[str, ...]:
    """Return the shapes of a service whose patterns are not checked."""
    shapes = model_of(service)["shapes"].items()
    return tuple(name for name, kind in shapes if "pattern" in kind and _compiled(kind["pattern"]) is None)


def _wrong(path: str, value: Any, rule: str) -> Violation:
    text = str(value)
    return Violation(path=path, value=f"'{text if len(text) <= _MOST else text[:_MOST] + '...'}'", rule=rule)


def _at(path: str, name: str) -> str:
    name = name[:1].lower() + name[1:]
    return f"{path}.{name}" if path else name
