"""Records of models: JSON as people and programs read it, and the key of what is being written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping


def record_text(record: Mapping[str, object]) -> bytes:
    """Return a JSON object as people and programs read it."""
    text = json.dumps(dict(record), indent=2, ensure_ascii=False)
    try:
        return (text + "\n").encode()
    except UnicodeEncodeError:  # half of a surrogate pair, from a file that had it so
        return (json.dumps(dict(record), indent=2) + "\n").encode()


def key_of(*facts: str | bytes) -> str:
    """Return what names this very model while it is written: what it is made of, and how, as 16 hex digits."""
    digest = hashlib.sha256()
    for fact in facts:
        data = fact.encode(errors="surrogatepass") if isinstance(fact, str) else fact
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]
