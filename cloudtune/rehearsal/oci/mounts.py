"""A bucket as a folder, for nodes that mount it: what is written there becomes objects, and objects appear there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from cloudtune.rehearsal.oci import blobs
from cloudtune.rehearsal.oci.shelves import Object, Shelf

_Stamp = tuple[int, int, int]


@attrs.frozen(kw_only=True)
class _Seen:
    """A file and the object that it was equal to."""

    stamp: _Stamp
    etag: str


class Mount:
    """One bucket's folder. It is compared with the bucket whenever somebody asks for either."""

    def __init__(self, folder: Path, shelf: Shelf, blob_folder: Path, now_s: Callable[[], float]) -> None:
        self.folder = folder
        self._shelf, self._blob_folder, self._now_s = shelf, blob_folder, now_s
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def settle(self) -> None:
        """Take over what has changed: from the folder first, then from the bucket."""
        with self._lock:
            files = dict(self._files())
            for name, stamp in files.items():
                seen = self._seen.get(name)
                if seen is None or seen.stamp != stamp:
                    self._take(name, stamp)
            for name in self._seen.keys() - files.keys():
                gone = self._shelf.take(name)
                if gone is not None:
                    gone.blob.forget()
                del self._seen[name]
            objects = {one.name: one for one in self._shelf.find().objects}
            for name in self._seen.keys() - objects.keys():
                (self.folder / name).unlink(missing_ok=True)
                del self._seen[name]
            for name, one in objects.items():
                if name not in self._seen or self._seen[name].etag != one.etag:
                    self._show(one)

    def _files(self) -> Iterator[tuple[str, _Stamp]]:
        for place, _, names in os.walk(self.folder):
            for name in names:
                path = Path(place, name)
                if path.is_file() and not path.is_symlink():
                    yield path.relative_to(self.folder).as_posix(), _stamp(path)

    def _take(self, name: str, stamp: _Stamp) -> None:
        try:
            blob = blobs.taken(self.folder / name, self._blob_folder)
        except FileNotFoundError:  # removed this very moment
            return
        made = Object(name=name, blob=blob, time_s=self._now_s(), headers={"content-type": "application/octet-stream"})
        self._shelf.put(made)
        self._seen[name] = _Seen(stamp=stamp, etag=made.etag)

    def _show(self, one: Object) -> None:
        """Write an object's file; one whose name is no path below the folder stays unseen."""
        if any(part in ("", ".", "..") for part in one.name.split("/")):
            return
        path = self.folder / one.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with one.blob.open() as source:
                made = blobs.write(iter(lambda: source.read(1 << 20), b""), self._blob_folder)
            made.chmod(0o644)
            made.replace(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError, FileNotFoundError):
            return  # a file is where a folder would be, or the object is gone again
        self._seen[one.name] = _Seen(stamp=_stamp(path), etag=one.etag)


def _stamp(path: Path) -> _Stamp:
    facts = path.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
