"""Records of models: JSON as people and programs read it, and the key of what is being written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def record_text(record: Mapping[str, object]) -> bytes:
    """Return a JSON object as people and programs read it."""
    text = json.dumps(dict(record), indent=2, ensure_ascii=False)
    try:
        return (text + "\n").encode()
    except UnicodeEncodeError:  # half of a surrogate pair, from a file that had it so
        return (json.dumps(dict(record), indent=2) + "\n").encode()


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object that every program can read: NaN and infinity, which only some know, become null.

    Halves of characters, from names that are no text in UTF-8, become question marks.
    """
    text = json.dumps(dict(record), ensure_ascii=False).encode(errors="replace")
    value: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    return value


def key_of(*facts: str | bytes) -> str:
    """Return what names this very model while it is written: what it is made of, and how, as 16 hex digits."""
    digest = hashlib.sha256()
    for fact in facts:
        data = fact.encode(errors="surrogatepass") if isinstance(fact, str) else fact
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]
