"""Runs nodes: starts them, hears what they say, ends them, and learns how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from cloudtune.errors import CloudtuneError
from cloudtune.node.lines import Splitter
from cloudtune.rehearsal.faults import Faults
from cloudtune.rehearsal.isolation import Isolation, isolation
from cloudtune.rehearsal.nodes import End, Line, Node, Reason, order_of
from cloudtune.rehearsal.wardens import Warden

#: Seconds for the namespaces and mounts of a node on a busy machine.
START_S = 60.0
#: Seconds after which a node that was ended, but is not gone, loses its warden.
KILL_S = 5.0
_LOOK_S = 0.25
_CHUNK = 1 << 16

Hear = Callable[[tuple[Line, ...]], None]


class Over(CloudtuneError):
    """A node was to be started after the rehearsal had ended."""


class RunningNode:
    """A node from its start to its end. Its lines are given to ``hear`` in order, by a thread of its own."""

    def __init__(self, node: Node, way: Isolation, hear: Hear, *, dies_after: tuple[int | None, float | None]) -> None:
        self.node = node
        self.end: End | None = None
        self.started_s = time.time()
        self.refusal: str | None = None
        self._hear = hear
        self._dies_after_lines, dies_after_s = dies_after
        self._lines = 0
        self._asked: Reason | None = None
        self._code: int | None = None
        self._out_of_memory = False
        self._report = b""
        self._fault: Exception | None = None
        self._lock = threading.Lock()
        self._begun, self._ended = threading.Event(), threading.Event()
        now = time.monotonic()
        self._kill_at: list[tuple[float, Reason]] = []
        if node.time_limit_s is not None:
            self._kill_at.append((now + node.time_limit_s, "time limit"))
        if dies_after_s is not None:
            self._kill_at.append((now + dies_after_s, "died"))
        self._give_up_at: float | None = None
        self._warden = Warden(order_of(node, way))
        self._thread = threading.Thread(target=self._follow, name=f"rehearsed {node.name}", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Wait until the command has been started; CloudtuneError where the node could not be made."""
        self._begun.wait(START_S)
        if self.refusal is not None or not self._begun.is_set():
            self.kill()
            self.wait()
            raise CloudtuneError(f"rehearsed node {self.node.name} did not start: {self.refusal or 'no word'}")

    def stop(self, *, grace_s: float) -> None:
        """Ask the command to end, and end all of the node after the grace."""
        with self._lock:
            self._kill_at.append((time.monotonic() + grace_s, "stopped"))
            self._asked = self._asked or "stopped"
        self._warden.ask_to_end()

    def kill(self, reason: Reason = "killed") -> None:
        """End all of the node now."""
        with self._lock:
            self._asked = self._asked or reason
            if self._give_up_at is not None or self._ended.is_set():
                return
            self._give_up_at = time.monotonic() + KILL_S
        self._warden.end()

    def wait(self, timeout_s: float | None = None) -> End | None:
        """Return how the node ended, once its last line has been heard; None if it goes on.

        What ``hear`` raised is raised here.
        """
        self._ended.wait(timeout_s)
        if self._fault is not None:
            raise self._fault
        return self.end

    def _follow(self) -> None:
        """Read until every process that could write is gone."""
        process = self._warden.process
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            for stream, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
                selector.register(pipe.fileno(), selectors.EVENT_READ, (stream, Splitter()))
            selector.register(self._warden.report, selectors.EVENT_READ, None)
            while selector.get_map():
                for key, _ in selector.select(_LOOK_S):
                    data = os.read(key.fd, _CHUNK)
                    if key.data is not None:
                        stream, splitter = key.data
                        self._say(stream, splitter.feed(data) if data else splitter.flush())
                    elif data:
                        self._learn(data)
                    if not data:
                        selector.unregister(key.fd)
                self._look_at_the_clock()
        self._warden.forget()
        self._finish()

    def _say(self, stream: str, texts: list[str]) -> None:
        if not texts:
            return
        now = time.time()
        lines = tuple(Line(time_s=now, node=self.node.name, stream=stream, text=text) for text in texts)
        if self._dies_after_lines is not None and self._lines + len(lines) >= self._dies_after_lines:
            lines = lines[: self._dies_after_lines - self._lines]  # what it says later is lost with it
            self.kill("died")
        self._lines += len(lines)
        if self._fault is None and lines:
            try:
                self._hear(lines)
            except Exception as error:  # noqa: BLE001 - the node must be read to its end; wait() raises it
                self._fault = error

    def _learn(self, data: bytes) -> None:
        *whole, self._report = (self._report + data).split(b"\n")
        for event in map(json.loads, whole):
            if event["event"] == "refused":
                self.refusal = event["what"]
            elif event["event"] == "ended":
                self._code, self._out_of_memory = event["code"], event["outOfMemory"]
            if event["event"] != "entered":
                self._begun.set()

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        due = [reason for moment, reason in self._kill_at if now >= moment]
        if due:
            self.kill(due[0])
        if self._give_up_at is not None and now >= self._give_up_at:
            self._warden.process.kill()  # the kernel then ends the keeper, and with it everything

    def _finish(self) -> None:
        code = -signal.SIGKILL if self._code is None else self._code
        reason = self._asked or ("lost" if self._code is None else "exited")
        if self._out_of_memory and code:
            reason = "out of memory"
        elif reason != "stopped" and code != -signal.SIGKILL:
            reason = "exited"  # before it could be ended
        self.end = End(code=code, reason=reason, started_s=self.started_s, ended_s=time.time())
        for name in ("root", "etc"):
            _remove(self.node.folder / "machine" / name)
        self._begun.set()
        self._ended.set()


def _remove(folder: Path) -> None:
    """Remove a folder of files; whatever is wrong with it must not hide how the node ended."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


class Nodes:
    """All nodes that a stand-in runs; leaving the block ends those that are left.

    ``faults`` may name nodes that die; see :func:`cloudtune.rehearsal.faults.node_dies`. ``way`` is what nodes have of
    their own, by default the most that this machine allows.
    """

    def __init__(self, *, faults: Faults | None = None, way: Isolation | None = None) -> None:
        self._faults = faults or Faults()
        self._way = way
        self._lock = threading.Lock()
        self._running: list[RunningNode] = []
        self._closed = False

    def start(self, node: Node, hear: Hear) -> RunningNode:
        """Start a node; ``hear`` is given its lines in order, some at a time.

        Raises UsageError where this machine cannot give a node paths of its own.
        """
        death = self._faults.event("node dies", node.name)
        dies_after = (
            (death.after_lines, death.seconds if death.after_lines is None else None) if death else (None, None)
        )
        way = self._way or isolation()
        with self._lock:
            if self._closed:
                raise Over("this rehearsal has ended")
            self._running = [running for running in self._running if running.end is None]
            running = RunningNode(node, way, hear, dies_after=dies_after)
            self._running.append(running)
        running.begin()
        return running

    def running(self) -> tuple[RunningNode, ...]:
        """Return the nodes that have not ended."""
        with self._lock:
            return tuple(running for running in self._running if running.end is None)

    def close(self) -> None:
        """End all nodes and wait for that; no other can be started."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for one in running:
            one.kill()
        for one in running:
            with contextlib.suppress(Exception):  # what a listener raised is for who waits for the node
                one.wait(2 * KILL_S)

    def __enter__(self) -> Nodes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def wait_for(nodes: Iterable[RunningNode], *, timeout_s: float | None = None) -> list[End | None]:
    """Return how nodes ended, None for those that go on after the time."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    return [node.wait(None if deadline is None else max(0.0, deadline - time.monotonic())) for node in nodes]
