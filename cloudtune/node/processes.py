"""The processes of a node: who belongs to it, and ending all of them.

A process belongs to a run if its variables say so (``CLOUDTUNE_RUN_ID``, ``CLOUDTUNE_NODE_RANK``), or if it descends
from one that does, or from this process. So one that left its session, forked twice or was adopted is found too;
on Linux this process adopts the orphans itself (it is a subreaper).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_PR_SET_CHILD_SUBREAPER = 36
#: Seconds that SIGKILL may take before a process counts as one that the kernel cannot end.
KILL_S = 5.0
#: Seconds between two looks at the processes while they end.
LOOK_S = 0.05

_lock = threading.Lock()
_started: set[int] = set()  # children that a Popen of ours waits for
_codes: dict[int, int] = {}  # how adopted processes ended
_owns_tree = False  # all descendants of this process, and the orphans among them, belong to its run


class Process(NamedTuple):
    """One line of the process table; ``started`` tells two owners of one number apart."""

    pid: int
    parent: int
    zombie: bool
    started: str = ""


def become_subreaper() -> bool:
    """Claim all descendants of this process for its run; where the system can do that (Linux) it adopts the orphans."""
    global _owns_tree  # noqa: PLW0603 - a property of the process
    _owns_tree = True
    if sys.platform != "linux":
        return False
    try:
        return int(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0
    except (OSError, AttributeError):
        return False


def start(command: Collection[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that :func:`reap` leaves to its ``Popen``; the options are those of ``Popen``."""
    with _lock:
        process = subprocess.Popen(list(command), **options)
        _started.add(process.pid)
    return process


def forget(process: subprocess.Popen[bytes]) -> None:
    """Forget a process that has ended and been waited for."""
    with _lock:
        _started.discard(process.pid)


def reap() -> None:
    """Take in the adopted processes that have ended."""
    while _owns_tree and sys.platform == "linux":
        with _lock:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None or found.si_pid in _started:
                    return
                pid, status = os.waitpid(found.si_pid, os.WNOHANG)
            except ChildProcessError:
                return
            _codes[pid] = returncode(status)


def returncode(status: int) -> int:
    """Return the exit code of a wait status, negative for a signal."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def table() -> dict[int, Process]:
    """Return all processes of the system that this one can see."""
    return _linux_table() if sys.platform == "linux" else _ps_table()


def _linux_table() -> dict[int, Process]:
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - names, not paths: this runs over every process
        if name.isdigit():
            fields = _stat(int(name))
            if fields:
                found[int(name)] = Process(int(name), int(fields[1]), fields[0] in "ZX", fields[19])
    return found


def _ps_table() -> dict[int, Process]:
    output = subprocess.run(["ps", "-axo", "pid=,ppid=,state="], capture_output=True, text=True, check=False).stdout
    found = {}
    for line in output.splitlines():
        pid, parent, state = line.split(None, 2)
        found[int(pid)] = Process(int(pid), int(parent), state.startswith("Z"))
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (the state) on; [] for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return []
    return text[text.rindex(b")") + 2 :].decode("ascii", "replace").split()


def ended_returncode(pid: int) -> int | None:
    """Return the exit code of a process that has ended, if it can be known.

    It can as long as the parent has not taken the process in, and for the processes that this one adopted.
    """
    if pid in _codes:
        return _codes[pid]
    fields = _stat(pid) if sys.platform == "linux" else []
    if len(fields) > 49 and fields[0] in "ZX":
        return returncode(int(fields[49]))
    return None


def marked(run_id: str, node_rank: int | None = None) -> set[int]:
    """Return the processes whose variables name the run, and the node if one is given."""
    wanted = {f"CLOUDTUNE_RUN_ID={run_id}"}
    if node_rank is not None:
        wanted.add(f"CLOUDTUNE_NODE_RANK={node_rank}")
    if sys.platform == "linux":
        return _linux_marked({text.encode() for text in wanted})
    # macOS: `ps -E` shows the variables of one's own processes behind the command
    output = subprocess.run(["ps", "-axEwwo", "pid=,command="], capture_output=True, text=True, check=False).stdout
    rows = [line.split() for line in output.splitlines()]
    return {int(row[0]) for row in rows if row and wanted.issubset(row)}


def _linux_marked(wanted: set[bytes]) -> set[int]:
    found = set()
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            try:
                variables = Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue
            if wanted.issubset(variables.split(b"\0")):
                found.add(int(name))
    return found


def _owners(pids: Collection[int]) -> dict[int, str]:
    """Return the run that each process names in its variables, for those that name one."""
    if sys.platform == "linux":
        return {pid: name for pid in pids for name in [_linux_owner(pid)] if name is not None}
    output = subprocess.run(["ps", "-axEwwo", "pid=,command="], capture_output=True, text=True, check=False).stdout
    rows = [line.split() for line in output.splitlines()]
    prefix = "CLOUDTUNE_RUN_ID="
    named = {int(row[0]): [word[len(prefix) :] for word in row if word.startswith(prefix)] for row in rows if row}
    return {pid: names[0] for pid, names in named.items() if pid in pids and names}


def _linux_owner(pid: int) -> str | None:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    found = [item[17:] for item in variables if item.startswith(b"CLOUDTUNE_RUN_ID=")]
    return found[0].decode(errors="replace") if found else None


def descendants(roots: Collection[int], processes: Mapping[int, Process]) -> set[int]:
    """Return all processes below the roots, without the roots themselves."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


class Ending:
    """Ends all processes of a run or node: SIGTERM, then SIGKILL after the grace. Call :meth:`step` until it is True.

    ``forwarded`` returns processes whose parent passes signals on, such as torchrun's ranks: SIGTERM reaches them once.
    ``spared`` are left alone, with what they have started.
    """

    def __init__(
        self,
        run_id: str,
        *,
        grace_s: float,
        node_rank: int | None = None,
        spared: Callable[[], Collection[int]] = tuple,
        forwarded: Callable[[], Collection[int]] = tuple,
    ) -> None:
        self.run_id = run_id
        self.node_rank = node_rank
        self.kill_at = time.monotonic() + grace_s
        self.give_up_at = self.kill_at + KILL_S
        self.left: set[int] = set()
        self._spared = spared
        self._forwarded = forwarded
        self._told: set[tuple[int, str]] = set()
        self._marked: set[int] = set()
        self._marked_at = float("-inf")
        self._strangers: set[int] = set()

    def step(self) -> bool:
        """Look once, and signal who has not been; True when nobody is left, or only what cannot be ended."""
        reap()
        now = time.monotonic()
        processes = table()
        killing = now >= self.kill_at
        self.left = self._members(processes, thorough=killing or now - self._marked_at > 1)
        if not self.left or now >= self.give_up_at:
            return True
        forwarded = set() if killing else set(self._forwarded())
        forwarded |= descendants(forwarded, processes)
        for pid in self.left - forwarded:
            who = (pid, processes[pid].started)
            if killing or who not in self._told:
                self._told.add(who)
                send(pid, signal.SIGKILL if killing else signal.SIGTERM)
        return False

    def _members(self, processes: Mapping[int, Process], *, thorough: bool) -> set[int]:
        if thorough:
            self._marked = marked(self.run_id, self.node_rank)
            self._marked_at = time.monotonic()
        me = os.getpid()
        known = self._marked | {pid for pid, started in self._told if _is(processes.get(pid), started)}
        found = known | descendants(known - {me}, processes)
        if _owns_tree:
            found |= descendants([me], processes)
        if thorough:
            # a model server that the job deployed names a run of its own: it is to outlive the job
            owners = _owners(found - self._marked)
            self._strangers = {pid for pid, owner in owners.items() if owner != self.run_id}
        found -= self._strangers | descendants(self._strangers, processes)
        spared = self._spared()
        found -= {me, *_ancestors(me, processes), *spared, *descendants(spared, processes)}
        return {pid for pid in found if pid in processes and not processes[pid].zombie}


def _is(process: Process | None, started: str) -> bool:
    return process is not None and process.started == started


def _ancestors(pid: int, processes: Mapping[int, Process]) -> set[int]:
    found: set[int] = set()
    while pid in processes and processes[pid].parent not in found:
        pid = processes[pid].parent
        found.add(pid)
    return found


def end_all(run_id: str, *, grace_s: float, node_rank: int | None = None) -> set[int]:
    """End all processes of a run, or of one node of it, and wait for that; return those that could not be ended."""
    ending = Ending(run_id, grace_s=grace_s, node_rank=node_rank)
    while not ending.step():
        time.sleep(LOOK_S if time.monotonic() < ending.kill_at else LOOK_S / 5)
    return ending.left


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass
