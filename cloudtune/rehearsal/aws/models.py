"""Services as botocore describes them: its data are read, it is not imported."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs

from cloudtune.errors import MissingExtra

#: Services whose folder in botocore's data is not called as requests are signed for.
_FOLDERS = {"servicequotas": "service-quotas", "monitoring": "cloudwatch"}
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_HOLE = re.compile(r"\\\{(\w+)(\\\+)?\\\}")


def require_sdk() -> Path:
    """Return where botocore's data are; MissingExtra where it is not installed."""
    found = find_spec("botocore")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra("aws", "a rehearsal of AWS")
    return Path(found.submodule_search_locations[0]) / "data"


@cache
def model_of(service: str) -> Mapping[str, Any]:
    """Return the newest model of a service; KeyError if botocore has none."""
    folder = require_sdk() / _FOLDERS.get(service, service)
    versions = sorted(path for path in folder.glob("*") if path.is_dir()) if folder.is_dir() else []
    for version in reversed(versions):
        for file in (version / "service-2.json.gz", version / "service-2.json"):
            if file.is_file():
                text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
                model: Mapping[str, Any] = json.loads(text)
                return model
    raise KeyError(service)


def snake(name: str) -> str:
    """Return an operation's name as the SDK's methods have it: ``ListObjectsV2`` is ``list_objects_v2``."""
    return _WORDS.sub("_", name).lower()


@attrs.frozen(kw_only=True)
class _Form:
    """How requests of one operation look that is told by method and path."""

    name: str
    method: str
    path: re.Pattern[str]
    literals: frozenset[tuple[str, str]]
    queries: frozenset[str]
    headers: frozenset[str]

    @property
    def weight(self) -> tuple[int, int]:
        """How much a request must have to be one of these."""
        return len(self.literals) + len(self.queries) + len(self.headers), self.path.groups


def operation_by_path(
    service: str, method: str, path: str, queries: Iterable[tuple[str, str]], headers: Iterable[str]
) -> str:
    """Return the operation of a request that says it by its method and path; empty if there is none such."""
    given, names = set(queries), {name.lower() for name in headers}
    fitting = [
        form
        for form in _forms(service)
        if form.method == method
        and form.path.fullmatch(path)
        and form.literals <= given
        and form.queries <= {name for name, _ in given}
        and form.headers <= names
    ]
    return max(fitting, key=lambda form: form.weight).name if fitting else ""


def path_parameters(service: str, operation: str, path: str) -> dict[str, str]:
    """Return what a request's path says, not decoded, by the names that the operation's own path has for it."""
    template = model_of(service)["operations"][operation]["http"]["requestUri"].partition("?")[0]
    pattern = _HOLE.sub(lambda hole: f"(?P<{hole[1]}>.+)" if hole[2] else f"(?P<{hole[1]}>[^/]+)", re.escape(template))
    found = re.fullmatch(pattern + "/?", path)
    return found.groupdict() if found is not None else {}


@cache
def _forms(service: str) -> tuple[_Form, ...]:
    model = model_of(service)
    return tuple(_form(name, operation, model["shapes"]) for name, operation in model["operations"].items())


def _form(name: str, operation: Mapping[str, Any], shapes: Mapping[str, Any]) -> _Form:
    path, _, query = operation["http"]["requestUri"].partition("?")
    literals = frozenset((word.partition("=")[0], word.partition("=")[2]) for word in query.split("&") if word)
    shape = shapes.get(operation.get("input", {}).get("shape"), {})
    required = [shape["members"][each] for each in shape.get("required", ())]
    by = {
        place: frozenset(str(one["locationName"]) for one in required if one.get("location") == place)
        for place in ("querystring", "header")
    }
    pattern = _HOLE.sub(lambda hole: "(.+)" if hole[2] else "([^/]+)", re.escape(path))
    return _Form(
        name=name,
        method=operation["http"]["method"],
        path=re.compile(pattern + "/?"),
        literals=literals,
        queries=by["querystring"],
        headers=frozenset(each.lower() for each in by["header"]),
    )
