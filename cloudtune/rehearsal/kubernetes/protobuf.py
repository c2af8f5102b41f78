"""Objects as some commands of ``kubectl`` send them: in protobuf, whatever a server would rather have.

``kubectl auth`` asks for reviews so, and ``kubectl create`` makes namespaces, ConfigMaps and secrets so. Other objects
are not taken so: ``kubectl apply`` and ``kubectl create -f`` send JSON, and JSON is taken for an answer everywhere.
Sources: the field numbers of ``generated.proto`` in ``k8s.io/api/authorization/v1`` and ``core/v1``, and in
``k8s.io/apimachinery/pkg/runtime`` and ``pkg/apis/meta/v1``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_ASKED = {1: "namespace", 2: "verb", 3: "group", 4: "version", 5: "resource", 6: "subresource", 7: "name"}
_META = {1: "name", 2: "generateName", 3: "namespace"}
_META_MAPS = {11: "labels", 12: "annotations"}
#: Sizes of values that are no numbers of varying length and no bytes.
_FIXED = {1: 8, 5: 4}
_BYTES = 2


def object_of(body: bytes) -> dict[str, Any]:
    """Return an object as the JSON that would say the same.

    Raises:
        ValueError: the bytes are no object at all.
        LookupError: it is an object of another kind.
    """
    if not body.startswith(_MAGIC):
        raise ValueError("the body is no object in protobuf")
    whole = _fields(body[len(_MAGIC) :])
    told = _fields(whole.get(1, b""))
    kind = told.get(2, b"").decode()
    if kind not in _KINDS:
        raise LookupError(kind)
    return {"apiVersion": told.get(1, b"").decode(), "kind": kind, **_KINDS[kind](whole.get(2, b""))}


def _access_review(data: bytes) -> dict[str, Any]:
    spec = _fields(_fields(data).get(2, b""))
    if 1 not in spec:
        return {"spec": {"nonResourceAttributes": {}}}
    return {"spec": {"resourceAttributes": _texts(spec[1], _ASKED)}}


def _rules_review(data: bytes) -> dict[str, Any]:
    return {"spec": _texts(_fields(data).get(2, b""), {1: "namespace"})}


def _with_metadata(data: bytes) -> dict[str, Any]:
    meta = _fields(data).get(1, b"")
    maps = {name: _map(meta, number) for number, name in _META_MAPS.items()}
    return {"metadata": {**_texts(meta, _META), **{name: value for name, value in maps.items() if value}}}


def _config_map(data: bytes) -> dict[str, Any]:
    return {**_with_metadata(data), "data": _map(data, 2), "binaryData": _coded(data, 3)}


def _secret(data: bytes) -> dict[str, Any]:
    kind = _fields(data).get(3, b"").decode() or "Opaque"
    return {**_with_metadata(data), "data": _coded(data, 2), "stringData": _map(data, 4), "type": kind}


_KINDS: Mapping[str, Callable[[bytes], dict[str, Any]]] = {
    "ConfigMap": _config_map,
    "Namespace": _with_metadata,
    "Secret": _secret,
    "SelfSubjectAccessReview": _access_review,
    "SelfSubjectReview": lambda _: {},
    "SelfSubjectRulesReview": _rules_review,
}


def _texts(data: bytes, names: Mapping[int, str]) -> dict[str, str]:
    return {names[number]: value.decode() for number, value in _fields(data).items() if number in names and value}


def _entries(data: bytes, number: int) -> Iterator[tuple[str, bytes]]:
    for each, value in _read(data):
        if each == number:
            entry = _fields(value)
            yield entry.get(1, b"").decode(), entry.get(2, b"")


def _map(data: bytes, number: int) -> dict[str, str]:
    return {key: value.decode() for key, value in _entries(data, number)}


def _coded(data: bytes, number: int) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in _entries(data, number)}


def _fields(data: bytes) -> Mapping[int, bytes]:
    """Return the fields of a message that are bytes, by their numbers; the last of those that are repeated."""
    return dict(_read(data))


def _read(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        key, at = _number(data, at)
        size, kind = 0, key & 7
        if kind == 0:
            _, at = _number(data, at)
        elif kind == _BYTES:
            size, at = _number(data, at)
            yield key >> 3, data[at : at + size]
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"protobuf has no values of kind {kind}")
        at += size
    if at > len(data):
        raise ValueError("the body ends too early")


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("the body ends too early")
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
