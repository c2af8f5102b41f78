"""Which files are archives of code, by their names: one list for the plan, the workspace and the node."""

from __future__ import annotations

import re

#: Ends of the names of files that are unpacked where the job runs.
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def last_part(uri: str) -> str:
    """Return the last part of a URI's path, "" if it has none."""
    return re.split(r"[?#]", uri, maxsplit=1)[0].rstrip("/").rpartition("/")[2]


def is_archive(name: str) -> bool:
    """Whether a file of that name is unpacked."""
    return name.lower().endswith(SUFFIXES)
