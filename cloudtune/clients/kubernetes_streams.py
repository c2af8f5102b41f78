"""Logs of containers as they are followed: what came is kept until it was asked for, also when the pod is gone.

A log goes with its pod, and a pod may go a moment after its last line. So a log that was asked for is followed by a
thread from then on, and whoever asks again is given what has come. A stream that ended, for whatever reason, is opened
again when the log is asked for; what was there before is left out by the times that the kubelet gave the lines.
These need not ascend: a container's two outputs are stamped each by itself before they are written to one file.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import attrs

#: Bytes of one log that are kept until they are asked for.
MOST_BYTES = 16 << 20
#: Seconds after which a stream ends that nobody asks for.
IDLE_S = 60.0
#: Seconds that the stream of a container which has ended is waited for.
_END_S = 2.0
_NANO = 1_000_000_000
#: Seconds back from the newest line in which a line is told from those before it by its time, and not taken for one.
_BACK_S = 1
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ")

Parameters = Mapping[str, Any]


class Mirror:
    """One start of a container: its lines since they were last asked for, and where a stream has to go on.

    ``first`` is what there is of it from the second ``begin_s`` on.
    Any thread may use it. ``ended`` is whether its stream ended by itself, and was not cut; ``whole`` whether all lines
    of a container that has ended are here.
    """

    def __init__(self, first: bytes, begin_s: int) -> None:
        self._begin_s = begin_s
        self.ended = self.whole = False
        self._lines: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._last = 0
        self._recent = _Moments()
        self._asked = time.monotonic()
        self._change = threading.Condition()
        self.thread: threading.Thread | None = None
        for line in self._whole(first):
            moment = _moment(line)
            if moment is not None:
                self._recent.count(moment)
            self._take(line, moment)

    @property
    def alive(self) -> bool:
        """Whether a stream is open."""
        return self.thread is not None and self.thread.is_alive()

    def join(self) -> None:
        """Wait a little for the end of a stream."""
        if self.thread is not None:
            self.thread.join(_END_S)

    @property
    def since_s(self) -> int:
        """The second from which a stream has to go on: a line may still come that is a little behind."""
        return max(self._begin_s, self._last // _NANO - _BACK_S)

    def text(self, since_s: int, limit: int | None) -> str:
        """Return the lines since a time, up to so many bytes, and forget those before it."""
        with self._change:
            self._asked = time.monotonic()
            while self._lines and self._lines[0][0] < since_s * _NANO:
                self._size -= len(self._lines.popleft()[1])
            found, size = [], 0
            for _, line in self._lines:
                found.append(line)
                size += len(line)
                if limit is not None and size >= limit:
                    break
            self._change.notify_all()
        return b"".join(found)[:limit].decode(errors="replace")

    def fill(self, text: bytes) -> None:
        """Take in what was read from the second of the last line on."""
        with self._change:
            self._asked = time.monotonic()
        heard = _Moments()
        for line in self._whole(text):
            self._accept(line, heard)

    def add(self, pieces: Iterator[bytes]) -> None:
        """Take in what a stream brings, from the second of the last line on, as long as somebody asks for it.

        Raises whatever the stream raises, when it is cut.
        """
        rest, heard = b"", _Moments()
        for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._accept(line + b"\n", heard)
                if not self._is_wanted():
                    return
        if rest:
            self._accept(rest + b"\n", heard)
        self.ended = True

    def _accept(self, line: bytes, heard: _Moments) -> None:
        """Take in a line unless it was there before; ``heard`` counts the lines that its reader has brought."""
        moment = _moment(line)
        if moment is None:
            return  # it may have been there before
        with self._change:
            if moment // _NANO < self.since_s or heard.count(moment) <= self._recent.of(moment):
                return
            self._recent.count(moment)
            self._take(line, moment)

    def _is_wanted(self) -> bool:
        """Wait until there is room; return whether somebody still asks for the lines."""
        with self._change:
            while self._size > MOST_BYTES and time.monotonic() - self._asked < IDLE_S:
                self._change.wait(1.0)
            return time.monotonic() - self._asked < IDLE_S

    def _take(self, line: bytes, moment: int | None) -> None:
        self._last = max(self._last, moment or 0)
        self._lines.append((self._last, line))
        self._size += len(line)

    @staticmethod
    def _whole(text: bytes) -> list[bytes]:
        return [line + b"\n" for line in text.removesuffix(b"\n").split(b"\n") if line]


class _Moments:
    """How many lines there are of each moment, of the newest seconds."""

    def __init__(self) -> None:
        self._seconds: dict[int, dict[int, int]] = {}
        self._newest = 0

    def count(self, moment: int) -> int:
        """Count a line, and return how many there are of its moment now."""
        second = moment // _NANO
        if second > self._newest:
            self._newest = second
            for old in [one for one in self._seconds if one < second - _BACK_S]:
                del self._seconds[old]
        counts = self._seconds.setdefault(second, {})
        counts[moment] = found = counts.get(moment, 0) + 1
        return found

    def of(self, moment: int) -> int:
        """Return how many lines there are of a moment."""
        return self._seconds.get(moment // _NANO, {}).get(moment, 0)


@attrs.define
class Streams:
    """All logs that one client follows.

    ``read`` gives a log as it is, or None where there is none; ``follow`` its pieces as they come.
    """

    read: Callable[[Parameters], str | None]
    follow: Callable[[Parameters], Iterator[bytes]]
    _mirrors: dict[tuple[Any, ...], Mirror] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def answer(self, given: Parameters) -> dict[str, Any]:
        """Return what is asked for of a log: ``text``, and ``whole`` if it is known to be all that there will be.

        ``uid`` tells a pod from others of its name, ``start`` a start of its container from those before, ``whole``
        that its container has ended, ``gone`` that the pod is not there any more, so that only what was heard of it can
        be told.
        """
        key = tuple(given.get(name) for name in ("namespace", "uid", "container", "start", "previous"))
        with self._lock:
            mirror = self._mirrors.get(key)
        if mirror is None:
            return {"absent": True} if given.get("gone") else self._first(key, given)
        if given.get("gone"):
            mirror.join()
            mirror.whole = mirror.whole or mirror.ended
        elif given.get("whole") and not mirror.whole:
            mirror.join()
            mirror.whole = self._filled(mirror, given)
        elif not mirror.whole and not mirror.alive and self._filled(mirror, given):
            self._open(mirror, given)
        return {"text": mirror.text(_second(given.get("sinceTime")), given.get("limitBytes")), "whole": mirror.whole}

    def _first(self, key: tuple[Any, ...], given: Parameters) -> dict[str, Any]:
        """Read a log, and follow it from now on if that was all of it."""
        text = self.read(given)
        if text is None:
            return {"absent": True}
        data, limit = text.encode(errors="replace"), given.get("limitBytes")
        if not given.get("previous") and not given.get("whole") and (limit is None or len(data) < limit):
            mirror = Mirror(data, _second(given.get("sinceTime")))
            with self._lock:
                self._mirrors[key] = mirror
            self._open(mirror, given)
        return {"text": text}

    def _filled(self, mirror: Mirror, given: Parameters) -> bool:
        """Read what has come since a stream ended; False if there is no such log any more."""
        text = self.read(_later(mirror, given))
        if text is not None:
            mirror.fill(text.encode(errors="replace"))
        return text is not None

    def _open(self, mirror: Mirror, given: Parameters) -> None:
        mirror.ended = False

        def run() -> None:
            # a stream that is cut is opened again when the log is asked for
            with suppress(Exception):
                mirror.add(self.follow(_later(mirror, given)))

        mirror.thread = threading.Thread(target=run, name=f"log of {given.get('name')}", daemon=True)
        mirror.thread.start()


def _later(mirror: Mirror, given: Parameters) -> dict[str, Any]:
    """Return the parameters of what comes behind a mirror's last line."""
    return {**given, "sinceTime": _text(mirror.since_s), "limitBytes": None}


def _moment(line: bytes) -> int | None:
    """Return the time of a line in nanoseconds since the epoch, None if it has none."""
    found = _STAMP.match(line)
    if found is None:
        return None
    zone = found[3].decode().replace("Z", "+00:00")
    whole = int(datetime.fromisoformat(found[1].decode() + zone).timestamp())
    return whole * _NANO + int((found[2] or b"0").ljust(9, b"0"))


def _second(text: str | None) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()) if text else 0


def _text(second: int) -> str | None:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second)) if second else None
