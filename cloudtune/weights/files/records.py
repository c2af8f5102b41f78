"""The record that is kept with every model made here, and JSON as it is written."""

from __future__ import annotations

import json

#: The record that cloudtune leaves in every model it makes, always written last.
RECORD = "cloudtune.json"


def record_text(record: dict[str, object]) -> bytes:
    """Return a JSON object as people and programs read it."""
    text = json.dumps(record, indent=2, ensure_ascii=False)
    try:
        return (text + "\n").encode()
    except UnicodeEncodeError:  # half of a surrogate pair, from a file that had it so
        return (json.dumps(record, indent=2) + "\n").encode()
