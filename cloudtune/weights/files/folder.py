"""The files at a URI, and the JSON in them; read-only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from cloudtune import storage
from cloudtune.errors import UsageError
from cloudtune.ranges import Reader
from cloudtune.uri import join, shown

#: JSON files of models are small, the largest are vocabularies of 35 MB; a larger one is something else.
_MAX_JSON_BYTES = 64 << 20
#: A hundred bytes of memory each: the largest vocabularies have a million and a half.
_MAX_JSON_VALUES = 4_000_000


@attrs.frozen(kw_only=True)
class Folder:
    """The files at a URI: their bytes by path; read-only. ``named`` is what it is a copy of, for messages."""

    uri: str
    files: Mapping[str, int]
    named: str | None = None

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def open(self, name: str) -> Reader:
        """Return a file's bytes by ranges; the caller closes it."""
        return Reader(join(self.uri, name), self.files.get(name))

    def read(self, name: str) -> bytes:
        """Return all bytes of a small file."""
        with self.open(name) as reader:
            if reader.size > _MAX_JSON_BYTES:
                raise UsageError(f"{self.shown(name)} has {reader.size} bytes", hint="that is no file of a model")
            return reader.read(0, reader.size)

    def text(self, name: str) -> str:
        """Return the text in a small file; raises UsageError if it is none."""
        try:
            return self.read(name).decode()
        except UnicodeDecodeError as error:
            raise UsageError(f"{self.shown(name)} is no text: {error}", hint="copy it again") from error

    def json(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file; raises UsageError if it is none."""
        text = self.read(name)
        if sum(text.count(mark) for mark in (b",", b"[", b"{")) > _MAX_JSON_VALUES:
            raise UsageError(f"{self.shown(name)} holds too much to be read", hint="that is no file of a model")
        try:
            value = json.loads(text)
        except RecursionError as error:
            raise UsageError(f"{self.shown(name)} is nested too deep", hint="that is no file of a model") from error
        except ValueError as error:
            raise UsageError(f"{self.shown(name)} cannot be read: {error}", hint="copy it again") from error
        if not isinstance(value, dict):
            raise UsageError(f"{self.shown(name)} holds no JSON object", hint="copy it again")
        return value

    def state(self, names: Iterable[str]) -> str:
        """Return what tells files from others of the same names: how long they are now, from when, and their tags."""
        wanted = self.files.keys() & set(names)
        entries = (entry for entry in storage.listing(self.uri) if entry.path in wanted)
        return "".join("\0".join(map(str, entry.state)) + "\n" for entry in entries)

    def shown(self, name: str = "") -> str:
        """Return the place of a file for messages."""
        return shown(join(self.named or self.uri, name))


def folder_at(uri: str) -> Folder:
    """Return the files below a URI; empty for a place where nothing is."""
    return Folder(uri=uri, files={entry.path: entry.bytes for entry in storage.listing(uri) if entry.path})
