"""Label and field selectors: which objects a list or a watch is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from cloudtune.rehearsal.messages import Refused

Object = Mapping[str, Any]
Match = Callable[[Object], bool]
_REQUIREMENT = re.compile(
    r"\s*(?:(?P<none>!)\s*(?P<absent>[\w./-]+)|(?P<key>[\w./-]+)\s*"
    r"(?:(?P<sign>==|=|!=)\s*(?P<value>[\w.-]*)|(?P<word>in|notin)\s*\((?P<values>[^)]*)\))?)\s*(?:,|$)"
)
_FIELD = re.compile(r"\s*([\w.]+)\s*(==|=|!=)\s*([^,]*?)\s*(?:,|$)")
#: Fields by which every kind can be selected, and those of single kinds.
_FIELDS = {"metadata.name", "metadata.namespace"}
_FIELDS_OF: Mapping[str, frozenset[str]] = {
    "Pod": frozenset(
        {
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        }
    ),
    "Event": frozenset(
        {
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        }
    ),
    "Job": frozenset({"status.successful"}),
    "Namespace": frozenset({"status.phase"}),
    "Node": frozenset({"spec.unschedulable"}),
    "Secret": frozenset({"type"}),
}


def by_labels(text: str) -> Match:
    """Return what says whether an object has the labels that a selector asks for; Refused (400) for none that is."""
    wanted: list[Callable[[Mapping[str, str]], bool]] = []
    at = 0
    while at < len(text.rstrip()):
        found = _REQUIREMENT.match(text, at)
        if found is None or found.end() == at:
            raise Refused(400, "BadRequest", f"unable to parse requirement: found '{text[at:].strip()}'")
        at = found.end()
        wanted.append(_requirement(found))
    return lambda thing: all(one(thing.get("metadata", {}).get("labels") or {}) for one in wanted)


def _requirement(found: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    if found["none"]:
        return lambda labels: found["absent"] not in labels
    key, sign, word = found["key"], found["sign"], found["word"]
    if word:
        values = {value.strip() for value in found["values"].split(",")}
        if word == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if sign == "!=":
        return lambda labels: labels.get(key) != found["value"]
    if sign:
        return lambda labels: labels.get(key) == found["value"]
    return lambda labels: key in labels


def by_fields(text: str, kind: str) -> Match:
    """Return what says whether an object has the fields that a selector asks for; Refused (400) for an unknown one."""
    known = _FIELDS | _FIELDS_OF.get(kind, frozenset())
    wanted: list[tuple[str, bool, str]] = []
    at = 0
    while at < len(text.rstrip()):
        found = _FIELD.match(text, at)
        if found is None:
            raise Refused(400, "BadRequest", f"invalid selector: '{text}'; can't understand '{text[at:]}'")
        if found[1] not in known:
            raise Refused(400, "BadRequest", f'"{found[1]}" is not a known field selector: only {_listed(known)}')
        wanted.append((found[1], found[2] != "!=", found[3]))
        at = found.end()
    return lambda thing: all((_text(thing, path) == value) is same for path, same, value in wanted)


def _listed(known: frozenset[str] | set[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(known))


def _text(thing: Object, path: str) -> str:
    value: Any = thing
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
