"""What the containers of pods have said, as their nodes keep it: a log for each start of a container, and its times.

A log is read by handlers while the kubelet adds to it. Those of a pod go with the pod; of a container's starts, the
last two are kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone

import attrs

from cloudtune.rehearsal.nodes import Line

#: Seconds after which a follower that has heard nothing looks whether anybody still listens.
_LOOK_S = 0.2
_NANO = 1_000_000_000


@attrs.frozen(kw_only=True)
class LogLine:
    """One line; ``time_ns`` is in nanoseconds since 1970, and greater than that of the line before."""

    time_ns: int
    stream: str
    text: str

    @property
    def stamp(self) -> str:
        """The time as the kubelet writes it: RFC 3339 with nanoseconds."""
        moment = datetime.fromtimestamp(self.time_ns // _NANO, timezone.utc)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{self.time_ns % _NANO:09d}Z"


class ContainerLog:
    """The lines of one start of a container; a position counts them from 0. Any thread may use it.

    A node keeps the newest ``most_bytes`` alone, as the kubelet does by rotating the files; ``None`` keeps all.
    """

    def __init__(self, *, most_bytes: int | None = None) -> None:
        self._lines: list[LogLine] = []
        self._gone = 0
        self._bytes = 0
        self._most_bytes = most_bytes
        self._last_ns = 0
        self._closed = False
        self._change = threading.Condition()

    def append(self, lines: Sequence[Line]) -> None:
        """Add lines: what a container is started with as its ``hear``."""
        with self._change:
            for line in lines:
                # lines that were read together were not written in the same nanosecond
                self._last_ns = max(int(line.time_s * _NANO), self._last_ns + 1)
                self._lines.append(LogLine(time_ns=self._last_ns, stream=line.stream, text=line.text))
                self._bytes += len(line.text)
            while self._most_bytes is not None and self._bytes > self._most_bytes:
                self._drop_half()
            self._change.notify_all()

    def _drop_half(self) -> None:
        dropped = self._lines[: len(self._lines) // 2 + 1]
        self._lines = self._lines[len(dropped) :]
        self._gone += len(dropped)
        self._bytes -= sum(len(line.text) for line in dropped)

    def close(self) -> None:
        """Say that no line will follow."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def read(self) -> tuple[LogLine, ...]:
        """Return the lines that are kept."""
        with self._change:
            return tuple(self._lines)

    def follow(self, start: int = 0, *, alive: Callable[[], bool]) -> Iterator[tuple[LogLine, ...]]:
        """Return lines from a position on as they come, up to the log's close or until nobody listens.

        Nothing, (), comes now and then, so that whoever sends it on can find out that the other side is gone.
        """
        while alive():
            lines, start, closed = self._wait(start)
            yield lines
            if closed:
                return

    def _wait(self, start: int) -> tuple[tuple[LogLine, ...], int, bool]:
        with self._change:
            self._change.wait_for(lambda: self._closed or self._gone + len(self._lines) > start, _LOOK_S)
            lines = tuple(self._lines[max(0, start - self._gone) :])
            return lines, self._gone + len(self._lines), self._closed


class ContainerLogs:
    """The logs of all containers of a cluster, by the pod's uid and the container's name."""

    def __init__(self, *, most_bytes: int | None = None) -> None:
        self.most_bytes = most_bytes
        self._lock = threading.Lock()
        self._logs: dict[tuple[str, str], list[ContainerLog]] = {}

    def begin(self, uid: str, container: str) -> ContainerLog:
        """Return a new log for the next start of a container."""
        log = ContainerLog(most_bytes=self.most_bytes)
        with self._lock:
            self._logs[uid, container] = [*self._logs.get((uid, container), [])[-1:], log]
        return log

    def get(self, uid: str, container: str, *, previous: bool = False) -> ContainerLog | None:
        """Return the log of a container's present start, or of the one before it; None if there is none."""
        with self._lock:
            logs = self._logs.get((uid, container), [])
        if previous:
            return logs[0] if len(logs) > 1 else None
        return logs[-1] if logs else None

    def forget(self, uid: str) -> None:
        """Remove the logs of a pod that is gone."""
        with self._lock:
            gone = [key for key in self._logs if key[0] == uid]
            logs = [log for key in gone for log in self._logs.pop(key)]
        for log in logs:
            log.close()  # whoever follows hears no more
