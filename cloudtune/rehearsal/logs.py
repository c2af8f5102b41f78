"""The lines of a job's nodes as a stand-in keeps them: added by the nodes' threads, read and followed by handlers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from cloudtune.rehearsal.nodes import Line

#: Seconds after which a follower that has heard nothing looks whether anybody still listens.
_LOOK_S = 0.2


class Log:
    """Lines in the order in which they were heard; a position counts them from 0. Any thread may use it."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._closed = False
        self._change = threading.Condition()

    def __len__(self) -> int:
        with self._change:
            return len(self._lines)

    def append(self, lines: tuple[Line, ...]) -> None:
        """Add lines: what a node is started with as its ``hear``."""
        with self._change:
            self._lines += lines
            self._change.notify_all()

    def close(self) -> None:
        """Say that no line will follow."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def read(self, start: int = 0, *, most: int | None = None) -> tuple[Line, ...]:
        """Return the lines from a position on."""
        with self._change:
            return tuple(self._lines[start : None if most is None else start + most])

    def follow(self, start: int = 0, *, alive: Callable[[], bool]) -> Iterator[tuple[Line, ...]]:
        """Return lines as they come, up to the log's close or until nobody listens.

        Nothing, (), comes now and then, so that whoever sends it on can find out that the other side is gone.
        """
        while alive():
            lines, closed = self._wait(start)
            start += len(lines)
            yield lines
            if closed:
                return

    def _wait(self, start: int) -> tuple[tuple[Line, ...], bool]:
        with self._change:
            self._change.wait_for(lambda: self._closed or len(self._lines) > start, _LOOK_S)
            return tuple(self._lines[start:]), self._closed
