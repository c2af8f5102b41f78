"""The inside of a node: a process that makes the node's namespaces and room, runs its command and ends all of it.

It is started by :mod:`cloudtune.rehearsal.wardens` as a Python of its own, and consists of two processes. The warden
makes the namespaces and waits. Its child, the keeper, is the first process in them: it mounts the room, starts the
command and takes in orphans; when it ends, the kernel ends whatever is left in its process namespace. It ends the node
when the command ends, when it is told to, and when the runner or the warden dies, however they die.

The order comes by standard input: its length in eight hexadecimal digits, JSON, then single bytes: ``T`` asks the
command to end; the end of the stream means that all must end now. What happens is reported as lines of JSON.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from cloudtune.node import processes
from cloudtune.rehearsal import syscalls
from cloudtune.rehearsal.rooms import Room

#: Seconds between two looks at the memory of a node with a limit.
_MEMORY_LOOK_S = 0.1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_NULL = "/dev/null"
#: What a keeper leaves to its command.
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Report:
    """The way to the runner: one line of JSON an event."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __call__(self, event: str, **facts: Any) -> None:
        """Say what happened; a runner that is gone hears nothing."""
        try:
            os.write(self._fd, json.dumps({"event": event, **facts}).encode() + b"\n")
        except OSError:
            pass


class Keeper:
    """The first process of a node: keeps its command from its start to the end of everything."""

    def __init__(self, order: Mapping[str, Any], report: Report, watched: list[int]) -> None:
        self.order = order
        self.report = report
        self.watched = watched  # descriptors of the runner's and the warden's lives
        self.alone = bool(order["way"]["processes"])  # in a process namespace of its own
        self.command = 0
        self.code: int | None = None
        self.out_of_memory = False
        self._wake = -1

    def enter(self) -> None:
        """Make this process the first of the node."""
        syscalls.die_with_parent(signal.SIGKILL)
        os.umask(0o022)
        if not self.alone:
            processes.become_subreaper()
        try:
            socket.sethostname(self.order["name"])
        except OSError as error:
            raise OSError(error.errno, f"sethostname: {error.strerror}") from error
        room = Room(self.order["root"], protect=self.order["protect"])
        places = {"visible": self.order["visible"], "hidden": self.order["hidden"]}
        room.build(self.order["binds"], **places, fresh_proc=self.alone)
        room.enter()
        self.report("entered", protected=room.protected)

    def start(self) -> None:
        """Start the command, in a session of its own, with exactly the variables that it was given."""
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        # what is sent to the command before it minds signals waits for that: ignored, it would be lost
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        self.command = os.fork()
        if not self.command:
            self._become_command(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _point_at_null(1, 2)  # the ends that are left are the command's
        self.report("started")

    def _become_command(self, mask: Iterable[int]) -> NoReturn:
        command, environment, folder = self.order["command"], self.order["environment"], self.order["workingDir"]
        what = folder
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGPIPE, *_ENDING):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if not self.alone:
                syscalls.die_with_parent(signal.SIGKILL)
            os.setsid()
            os.chdir(folder)
            what = command[0]
            os.execvpe(command[0], command, environment)  # noqa: S606 - no shell is the point
        except OSError as error:
            os.write(2, f"{what}: {error.strerror} (rehearsed node {self.order['name']})\n".encode())
            os._exit(127 if isinstance(error, FileNotFoundError) else 126)

    def keep(self) -> None:
        """Wait until the command ends or all must end."""
        poll = select.poll()
        for fd in (0, self._wake, *self.watched):
            poll.register(fd, select.POLLIN)
        limit = self.order["memoryLimitBytes"]
        while self.code is None:
            ready = {fd for fd, _ in poll.poll(_MEMORY_LOOK_S * 1000 if limit else None)}
            if ready.intersection(self.watched):
                return
            if 0 in ready and not self._obey(os.read(0, 64)):
                return
            if self._wake in ready:
                os.read(self._wake, 4096)
                self._take_in()
            if limit:
                self._bound_memory(limit)

    def _obey(self, words: bytes) -> bool:
        if b"T" in words and self.code is None:
            processes.send(self.command, signal.SIGTERM)
        return bool(words)

    def _take_in(self) -> bool:
        """Take in every child that has ended; False when there is no child left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self.command:
                self.code = processes.returncode(status)

    def _members(self) -> set[int]:
        table = processes.table()
        if self.alone:
            return set(table) - {os.getpid()}
        return {pid for pid in processes.descendants([os.getpid()], table) if not table[pid].zombie}

    def _bound_memory(self, limit: int) -> None:
        """Kill the largest process when all together use more memory than the node has, as the kernel does there.

        Where the node is a container that Kubernetes has made, all of it ends.
        """
        used = {pid: _resident_bytes(pid) for pid in self._members()}
        if sum(used.values()) > limit:
            self.out_of_memory = True
            whom = set(used) if self.order["memoryEndsAll"] else {max(used, key=lambda pid: used[pid])}
            for pid in whom:
                processes.send(pid, signal.SIGKILL)

    def end(self) -> None:
        """End all that is left of the node, and report how the command ended."""
        while self._take_in():
            if self.alone:
                try:
                    os.kill(-1, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            else:
                for pid in self._members():
                    processes.send(pid, signal.SIGKILL)
            select.select([self._wake], [], [], 0.05)
        self.report("ended", code=self.code, outOfMemory=self.out_of_memory)


def _resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - many times a second
            words = file.read().split()
    except OSError:
        return 0
    return (int(words[1]) - int(words[2])) * _PAGE_BYTES if len(words) > 2 else 0  # what is shared counts for nobody


def _point_at_null(*fds: int) -> None:
    null = os.open(_NULL, os.O_RDWR)
    for fd in fds:
        os.dup2(null, fd)
    os.close(null)


def _read_order() -> dict[str, Any]:
    """Read the order and no byte more: what follows are commands."""
    order: dict[str, Any] = json.loads(_read(int(_read(8), 16)))
    return order


def _read(count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece:
            raise OSError("the runner is gone")
        data += piece
    return data


def _life(pid: int) -> list[int]:
    """Return a descriptor that can be read once a process has ended, where the kernel (5.3) has such."""
    try:
        return [os.pidfd_open(pid)]
    except (AttributeError, OSError):
        return []


def _unshare(way: Mapping[str, bool]) -> None:
    user, group = os.getuid(), os.getgid()
    flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC
    flags |= syscalls.CLONE_NEWUSER if way["user"] else 0
    flags |= syscalls.CLONE_NEWPID if way["processes"] else 0
    syscalls.unshare(flags)
    if way["user"]:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123
                file.write(text)


def main(report_fd: int) -> None:
    """Be the warden of one node, and in the child its keeper."""
    os.set_inheritable(report_fd, False)
    report = Report(report_fd)
    try:
        watched = [*_life(os.getppid()), *_life(os.getpid())]
        order = _read_order()
        if not order["way"]["processes"]:
            processes.become_subreaper()  # of what a killed keeper leaves
        _unshare(order["way"])
        child = os.fork()
    except (OSError, ValueError) as error:
        report("refused", what=str(error))
        sys.exit(1)
    if child:
        _wait_for(child, alone=order["way"]["processes"])
        return
    try:
        keeper = Keeper(order, report, watched)
        keeper.enter()
        keeper.start()
        keeper.keep()
        keeper.end()
    except Exception as error:  # noqa: BLE001 - nobody reads a traceback here
        report("refused", what=str(error) if isinstance(error, OSError) else repr(error))
        os._exit(1)
    os._exit(0)


def _wait_for(child: int, *, alone: bool) -> None:
    _point_at_null(0, 1, 2)
    os.waitpid(child, 0)
    while not alone:
        table = processes.table()
        left = {pid for pid in processes.descendants([os.getpid()], table) if not table[pid].zombie}
        if not left:
            return
        for pid in left:
            processes.send(pid, signal.SIGKILL)
        time.sleep(processes.LOOK_S)
