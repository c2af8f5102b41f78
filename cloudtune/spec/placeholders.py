"""Finds what somebody forgot to fill in: ``<your token>``, ``<bucket>``, ``ocid1.compartment.oc1..xxxx``.

Keys of infrastructure, URIs, references and secrets hold no ``<...>`` but placeholders. In free text (variables, the
options of a recipe, tags, names) one word in angle brackets may be meant: ``<image>``, ``<start_of_turn>``. Only what
reads like an instruction counts there: several words, ``<your-...>``, a name of something that a cloud gives out. In a
command ``<`` may redirect, so only an address to the reader counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from cloudtune.node.masks import is_secret_name, shown
from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.fields import yaml_key
from cloudtune.spec.infrastructure import Infrastructure
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import Runtime

#: Whether what stands between angle brackets is a placeholder.
Rule = Callable[[str], bool]

# a group of a regular expression has its name in angle brackets
_BRACKETS = re.compile(r"(?<!\(\?)(?<!\(\?P)<([A-Za-z](?:[^<>\n]{0,200}[^\s<>])?)>")
_OCID = re.compile(r"\bocid1\.[a-z]+\.[a-z0-9.-]*?\.x{4,}\b", re.IGNORECASE)
_WORDS = re.compile(r"[A-Za-z0-9 _.,:%/'()-]+")
_ADDRESS = re.compile(r"(?:your|replace|insert|fill)(?![a-z])", re.IGNORECASE)
_SEVERAL = re.compile(r"[\w.,'/-]+(?: +[\w.,'/-]*\w[\w.,'/-]*)+")
_USUAL = re.compile(
    r"(?:bucket|namespace|region|tenancy|compartment|account|project|subnet|cluster|role|ocid|arn|password|username"
    r"|hostname|(?:access|secret|api)[_-]?(?:token|key))(?:[_-].*)?"
    r"|(?:.*[_-])(?:ocid|id|arn|uri|url|name|bucket|namespace|account|region)",
    re.IGNORECASE,
)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_COMMANDS = frozenset({"command", "cmd", "entrypoint", "args", "dependencies"})
_FREE = frozenset({"name", "recipe", "freeform_tags", "defined_tags", "overrides"})


def placeholders(job: JobSpec) -> Iterator[tuple[str, str]]:
    """Yield (YAML path, placeholder) for every placeholder left in the job."""
    yield from _in("spec", job, _anywhere)


def placeholders_in(path: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (YAML path, placeholder) for every placeholder left in the options of a verb, which stand at the path."""
    yield from _in(path, options, _in_text)


def _in_command(text: str) -> bool:
    return _ADDRESS.match(text) is not None


def _in_text(text: str) -> bool:
    return any(rule.fullmatch(text) for rule in (_SEVERAL, _USUAL)) or _in_command(text)


def _anywhere(text: str) -> bool:
    return _WORDS.fullmatch(text) is not None


def _in(path: str, value: Any, rule: Rule) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        rule = _anywhere if rule is _in_text and _URI.match(value) else rule
        yield from ((path, found[0]) for found in _BRACKETS.finditer(value) if rule(found[1]))
        if rule is not _in_command:
            yield from ((path, found[0]) for found in _OCID.finditer(value))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            where = f"{path}.{shown(str(key))}"
            yield from _in(where, key, rule)
            yield from _in(where, item, rule)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _in(f"{path}[{index}]", item, rule)
    elif isinstance(value, EnvironmentVariable):
        yield from _in(f"{path}.value", value.value, _anywhere if is_secret_name(value.name) else _in_text)
        yield from _in(f"{path}.secret", value.secret, _anywhere)
    elif attrs.has(type(value)) and not (isinstance(value, Runtime) and value.allow_placeholders):
        yield from _in_fields(path, value, rule)


def _in_fields(path: str, value: Any, rule: Rule) -> Iterator[tuple[str, str]]:
    block = isinstance(value, (Infrastructure, Runtime))
    for field in attrs.fields(type(value)):
        inner = rule
        if block or isinstance(value, JobSpec):
            known = dict.fromkeys(_COMMANDS, _in_command) | dict.fromkeys(_FREE, _in_text)
            inner = known.get(field.name, rule)
        where = f"{path}.spec" if block else path
        yield from _in(f"{where}.{yaml_key(field)}", getattr(value, field.name), inner)
