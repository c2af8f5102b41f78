"""Keeps the nodes of a local run: starts one agent a node, ends them together, writes the result of the run.

It runs detached from the command that started it and holds a kernel lock on the run's folder while it lives: that lock,
not a process id, says that the run is alive. Each agent holds the read end of a pipe whose other end is here, so the
agents end with their supervisor, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, Callable, Dict, List, Optional

from cloudtune.node import processes
from cloudtune.node.failure import first_failure
from cloudtune.node.report import release, reserve, write_json

#: Seconds for the other nodes to end by themselves after one has failed: victims usually notice at once.
SETTLE_S = 2.0
#: Seconds that an agent has behind its command's grace to keep outputs and log and to report, before it is ended.
KEEP_S = 5.0
#: Where ports of runs are taken from, and how many of them are tried.
_PORTS = range(10_000, 20_000)
_TRIES = 100


class Supervisor:
    """One local run from its first process to its result."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run: Dict[str, Any] = json.loads((folder / "run.json").read_text())
        self.order: Dict[str, Any] = json.loads((folder / "order.json").read_text())
        self.nodes: List["subprocess.Popen[bytes]"] = []
        self.events: List[Dict[str, Any]] = []
        self.started = time.time()
        self.cancelled = False  # asked for
        self.stopped = False  # and carried out while nodes were still running
        self.wake_read, self.wake_write = os.pipe()
        grace_s = self.order.get("graceInSeconds")  # an order that is wrong is the agents' to complain about
        self.patience_s = (grace_s if isinstance(grace_s, (int, float)) else 0) + KEEP_S

    def heed(self) -> None:
        """Take a signal for a cancel from now on; it comes to whom the state of the run names."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._cancel)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the wake-up pipe hears of it
        os.set_blocking(self.wake_write, False)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)

    def keep(self) -> str:
        """Run the job to its end and return the final state."""
        processes.become_subreaper()
        self._start()
        self.tell("running")
        self._watch()
        processes.end_all(self.order["runId"], grace_s=0)
        return self._finish()

    def _cancel(self, *_: Any) -> None:
        self.cancelled = True

    def _start(self) -> None:
        count, cores = int(self.run["nodes"]), os.cpu_count() or 1
        main = address(0)
        ports = free_ports(2)
        life_read, self.life_write = os.pipe()
        for rank in range(count):
            place = self.folder / f"node-{rank}"
            place.mkdir(exist_ok=True)
            environment = {
                # all nodes share this machine's cores: with more threads than cores they wait for each other
                "OMP_NUM_THREADS": str(max(1, cores // (count * int(self.order["processesPerNode"])))),
                **os.environ,
                "CLOUDTUNE_PLACE": "local",
                "CLOUDTUNE_RUN_ID": self.order["runId"],
                "CLOUDTUNE_NODE_RANK": str(rank),
                "CLOUDTUNE_NUM_NODES": str(count),
                "CLOUDTUNE_MAIN_ADDR": main,
                "CLOUDTUNE_MAIN_PORT": str(ports[0]),
                "CLOUDTUNE_ROLL_PORT": str(ports[1]),
                "CLOUDTUNE_LOCAL_ADDR": address(rank),
                "CLOUDTUNE_SUPERVISOR_FD": str(life_read),
            }
            command = [self.run["python"], "-I", "-S", str(self.folder / "agent.pyz"), "run"]
            command += ["--order", str(self.folder / "order.json"), "--directory", str(place)]
            with (place / "log").open("ab") as log:
                self.nodes.append(
                    subprocess.Popen(
                        command,
                        cwd=place,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                        pass_fds=(life_read,),
                    )
                )
        os.close(life_read)

    def _watch(self) -> None:
        """Wait until every node has ended; end the others when one fails or the run is cancelled."""
        asked: Optional[float] = None
        failed: Optional[float] = None
        while True:
            codes = [node.poll() for node in self.nodes]
            if all(code is not None for code in codes):
                return
            now = time.monotonic()
            if failed is None and any(code not in (None, 0) for code in codes):
                failed = now
                self._event("a node failed; the others are ended")
            if not self.cancelled and (self.folder / "cancel").exists():
                self.cancelled = True
            if asked is None and (self.cancelled or (failed is not None and now - failed >= SETTLE_S)):
                asked = now
                self.stopped = self.cancelled
                self.tell("stopping" if self.cancelled else "running")
                self._signal(signal.SIGTERM)
            if asked is not None and now - asked >= self.patience_s:
                processes.end_all(self.order["runId"], grace_s=0)
                self._signal(signal.SIGKILL)
            ready, _, _ = select.select([self.wake_read], [], [], 0.2)
            if ready:
                os.read(self.wake_read, 4096)

    def _signal(self, number: int) -> None:
        for node in self.nodes:
            if node.poll() is None:
                node.send_signal(number)

    def _finish(self) -> str:
        release(self.folder)
        codes = [node.returncode for node in self.nodes]
        reports = [self._report(rank, code) for rank, code in enumerate(codes)]
        failure: Optional[Dict[str, Any]] = None
        reason: Optional[str] = None
        state = "succeeded"
        if self.stopped:
            state, reason = "cancelled", "cancelled"
        elif any(codes):
            state, reason = "failed", "a node failed"
            failure = first_failure(reports)
            reason = _why(failure, reports) or reason
        self._event(state)
        result = {"state": state, "reason": reason, "failure": failure, "events": self.events}
        write_json(self.folder / "result.json", {**result, "startedAt": self.started, "endedAt": time.time()})
        return state

    def _report(self, rank: int, code: Optional[int]) -> Dict[str, Any]:
        try:
            report: Dict[str, Any] = json.loads((self.folder / f"node-{rank}" / "report.json").read_text())
        except (OSError, ValueError):
            report = {}
        if report.get("exitCode") is None and code:
            # the agent itself was killed: it left no report
            name = signal.Signals(-code).name if code < 0 else None
            failure: Dict[str, Any] = {
                "replica": rank,
                "rank": None,
                "exitCode": code,
                "signal": name,
                "time": time.time(),
                "lines": [],
            }
            report = {"ranks": [], "reason": f"node {rank} ended without a report", **report, "node": rank}
            report.update(exitCode=code, signal=name, endedAt=time.time())
            report["failure"] = report.get("failure") or failure
        return report or {"node": rank, "exitCode": 0, "ranks": [], "failure": None}

    def _event(self, text: str) -> None:
        self.events.append({"time": time.time(), "text": text})

    def tell(self, state: str) -> None:
        """Write down the state that others see; once it is there, a full disk is no reason to end the run."""
        self._event(state)
        pids = [node.pid for node in self.nodes]
        data = {"state": state, "pid": os.getpid(), "nodes": pids, "startedAt": self.started, "events": self.events}
        try:
            write_json(self.folder / "state.json", data)
        except OSError:
            if state == "starting":
                raise


def _why(failure: Optional[Dict[str, Any]], reports: List[Dict[str, Any]]) -> Optional[str]:
    """Return in a sentence what failed first: the process that did, or what its node says where it was no process."""
    if failure is not None and failure.get("rank") is not None:
        code, name = failure.get("exitCode"), failure.get("signal")
        how = f"was ended by {name}" if name else f"ended with exit code {code}"
        hint = " (often: out of memory)" if failure.get("signal") == "SIGKILL" else ""
        return f"replica {failure['replica']}, rank {failure['rank']}, {how}{hint}"
    first = failure["replica"] if failure is not None else None
    told = [report for report in reports if report.get("reason") and report.get("exitCode")]
    told.sort(key=lambda report: report.get("node") != first)
    return str(told[0]["reason"]) if told else None


def address(rank: int) -> str:
    """Return the loopback address of a node: one of its own on Linux, 127.0.0.1 where only that is configured."""
    if not sys.platform.startswith("linux"):
        return "127.0.0.1"
    return f"127.0.{rank // 250}.{rank % 250 + 2}"


def free_ports(count: int) -> List[int]:
    """Return ports that are free at this moment, on every address: torch's store listens on all of them.

    They are below those that the kernel gives to whoever asks for any: minutes may pass until a job takes its own.
    """
    sockets: List[socket.socket] = []
    try:
        for port in [*random.SystemRandom().sample(_PORTS, _TRIES), *[0] * count]:
            one = socket.socket()
            try:
                one.bind(("", port))
            except OSError:
                one.close()
                continue
            sockets.append(one)
            if len(sockets) == count:
                break
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def detach() -> Callable[[], None]:
    """Go on in a child that belongs to nobody; the parent ends once the child says that it is ready, or has ended.

    Returns what the child calls to say so.
    """
    heard, told = os.pipe()
    child = os.fork()
    if child:
        os.close(told)
        if os.read(heard, 1):
            os._exit(0)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.close(heard)
    os.setsid()

    def ready() -> None:
        try:
            os.write(told, b"1")
        except BrokenPipeError:
            pass  # who waited for it was ended meanwhile; what was begun goes on
        os.close(told)

    return ready


def take(lock: IO[str]) -> bool:
    """Take the lock of a run's folder; False if a living process has it.

    Whoever looks whether a run is alive holds a shared lock for a moment, so one refusal means nothing yet.
    """
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def supervise(folder: Path) -> int:
    """Keep the run in the folder, unless it is kept or over already; return an exit code."""
    ready = detach()
    with (folder / "lock").open("a") as lock:
        if not take(lock):
            return 0  # another supervisor keeps it
        if (folder / "result.json").exists() or (folder / "state.json").exists():
            return 0
        try:
            supervisor = Supervisor(folder)
            supervisor.heed()
            reserve(folder)
            supervisor.tell("starting")
            ready()
            state = supervisor.keep()
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not end without a result
            processes.end_all(folder.name, grace_s=0)
            release(folder)
            reason = f"the supervisor failed: {type(error).__name__}: {error}"
            write_json(folder / "result.json", {"state": "failed", "reason": reason, "failure": None, "events": []})
            return 1
    return 0 if state == "succeeded" else 1
