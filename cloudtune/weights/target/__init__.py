"""Where a model is written: whole or not at all, and continued where it was interrupted.

On this machine the files are written in a folder aside and moved at the end (:mod:`cloudtune.weights.target.folder`).
Object stores show a file only when it is complete, so there the files appear one by one, under a marker, the ones
without which no program takes them for a model last (:mod:`cloudtune.weights.target.store`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from cloudtune.uri import local_path
from cloudtune.weights.files.assembly import Output, Progress
from cloudtune.weights.target.folder import FolderTarget
from cloudtune.weights.target.store import StoreTarget

_KEY = re.compile("[0-9a-f]{16}")


class Target(Protocol):
    """A place for the files of one model."""

    def expect(self, names: Iterable[str]) -> None:
        """Raise UsageError if a file of one of these names is in the way; nothing is written."""

    def write(self, outputs: Sequence[Output], progress: Progress | None = None) -> None:
        """Write large files; those that an earlier try completed are left as they are."""

    def put(self, name: str, data: bytes) -> None:
        """Write a small file."""

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of every file written so far, by name, sorted."""


@contextmanager
def open_target(uri: str, key: str) -> Iterator[Target]:
    """Give a place to write a model in; at the end of the context all its files are there.

    ``key`` (16 hex digits) names what is written, so that only the same thing is ever continued. What has been written
    is kept when the context ends with an error: the next try goes on from there.

    Raises:
        UsageError: a model is there already or was begun, a file of the same name is in the way, another process
            writes there, or the disk is too small.
        CloudtuneError: the disk cannot be written.
        ServiceError, NotAllowed: the store cannot be written.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key of 16 hex digits")
    path = local_path(uri)
    target = FolderTarget(path, key) if path is not None else StoreTarget(uri, key)
    with target.claimed():
        yield target
        target.finish()
