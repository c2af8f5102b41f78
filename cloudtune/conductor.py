"""The process that drives a pipeline, ``python -m cloudtune.conductor RUN``; it outlives the one that started it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudtune.errors import CloudtuneError
from cloudtune.home import runs_folder
from cloudtune.node.report import write_json
from cloudtune.node.supervisor import detach, take
from cloudtune.pipelines import conduct
from cloudtune.states import Status
from cloudtune.store import Store


def main(run_id: str) -> int:
    """Conduct the pipeline unless another process does; the lock on its folder says that it is alive."""
    folder = runs_folder() / run_id
    ready = detach()
    with (folder / "lock").open("a") as lock:
        if not take(lock) or (folder / "result.json").exists():
            return 0  # another process conducts it, or it is over
        return _conduct(run_id, folder, ready)


def _conduct(run_id: str, folder: Path, ready: Callable[[], None]) -> int:
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda signum, _frame: asked.append(signum))
    started = time.time()
    write_json(folder / "state.json", {"state": "running", "pid": os.getpid(), "startedAt": started})
    ready()
    try:
        status = conduct(run_id, Store(), lambda: bool(asked) or (folder / "cancel").exists())
    except CloudtuneError as error:
        status = Status(state="failed", reason=str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the pipeline must not end without a result
        status = Status(state="failed", reason=f"{type(error).__name__}: {error}")
    failure = status.failure.to_dict() if status.failure else None
    result: dict[str, Any] = {"state": status.state, "reason": status.reason, "failure": failure, "events": []}
    write_json(folder / "result.json", {**result, "startedAt": started, "endedAt": time.time()})
    return 0 if status.state == "succeeded" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
