"""Finds what somebody forgot to fill in: ``<your token>``, ``<bucket>``, ``ocid1.compartment.oc1..xxxx``."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cloudtune.spec.fields import yaml_key
from cloudtune.spec.infrastructure import Infrastructure
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import Runtime

_WORDS = r"<[A-Za-z][A-Za-z0-9 _./'-]*>"
#: In a command `<` may be a redirection, so only an address to the reader counts there.
_IN_COMMAND = re.compile(r"<(?:your|replace|insert|fill)[^<>\n]*>", re.IGNORECASE)
_ANYWHERE = re.compile(rf"{_WORDS}|\bocid1\.[a-z]+\.[a-z0-9.-]*?\.x{{4,}}\b", re.IGNORECASE)


def placeholders(job: JobSpec) -> Iterator[tuple[str, str]]:
    """Yield (YAML path, placeholder) for every placeholder left in the job."""
    yield from _in("spec", job)


def _in(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        pattern = _IN_COMMAND if path.endswith((".command", ".cmd")) or ".args" in path else _ANYWHERE
        yield from ((path, match[0]) for match in pattern.finditer(value))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _in(f"{path}.{key}", key)
            yield from _in(f"{path}.{key}", item)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _in(f"{path}[{index}]", item)
    elif attrs.has(type(value)):
        inner = f"{path}.spec" if isinstance(value, (Infrastructure, Runtime)) else path
        for field in attrs.fields(type(value)):
            yield from _in(f"{inner}.{yaml_key(field)}", getattr(value, field.name))
