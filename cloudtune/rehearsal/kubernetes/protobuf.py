"""Reviews of rights as ``kubectl auth`` sends them: in protobuf, whatever a server would rather have.

Objects are not taken so: ``kubectl apply`` and ``kubectl create -f`` send JSON, and JSON is taken for an answer.
Sources: the field numbers of ``generated.proto`` in ``k8s.io/api/authorization/v1`` and in
``k8s.io/apimachinery/pkg/runtime``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_TEXTS = {1: "namespace", 2: "verb", 3: "group", 4: "version", 5: "resource", 6: "subresource", 7: "name"}
#: Sizes of values that are no numbers of varying length and no bytes.
_FIXED = {1: 8, 5: 4}
_BYTES = 2


def review_of(body: bytes) -> dict[str, Any]:
    """Return a review as the JSON that would say the same.

    Raises:
        ValueError: the bytes are no object at all.
        LookupError: it is an object of another kind.
    """
    if not body.startswith(_MAGIC):
        raise ValueError("the body is no object in protobuf")
    whole = _fields(body[len(_MAGIC) :])
    kind = _fields(whole.get(1, b""))
    told = {"apiVersion": kind.get(1, b"").decode(), "kind": kind.get(2, b"").decode()}
    if not told["kind"].startswith("SelfSubject"):
        raise LookupError(told["kind"])
    spec = _fields(_fields(whole.get(2, b"")).get(2, b""))
    if told["kind"] == "SelfSubjectRulesReview":
        return {**told, "spec": {"namespace": spec.get(1, b"").decode()}}
    if told["kind"] == "SelfSubjectReview":
        return told
    if 1 not in spec:
        return {**told, "spec": {"nonResourceAttributes": {}}}
    asked = {_TEXTS[number]: value.decode() for number, value in _fields(spec[1]).items() if number in _TEXTS}
    return {**told, "spec": {"resourceAttributes": asked}}


def _fields(data: bytes) -> Mapping[int, bytes]:
    """Return the fields of a message that are bytes, by their numbers."""
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
