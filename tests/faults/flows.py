"""What the faults of every cloud are tried with: a job of twenty lines, calls that go wrong, and SIGKILL."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cloudtune import jobs, runs
from cloudtune.rehearsal.faults import Fault
from cloudtune.rehearsal.stage import Stage
from cloudtune.runs import Run
from cloudtune.states import LogLine
from cloudtune.store import Store

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "seq 20; echo 21 >&2"
TEXTS = [str(number) for number in range(1, 21)]


def sent(stage: Stage, operation: str) -> int:
    """Return how often an operation has been asked for."""
    return [call.operation for call in stage.record.calls].count(operation)


def from_now_on(
    stage: Stage, service: str, operation: str, fault: Callable[..., Fault], *, calls: int, **details: object
) -> None:
    """Let the next calls of an operation go wrong."""
    before = sent(stage, operation)
    stage.faults.add(fault(service, operation, numbers=tuple(range(before + 1, before + 1 + calls)), **details))


def written(lines: list[LogLine]) -> list[str]:
    """Return what the job has written."""
    return [line.text for line in lines if line.stream == "stdout"]


def watched_and_deleted(run: Run) -> None:
    """Watch a run to its end and delete it: each line is there once, and no record stays."""
    lines = list(run.lines(follow=True))
    assert written(lines) == TEXTS, (run.status, lines)
    assert [line.text for line in lines if line.stream == "stderr"] == ["21"]
    assert run.status.state == "succeeded"
    runs.get(run.id).delete()
    assert Store().runs() == ()


_KILLED = """
import os, signal, sys
from cloudtune import jobs
from cloudtune.backends import load
from cloudtune.cli import main
from cloudtune.store import Store

def counted(owner, name):
    deed = getattr(owner, name)
    def wrapped(*arguments, **options):
        global moment
        moment -= 1
        if moment == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return deed(*arguments, **options)
    setattr(owner, name, wrapped)

client = load(sys.argv[2])
for owner, name in ((jobs.RunJournal, "write"), (client, "send"), (client, "read"), (Store, "settle_submission")):
    counted(owner, name)
for moment in range(1, 100):
    child = os.fork()
    if child == 0:
        sys.argv = ["cloudtune", "run", "-f", sys.argv[1], "-d", "-q"]
        try:
            main()
        except SystemExit as end:
            os._exit(end.code or 0)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print("end", os.waitstatus_to_exitcode(status), flush=True)
    if status == 0:
        break
"""


def killed_anywhere(
    folder: Path,
    infrastructure: str,
    where: Mapping[str, Any],
    *,
    client: str,
    environ: Mapping[str, str],
    least: int,
) -> int:
    """Kill `cloudtune run` before each thing that it writes down, sends or asks for, and go on with all of these runs.

    ``least`` is how many runs must have been cut off. Return how many runs there are in the end, each of them whole.
    """
    runtime = {"kind": "runtime", "type": "pyTorchDistributed", "spec": {"command": COMMAND}}
    place = {"kind": "infrastructure", "type": infrastructure, "spec": dict(where)}
    spec = {"kind": "job", "spec": {"name": "killed", "infrastructure": place, "runtime": runtime}}
    (folder / "job.yaml").write_text(json.dumps(spec))
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(folder / "job.yaml"), client],
        env={**environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    codes = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("end ")]
    records = Store().runs()
    pending = [record.id for record in records if record.state == "pending"]
    assert len(pending) >= least, done.stderr
    # what is killed while it only asks whether the job may run has recorded nothing
    assert len(pending) == len(records) - 1 <= codes.count(-signal.SIGKILL)
    for run_id in pending:
        run = jobs.resume(run_id)
        assert written(list(run.lines(follow=True))) == TEXTS
        assert run.state == "succeeded"
    return len(records)
