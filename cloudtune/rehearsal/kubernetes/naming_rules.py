"""The forms of names, labels and references, and the words for what does not have them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudtune.rehearsal.kubernetes.speech import Cause

LABEL_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_LABEL_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_ANNOTATIONS_BYTES = 256 * 1024
#: Kinds whose names are names of hosts too: shorter, and without dots.
_HOSTS_1035 = {"JobSet", "PyTorchJob", "Service", "TrainJob"}
_HOSTS_1123 = {"Job", "Namespace"}
_SHORT = 63
_LONG = 253


def required(field: str, words: str = "") -> Cause:
    """Return the cause that a value is missing."""
    return Cause(field, "FieldValueRequired", f"Required value: {words}" if words else "Required value")


def bad(field: str, value: Any, words: str) -> Cause:
    """Return the cause that a value is wrong."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown(value)}: {words}")


def unsupported(field: str, value: Any, allowed: Sequence[str]) -> Cause:
    """Return the cause that a value is none of those that there are."""
    words = ", ".join(f'"{one}"' for one in allowed)
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {words}")


def duplicate(field: str, value: Any) -> Cause:
    """Return the cause that a value is there twice."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")


def missing(field: str, value: Any) -> Cause:
    """Return the cause that something named is not there."""
    return Cause(field, "FieldValueNotFound", f"Not found: {shown(value)}")


def shown(value: Any) -> str:
    """Return a value as refusals show it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def host_faults(field: str, name: str, *, letter_first: bool = False) -> Iterator[Cause]:
    """Return what is wrong with a name of a host."""
    form = LABEL_1035 if letter_first else LABEL_1123
    if len(name) > _SHORT:
        yield bad(field, name, f"must be no more than {_SHORT} bytes")
    elif not form.fullmatch(name):
        which = "DNS-1035 label" if letter_first else "lowercase RFC 1123 label"
        yield bad(field, name, f"a {which} must match '{form.pattern}'")


def metadata_faults(kind: str, meta: Mapping[str, Any]) -> Iterator[Cause]:
    """Return what is wrong with an object's metadata."""
    name = meta.get("name") or ""
    if not name:
        yield required("metadata.name", "name or generateName is required")
    elif kind in _HOSTS_1035 or kind in _HOSTS_1123:
        yield from host_faults("metadata.name", name, letter_first=kind in _HOSTS_1035)
    elif kind not in _ANY_NAME and (len(name) > _LONG or not SUBDOMAIN.fullmatch(name)):
        yield bad("metadata.name", name, f"a lowercase RFC 1123 subdomain must match '{SUBDOMAIN.pattern}'")
    yield from label_faults("metadata.labels", meta.get("labels"))
    annotations = meta.get("annotations") or {}
    for key in annotations:
        yield from _key_faults("metadata.annotations", key.lower())
    if sum(len(key.encode()) + len(str(value).encode()) for key, value in annotations.items()) > _ANNOTATIONS_BYTES:
        words = f"Too long: may not be more than {_ANNOTATIONS_BYTES} bytes"
        yield Cause("metadata.annotations", "FieldValueTooLong", words)
    for number, owner in enumerate(meta.get("ownerReferences") or ()):
        for key in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(key):
                yield bad(f"metadata.ownerReferences[{number}].{key}", "", "must not be empty")


#: Kinds whose names have other forms, that matter to nobody here.
_ANY_NAME = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}


def label_faults(field: str, labels: Mapping[str, Any] | None) -> Iterator[Cause]:
    """Return what is wrong with labels, or with a selector of nodes."""
    for key, value in (labels or {}).items():
        yield from _key_faults(field, key)
        if len(value) > _SHORT or not _LABEL_VALUE.fullmatch(value):
            words = f"a valid label must be an empty string or match '{_LABEL_VALUE.pattern}'"
            yield bad(field, value, f"must be no more than {_SHORT} bytes" if len(value) > _SHORT else words)


def _key_faults(field: str, key: str) -> Iterator[Cause]:
    prefix, _, name = key.rpartition("/")
    if (prefix and not SUBDOMAIN.fullmatch(prefix)) or ("/" in key and not prefix):
        yield bad(field, key, "prefix part must be a lowercase RFC 1123 subdomain")
    if len(name) > _SHORT or not _LABEL_NAME.fullmatch(name):
        yield bad(field, key, f"name part must match '{_LABEL_NAME.pattern}' and be no more than {_SHORT} bytes")


def data_faults(field: str, data: Mapping[str, Any] | None) -> Iterator[Cause]:
    """Return what is wrong with the keys of a ConfigMap or a Secret."""
    for key in data or {}:
        if len(key) > _LONG or not _DATA_KEY.fullmatch(key):
            yield bad(f"{field}[{key}]", key, f"a valid config key must match '{_DATA_KEY.pattern}'")
