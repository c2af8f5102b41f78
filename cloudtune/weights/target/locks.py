"""The lock of a workplace: one process writes there, on whatever machine it runs.

The kernel gives a lock back when its process ends. Where a file system knows no locks, as Lustre does unless it is
mounted with them, a file says who writes there: one process alone can make it. It stays when that process is killed,
and only people can tell whether a process of another machine is alive, so it is never taken from whoever made it.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from cloudtune.errors import UsageError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

#: Whether this machine knows locks at all.
KNOWN = fcntl is not None
LOCK, OWNER = "lock", "owner"
#: Who only looks after a lock has it for a moment.
_TRIES, _PAUSE_S = 5, 0.05
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Lock:
    """The lock of a workplace, a context that gives it back; FileNotFoundError if there is no workplace."""

    def __init__(self, place: Path) -> None:
        self.path, self._owner_path = place / LOCK, place / OWNER
        self._file = self.path.open("a")
        self._token: str | None = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None and self._owner().get("token") == self._token:
            self._owner_path.unlink(missing_ok=True)
        self._file.close()

    def take(self, shown: object) -> None:
        """Take the lock for a target; raises UsageError if somebody else has it."""
        if self._flock(shown):
            owner = self._owner() if self._owner_path.exists() else None
            if owner is not None:  # of a machine that sees this place without locks
                raise self._refusal(shown, owner)
            return
        for left in reversed(range(_TRIES)):
            try:
                self._own()
            except FileExistsError:
                if not left:
                    raise self._refusal(shown, self._owner()) from None
                time.sleep(_PAUSE_S)
            else:
                return

    def is_there(self) -> bool:
        """Return whether the lock is the file of its name still, not one that was removed."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def _flock(self, shown: object) -> bool:
        """Take the lock of the kernel; False if there is none for this file system."""
        for _ in range(_TRIES):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                time.sleep(_PAUSE_S)
            except OSError:
                return False
            else:
                return True
        raise UsageError(f"another process is writing {shown}", hint="wait for it, or name another folder")

    def _own(self) -> None:
        token = secrets.token_hex(16)
        owner = {"host": os.uname().nodename, "pid": os.getpid(), "boot": boot(), "token": token}
        with self._owner_path.open("x") as file:
            try:
                file.write(json.dumps(owner))
                file.flush()
            except BaseException:
                self._owner_path.unlink(missing_ok=True)
                raise
        self._token = token

    def _owner(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            value = json.loads(self._owner_path.read_text())
            if isinstance(value, dict):
                return value
        return {}

    def _refusal(self, shown: object, owner: dict[str, Any]) -> UsageError:
        who = f"process {owner['pid']} on {owner['host']}" if {"pid", "host"} <= owner.keys() else "whoever it is"
        hint = f"wait for {who}, or name another folder; if that process is dead, remove {self._owner_path}"
        return UsageError(f"another process is writing {shown}", hint=hint)


def boot() -> str:
    """Return what differs after each start of the machine; empty where that cannot be known."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
