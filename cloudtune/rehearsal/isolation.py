"""What this machine allows a node to have of its own, found by trying it."""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import attrs

from cloudtune.errors import UsageError
from cloudtune.rehearsal.wardens import Order, Warden, Way

#: In order of preference. Without a user namespace it takes root; without one of processes, ending all is best effort.
_WAYS: tuple[Way, ...] = (
    {"user": True, "processes": True},
    {"user": False, "processes": True},
    {"user": True, "processes": False},
    {"user": False, "processes": False},
)
#: A setting of the kernel that forbids it, the value that does, and what to say.
_SETTINGS = (
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=10000"),
)
_CONTAINERS = ("/.dockerenv", "/run/.containerenv")


@attrs.frozen(kw_only=True)
class Isolation:
    """What nodes have of their own here besides paths and names.

    ``processes``: ending a node ends every process of it, whatever it did to hide. ``protected``: a node cannot change
    this machine's own files (needs Linux 5.12). ``user``: nodes run in a user namespace, as root of nothing else.
    """

    user: bool
    processes: bool
    protected: bool

    @property
    def way(self) -> Way:
        """The isolation in the words of a warden's order."""
        return {"user": self.user, "processes": self.processes}


def try_way(way: Way) -> bool | str:
    """Start an empty node; return whether the machine's files are protected, or what went wrong."""
    with tempfile.TemporaryDirectory(prefix="cloudtune-rehearsal-") as folder:
        place = Path(folder)
        (place / "root").mkdir()
        order: Order = {
            "name": "probe",
            "way": way,
            "root": str(place / "root"),
            "protect": True,
            "binds": [{"target": "/cloudtune-probe/place", "source": folder, "read_only": False, "size_bytes": None}],
            "visible": [],
            "hidden": [],
            "command": ["/bin/true"],
            "environment": {},
            "workingDir": "/",
            "memoryLimitBytes": None,
            "memoryEndsAll": False,
        }
        warden = Warden(order)
        try:
            with open(warden.report, encoding="utf-8", closefd=False) as report:
                events = [json.loads(line) for line in report]
        finally:
            warden.forget()
    entered = [event for event in events if event["event"] == "entered"]
    refused = [event["what"] for event in events if event["event"] == "refused"]
    if refused or not entered:
        return str(refused[0]) if refused else "the node's first process ended without a word"
    return bool(entered[0]["protected"])


def find_isolation(attempt: Callable[[Way], bool | str] = try_way) -> Isolation:
    """Return the best isolation that works; UsageError, saying what to do, where none does."""
    if sys.platform != "linux":
        hint = "run it on Linux, or in a Linux virtual machine on this one"
        raise UsageError("a rehearsal runs nodes in namespaces of the Linux kernel", hint=hint)
    first: str | None = None
    for way in _WAYS:
        answer = attempt(way)
        if isinstance(answer, bool):
            return Isolation(**way, protected=answer)
        first = first or answer
    message = f"this machine does not let a rehearsed node have paths of its own: {first}"
    raise UsageError(message, hint=advice())


@functools.cache
def isolation() -> Isolation:
    """Return what this machine allows; tried once a process."""
    return find_isolation()


def advice(*, kernel: Path = Path("/proc/sys")) -> str:
    """Return what an administrator can do, by the settings of the kernel."""
    for name, value, advice in _SETTINGS:
        try:
            if (kernel / name).read_text().strip() == value:
                return f"user namespaces are switched off; an administrator can allow them: {advice}"
        except OSError:
            continue
    if any(Path(mark).exists() for mark in _CONTAINERS):
        return "start this container with: --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    return "allow user namespaces (try: unshare -Urmpf --mount-proc true), or run it as root"
