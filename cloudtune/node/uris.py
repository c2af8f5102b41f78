"""What a URI names, by its text alone: one rule for the node and for the client."""

from __future__ import annotations

import os
import re
from pathlib import Path

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|([A-Za-z][A-Za-z0-9+.-]*)::|(file):(?=/)")
_LOCAL = ("file", "local")


def scheme_of(uri: str) -> str:
    """Return the scheme of a URI in lower case; a local path has ``file``."""
    match = SCHEME.match(uri)
    found = next(filter(None, match.groups()), "file").lower() if match else "file"
    return "file" if found in _LOCAL else found


def local_path(uri: str) -> Path | None:
    """Return the path of a local URI or plain path, None for any other; nothing in it is percent-encoded."""
    if scheme_of(uri) != "file":
        return None
    match = SCHEME.match(uri)
    path = uri[match.end() :] if match else os.path.expanduser(uri)  # noqa: PTH111 - a name with ~ may be no user's
    if match and path.startswith("localhost/"):
        path = path[len("localhost") :]
    if os.name == "nt" and re.match(r"/[A-Za-z]:", path):
        path = path[1:]
    return Path(path)
