"""Watches: the changes of a kind as a stream, from a version on, until the client or its time is over."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from cloudtune.rehearsal.kubernetes import speech
from cloudtune.rehearsal.kubernetes.objects import Change, Object, Objects
from cloudtune.rehearsal.kubernetes.selectors import Match
from cloudtune.rehearsal.kubernetes.targets import YES, Target
from cloudtune.rehearsal.messages import Request
from cloudtune.rehearsal.state import Gone

#: Seconds that a watch lasts whose client does not say; the real ones take half an hour to an hour.
_MOST_S = 1800.0
#: Seconds between two bookmarks of a watch that wants them, and between two looks whether anybody listens.
_BOOKMARK_S = 5.0
_LOOK_S = 0.2
_WORDS = {"added": "ADDED", "changed": "MODIFIED", "removed": "DELETED"}

#: Gives an object the form that the client asked for.
Form = Callable[[Object], Object]


class Watch:
    """One watch: iterated, it is the stream's lines."""

    def __init__(self, objects: Objects, target: Target, request: Request, match: Match, form: Form) -> None:
        self._objects = objects
        self._target = target
        self._request = request
        self._match = match
        self._form = form
        given = request.query.get("timeoutSeconds", "")
        self._until_s = time.monotonic() + (float(given) if given.isdecimal() and int(given) else _MOST_S)
        self._bookmarks = request.query.get("allowWatchBookmarks", "") in YES

    def __iter__(self) -> Iterator[bytes]:
        version = self._request.query.get("resourceVersion", "")
        since = int(version) if version.isdecimal() else 0
        if not since:
            kind, namespace = self._target.kind.kind, self._target.namespace
            since, found = self._objects.listed(kind, namespace, where=self._match)
            for thing in found:
                yield _line("ADDED", self._form(thing))
        try:
            yield from self._follow(since)
        except Gone:
            yield _line("ERROR", speech.status_of(speech.expired(since, self._objects.oldest)))

    def _follow(self, since: int) -> Iterator[bytes]:
        told_s = time.monotonic()
        while self._request.alive():
            left_s = self._until_s - time.monotonic()
            if left_s <= 0:
                break
            kinds = {self._target.kind.kind}
            changes, since = self._objects.changes(since, kinds=kinds, timeout_s=min(left_s, _LOOK_S))
            lines = [line for change in changes if (line := self._line(change))]
            if self._bookmarks and time.monotonic() - told_s > _BOOKMARK_S:
                lines.append(self._bookmark(since))
                told_s = time.monotonic()
            yield b"".join(lines)  # nothing, now and then, so that it is seen whether anybody listens
        if self._bookmarks:
            yield self._bookmark(since)

    def _line(self, change: Change) -> bytes | None:
        thing, namespace = change.object, self._target.namespace
        if namespace is not None and thing["metadata"].get("namespace") != namespace:
            return None
        is_meant = self._match(thing)
        was_meant = change.before is not None and self._match(change.before)
        word = _WORDS[change.deed]
        if change.deed == "changed" and is_meant != was_meant:  # it came to be what is asked for, or ceased to
            word, is_meant = ("ADDED" if is_meant else "DELETED"), True
        return _line(word, self._form(thing)) if is_meant else None

    def _bookmark(self, version: int) -> bytes:
        kind = self._target.kind
        meta = {"resourceVersion": str(version), "creationTimestamp": None}
        return _line("BOOKMARK", {"kind": kind.kind, "apiVersion": self._target.api_version, "metadata": meta})


def _line(word: str, thing: Any) -> bytes:
    return json.dumps({"type": word, "object": thing}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
