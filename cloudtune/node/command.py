"""Runs the node's command to its end, and ends everything that it left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from cloudtune.node import processes
from cloudtune.node.errors import NodeError
from cloudtune.node.report import signal_name
from cloudtune.node.streams import Streams

#: Seconds that what a finished command left behind is given to end by itself.
_LEFTOVER_GRACE_S = 5.0
_IDLE_S = 60.0


class Command:
    """One command with all its processes; ``stop`` may be called at any time, also by a signal's handler."""

    def __init__(
        self,
        streams: Streams,
        *,
        run_id: str,
        node_rank: int,
        grace_s: float,
        spared: Callable[[], Collection[int]],
    ) -> None:
        self.streams = streams
        self.run_id = run_id
        self.node_rank = node_rank
        self.grace_s = grace_s
        self.stopped: str | None = None
        self.stopped_at: float | None = None
        self.ended_at: float | None = None
        self._spared = spared

    def stop(self, why: str) -> None:
        """Ask the command to end; asked again, nothing changes."""
        if self.stopped is None:
            self.stopped_at = time.time()
            self.stopped = why

    def run(self, line: Sequence[str], *, variables: Mapping[str, str], folder: Path, rank: int | None) -> int:
        """Run a command to its end, with all its processes; return its ``Popen.returncode``."""
        process = self._start(line, variables, folder)
        record = self.streams.follow(process.pid, rank=rank)
        ending: processes.Ending | None = None
        try:
            while True:
                if self.stopped is not None and ending is None:
                    ending = self._ending(self.grace_s)
                over = ending is None or ending.step()
                if process.poll() is not None and over:
                    break
                if ending is not None and over:
                    break  # what is left cannot be ended
                processes.reap()
                self.streams.poll(_IDLE_S if ending is None else processes.LOOK_S)
        finally:
            self.ended_at = time.time()
            record.end(self.ended_at, process.poll())
            self._end_leftovers()
            processes.forget(process)
            self.streams.drain()
        code = process.poll()
        return -signal.SIGKILL if code is None else code

    def _start(self, line: Sequence[str], variables: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
        stdout, stderr = self.streams.command_ends()
        try:
            return processes.start(
                line,
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        except OSError as error:
            raise NodeError(f"cannot start {line[0]}: {error.strerror}; is it in the image and on PATH?") from error
        finally:
            os.close(stdout)
            os.close(stderr)

    def _end_leftovers(self) -> None:
        ending = self._ending(min(self.grace_s, _LEFTOVER_GRACE_S))
        while not ending.step():
            self.streams.poll(processes.LOOK_S)
        if ending.left:
            names = ", ".join(map(str, sorted(ending.left)))
            self.streams.log.say(f"warning: the kernel does not end the processes {names}")

    def _ending(self, grace_s: float) -> processes.Ending:
        return processes.Ending(
            self.run_id,
            grace_s=grace_s,
            node_rank=self.node_rank,
            spared=self._spared,
            forwarded=self.streams.alive,
        )


def why_stopped(signal_number: int) -> str:
    """Return what a report says about a stop by a signal."""
    return "time limit" if signal_number == signal.SIGALRM else signal_name(signal_number)
