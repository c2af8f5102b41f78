"""What the job's processes write, line by line with rank and stream, and the moment at which each rank ends.

The command writes into two named pipes; every rank into two of its own (see :mod:`cloudtune.node.shims`). This process
holds both ends of all of them open, so nobody waits for a reader and no end of file has to be handled. The end of a
rank is learned from the kernel (a pidfd) where that is possible, else by looking four times a second.
"""

from __future__ import annotations

import os
import re
import select
import selectors
import time
from collections.abc import Callable
from pathlib import Path

from cloudtune.node.lines import Splitter
from cloudtune.node.log import Log
from cloudtune.node.processes import ended_returncode
from cloudtune.node.records import Record

#: Pipes for at least so many ranks a node, in case the user's own flag asks for more than the plan.
_LEAST_SLOTS = 8
_CHUNK = 1 << 16
#: Reads of one pipe in a row, so that a loud rank does not silence the others; and at the very end.
_TURN = 16
_LAST_TURN = 4096
_POLL_S = 0.25
# torch's own report of failed ranks, the last resort for an exit code
_REPORTED = re.compile(r"exitcode\s*:\s*(-?\d+)\s*\(pid:\s*(\d+)\)")


class _Source:
    """One pipe: whose it is, and the line that is still open."""

    def __init__(self, fd: int, stream: str, slot: int | None) -> None:
        self.fd = fd
        self.stream = stream
        self.slot = slot
        self.splitter = Splitter()


class Streams:
    """The pipes of one node and the records of its processes."""

    def __init__(self, folder: Path, log: Log, *, slots: int) -> None:
        self.folder = folder
        self.log = log
        self.command: Record | None = None
        self.ranks: list[Record] = []
        self._by_slot: dict[int, Record] = {}
        self._reported: dict[int, int] = {}
        self._pidfds: dict[int, Record] = {}
        self._looked_at: set[int] = set()  # ranks without a pidfd
        self._selector = selectors.DefaultSelector()
        folder.mkdir(parents=True, exist_ok=True)
        self._events = self._open("events")
        self._open_event = b""
        self._sources = [_Source(self._open(stream), stream, None) for stream in ("stdout", "stderr")]
        for slot in range(max(slots, _LEAST_SLOTS)):
            for stream in ("stdout", "stderr"):
                self._sources.append(_Source(self._open(f"{slot}.{stream}"), stream, slot))
        self.watch(self._events, lambda: None)  # read before everything else, in poll
        for source in self._sources:
            self.watch(source.fd, lambda source=source: self._hear(source, _TURN))  # type: ignore[misc]

    def _open(self, name: str) -> int:
        path = self.folder / name
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back from :meth:`poll` whenever the descriptor can be read."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def command_ends(self) -> tuple[int, int]:
        """Return descriptors of the command's stdout and stderr, to be closed once it is started."""
        stdout, stderr = (os.open(self.folder / name, os.O_WRONLY | os.O_CLOEXEC) for name in ("stdout", "stderr"))
        return stdout, stderr

    def follow(self, pid: int, *, rank: int | None) -> Record:
        """Keep the record of the command itself; ``rank`` labels its lines as long as no rank of its own appears."""
        self.command = Record(rank=rank, local_rank=0, pid=pid)
        return self.command

    def poll(self, timeout_s: float) -> None:
        """Wait for output or an end, at most so long, and handle it."""
        if self._looked_at:
            timeout_s = min(timeout_s, _POLL_S)
        ready = self._selector.select(max(0.0, timeout_s))
        self._read_events()  # a rank announces itself before its first line
        for key, _ in ready:
            key.data()
        if self._looked_at:
            self._look()

    def drain(self) -> None:
        """Read what is left in all pipes, without waiting, and finish open lines."""
        self._read_events()
        for source in self._sources:
            self._hear(source, _LAST_TURN)
            self._say(source, source.splitter.flush())
        for pidfd in list(self._pidfds):
            if select.select([pidfd], [], [], 0)[0]:
                self._ended(pidfd)
        self._look()
        for record in self.ranks:
            record.end(record.ended_at or time.time(), self._reported.get(record.pid))

    def close(self) -> None:
        """Close and remove all pipes."""
        self._selector.close()
        for pidfd in self._pidfds:
            os.close(pidfd)
        for fd in (self._events, *(source.fd for source in self._sources)):
            os.close(fd)
        for path in self.folder.iterdir():
            if path.is_fifo():
                path.unlink()

    def last_attempts(self) -> list[Record]:
        """Return one record a rank, in order: of a rank that was started again, the last."""
        latest = {record.rank or 0: record for record in self.ranks}
        return [latest[rank] for rank in sorted(latest)]

    def alive(self) -> set[int]:
        """Return the pids of the ranks that have not ended."""
        return {record.pid for record in self.ranks if record.ended_at is None}

    def _hear(self, source: _Source, turns: int) -> None:
        for _ in range(turns):
            try:
                data = os.read(source.fd, _CHUNK)
            except BlockingIOError:
                return
            self._say(source, source.splitter.feed(data))

    def _say(self, source: _Source, lines: list[str]) -> None:
        if not lines:
            return
        record = self.command if source.slot is None else self._by_slot.get(source.slot)
        rank = record.rank if record else None
        if source.slot is None and self.ranks:
            rank = None  # the command is a launcher: its words are no rank's
        clean = self.log.write(rank, source.stream, lines)
        if record is not None:
            record.hear(source.stream, clean)
        if source.slot is None and source.stream == "stderr":
            for line in lines:
                found = _REPORTED.search(line)
                if found:
                    self._reported[int(found[2])] = int(found[1])

    def _read_events(self) -> None:
        try:
            data = self._open_event + os.read(self._events, _CHUNK)
        except BlockingIOError:
            return
        *whole, self._open_event = data.split(b"\n")
        for event in whole:
            words = event.decode("ascii", "replace").split()
            if len(words) == 4 and all(word.isdigit() for word in (words[0], words[1], words[3])):
                self._began(int(words[0]), int(words[1]), words[2], int(words[3]))

    def _began(self, rank: int, local_rank: int, slot: str, pid: int) -> None:
        record = Record(rank=rank, local_rank=local_rank, pid=pid)
        self.ranks.append(record)
        if slot.isdigit():
            self._by_slot[int(slot)] = record
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            record.end(time.time(), ended_returncode(pid))
        except (AttributeError, OSError):  # no Linux, an old kernel, or a sandbox that forbids it
            self._looked_at.add(pid)
        else:
            self._pidfds[pidfd] = record
            self.watch(pidfd, lambda: self._ended(pidfd))

    def _ended(self, pidfd: int) -> None:
        now = time.time()
        record = self._pidfds.pop(pidfd, None)
        if record is not None:
            record.end(now, ended_returncode(record.pid))
            self._selector.unregister(pidfd)
            os.close(pidfd)

    def _look(self) -> None:
        for record in self.ranks:
            if record.pid in self._looked_at and not _exists(record.pid):
                self._looked_at.discard(record.pid)
                record.end(time.time(), ended_returncode(record.pid))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
