"""Replies that come in pieces, as AWS's services frame them: ``application/vnd.amazon.eventstream``.

Source: the "event stream encoding" of the Smithy specification.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping

KIND = "application/vnd.amazon.eventstream"
_TEXT = 7


def event(name: str, data: Mapping[str, object]) -> bytes:
    """Return one event of JSON."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return _framed(headers, json.dumps(data).encode())


def raw_event(name: str, data: bytes) -> bytes:
    """Return one event whose payload is bytes as they are."""
    headers = {":event-type": name, ":content-type": "application/octet-stream", ":message-type": "event"}
    return _framed(headers, data)


def broken(kind: str, message: str) -> bytes:
    """Return the event that ends a stream which failed."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return _framed(headers, json.dumps({"message": message}).encode())


def _framed(headers: Mapping[str, str], payload: bytes) -> bytes:
    words = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack("!II", 16 + len(words) + len(payload), len(words))
    framed = prelude + struct.pack("!I", zlib.crc32(prelude)) + words + payload
    return framed + struct.pack("!I", zlib.crc32(framed))


def _header(name: str, value: str) -> bytes:
    text = value.encode()
    return bytes([len(name)]) + name.encode() + struct.pack("!BH", _TEXT, len(text)) + text
