"""A submission's journal in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudtune.store import Entry


class Journal:
    """What :mod:`cloudtune.submit` writes down and reads again."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def read(self) -> Mapping[str, Entry]:
        return self.entries

    def write(self, step: str, phase: str, reply: Mapping[str, Any] | None = None) -> None:
        self.entries[step] = Entry(step=step, phase=phase, reply=reply)
