"""JSON files that are whole or absent, and the report that every node leaves behind."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

#: The agent's own failure; codes of the command itself are passed on.
AGENT_FAILED = 125
TIME_LIMIT = 124
#: Bytes that are kept free for last words, and under which name: a job may fill the disk.
_RESERVE_BYTES = 64 * 1024
_RESERVE = ".reserve"


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file so that a reader finds the old content or the new one, never half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def reserve(folder: Path) -> None:
    """Keep room in a folder for what is written at the end, however full the disk is by then."""
    try:
        (folder / _RESERVE).write_bytes(os.urandom(_RESERVE_BYTES))
    except OSError:
        pass  # it is full already: what is to be written will say so


def release(folder: Path) -> None:
    """Give back the room that was kept."""
    (folder / _RESERVE).unlink(missing_ok=True)


def signal_name(number: int) -> str:
    """Return the name of a signal, e.g. ``SIGKILL``; a number without a name as ``SIG64``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def ending(returncode: int) -> tuple[int, str | None]:
    """Return exit code and signal of a ``Popen.returncode``: -9 is ``(137, "SIGKILL")``."""
    if returncode < 0:
        return 128 - returncode, signal_name(-returncode)
    return returncode, None


def new_report(node: int | None) -> dict[str, Any]:
    """Return the report of a node that has just started."""
    return {
        "node": node,
        "exitCode": None,
        "signal": None,
        "startedAt": time.time(),
        "endedAt": None,
        "reason": None,
        "stopped": None,
        "stoppedAt": None,
        "clockOffset": 0.0,
        "code": None,
        "ranks": [],
        "failure": None,
    }
