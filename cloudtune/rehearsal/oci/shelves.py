"""Buckets' contents: objects by name, in the order of their names, each change made in one step."""

from __future__ import annotations

import bisect
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import NamedTuple

import attrs

from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.oci.blobs import Blob

DELIMITER = "/"


def fresh_tag() -> str:
    """Return a text that nothing else has, as entity tags and versions look."""
    return str(uuid.uuid4())


@attrs.frozen(kw_only=True)
class Object:
    """One object as it is at a moment; ``headers`` are those of its sender that come back with it."""

    name: str
    blob: Blob
    time_s: float
    multipart_md5: str | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    tier: str = "Standard"
    etag: str = attrs.field(factory=fresh_tag)
    version: str = attrs.field(factory=fresh_tag)

    @property
    def md5(self) -> str:
        """What lists show as the object's MD5."""
        return self.multipart_md5 or self.blob.md5


@attrs.frozen(kw_only=True)
class Condition:
    """What must be true of the object that is there: its entity tag, or that there is none (``*``)."""

    match: str = ""
    none_match: str = ""

    def check(self, old: Object | None) -> None:
        """Refuse (412) where it is not."""
        if self.match and (old is None or self.match not in ("*", old.etag)):
            raise Refused(412, "IfMatchFailed", "The If-Match header does not match the object's current ETag")
        if self.none_match and self.none_match != "*":
            raise Refused(400, "InvalidParameter", "The If-None-Match header may be '*' only")
        if self.none_match and old is not None:
            raise Refused(412, "IfNoneMatchFailed", f"The object '{old.name}' already exists")


class Found(NamedTuple):
    """One page of a list: objects, what stands for several of them, and where the next page begins."""

    objects: list[Object]
    prefixes: list[str]
    next: str | None


@attrs.frozen(kw_only=True)
class Piece:
    """One part of an upload."""

    blob: Blob
    etag: str = attrs.field(factory=fresh_tag)


@attrs.define(kw_only=True)
class Upload:
    """An object that comes in parts, by their numbers."""

    name: str
    time_s: float
    headers: Mapping[str, str]
    tier: str
    condition: Condition
    id: str = attrs.field(factory=fresh_tag)
    pieces: dict[int, Piece] = attrs.field(factory=dict)

    def forget(self) -> None:
        """Remove the parts."""
        for piece in self.pieces.values():
            piece.blob.forget()


class Shelf:
    """The objects of one bucket, and the uploads that have begun. Its methods may be called by any thread."""

    def __init__(self) -> None:
        self.uploads: dict[str, Upload] = {}
        self._objects: dict[str, Object] = {}
        self._names: list[str] = []
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._names)

    def get(self, name: str) -> Object | None:
        """Return an object, None if there is none of this name."""
        with self._lock:
            return self._objects.get(name)

    def put(self, new: Object, condition: Condition | None = None) -> None:
        """Put an object in the place of the one that is there; Refused (412) where the condition does not hold."""
        with self._lock:
            old = self._objects.get(new.name)
            (condition or Condition()).check(old)
            if old is None:
                bisect.insort(self._names, new.name)
            self._objects[new.name] = new
        if old is not None and old.blob.path != new.blob.path:
            old.blob.forget()

    def take(self, name: str, condition: Condition | None = None) -> Object | None:
        """Remove an object and return it with its bytes, which are the caller's to forget; None if there is none."""
        with self._lock:
            old = self._objects.get(name)
            if old is None:
                return None
            (condition or Condition()).check(old)
            self._drop(name)
            return old

    def rename(self, name: str, new: Callable[[Object], Object], source: Condition, target: Condition) -> Object | None:
        """Give an object another name in one step; return it, None if there is none."""
        with self._lock:
            old = self._objects.get(name)
            if old is None:
                return None
            source.check(old)
            renamed = new(old)
            target.check(self._objects.get(renamed.name))
            self._drop(name)
            self.put(renamed)
            return renamed

    def find(
        self,
        *,
        prefix: str = "",
        start: str = "",
        start_after: str = "",
        end: str = "",
        delimited: bool = False,
        limit: int | None = None,
    ) -> Found:
        """Return the objects whose names begin with a prefix and lie in a span, from ``start`` on and before ``end``.

        Where delimited, those with a further slash are one entry for all that have the same name up to it.
        """
        found = Found([], [], None)
        with self._lock:
            at = bisect.bisect_left(self._names, max(prefix, start))
            if start_after:
                at = max(at, bisect.bisect_right(self._names, start_after))
            while at < len(self._names):
                name = self._names[at]
                if not name.startswith(prefix) or (end and name >= end):
                    break
                if limit is not None and len(found.objects) + len(found.prefixes) == limit:
                    return found._replace(next=name)
                below, slash, _ = name[len(prefix) :].partition(DELIMITER)
                if delimited and slash:
                    found.prefixes.append(prefix + below + DELIMITER)
                    # the next sign after the slash: everything below it is passed over
                    at = bisect.bisect_left(self._names, prefix + below + chr(ord(DELIMITER) + 1))
                else:
                    found.objects.append(self._objects[name])
                    at += 1
        return found

    def upload(self, identity: str, name: str) -> Upload:
        """Return an upload that has begun; Refused (404) where there is none."""
        with self._lock:
            found = self.uploads.get(identity)
        if found is None or found.name != name:
            raise Refused(404, "NoSuchUpload", f"The upload with ID '{identity}' of object '{name}' was not found")
        return found

    def put_piece(self, upload: Upload, number: int, piece: Piece) -> None:
        """Put a part in the place of the one of its number; Refused (404) if the upload has ended meanwhile."""
        with self._lock:
            if upload.id not in self.uploads:
                piece.blob.forget()
                self.upload(upload.id, upload.name)
            old, upload.pieces[number] = upload.pieces.get(number), piece
        if old is not None:
            old.blob.forget()

    def end(self, identity: str, name: str) -> Upload:
        """Take an upload off the shelf: it is committed, or aborted; Refused (404) where there is none."""
        with self._lock:
            found = self.upload(identity, name)
            del self.uploads[identity]
        return found

    def _drop(self, name: str) -> None:
        del self._objects[name]
        del self._names[bisect.bisect_left(self._names, name)]
