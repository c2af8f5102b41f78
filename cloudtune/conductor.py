"""The process that drives a pipeline: ``python -m cloudtune.conductor RUN``; it outlives the command that started it."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path

from cloudtune.errors import CloudtuneError
from cloudtune.home import runs_folder
from cloudtune.node.report import write_json
from cloudtune.pipelines import conduct
from cloudtune.store import Store


def main(run_id: str) -> int:
    """Conduct the pipeline unless another process does; the lock on its folder says that it is alive."""
    folder = runs_folder() / run_id
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return 0
        if (folder / "result.json").exists():
            return 0
        return _conduct(run_id, folder)


def _conduct(run_id: str, folder: Path) -> int:
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda signum, _frame: asked.append(signum))
    started = time.time()
    write_json(folder / "state.json", {"state": "running", "pid": os.getpid(), "startedAt": started})
    try:
        status = conduct(run_id, Store(), lambda: bool(asked) or (folder / "cancel").exists())
        state, reason, failure = status.state, status.reason, status.failure
    except CloudtuneError as error:
        state, reason, failure = "failed", str(error), None
    except Exception as error:  # noqa: BLE001 - whatever it is, the pipeline must not end without a result
        state, reason, failure = "failed", f"{type(error).__name__}: {error}", None
    result = {"state": state, "reason": reason, "failure": failure.to_dict() if failure else None, "events": []}
    write_json(folder / "result.json", {**result, "startedAt": started, "endedAt": time.time()})
    return 0 if state == "succeeded" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
