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


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file so that a reader finds the old content or the new one, never half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


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
