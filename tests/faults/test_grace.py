"""How a run on this machine is ended: its processes get time to save, and what they leave is kept all the same."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from cloudtune import jobs
from cloudtune.home import runs_folder
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from tests.processes import eventually, running

#: Seconds within which nothing of a cancelled run is left: 15, and as many again for a machine that is busy.
CANCEL_S = 30.0
TRAINER = """
import os, signal, sys, time
stubborn = os.environ["CLOUDTUNE_NODE_RANK"] == "0"
kept = os.environ["CLOUDTUNE_OUTPUT_DIR"]

def save(*_):
    print("saving", flush=True)
    if not stubborn:
        time.sleep(3)
        open(kept + "/saved.txt", "w").write("all of it")
        sys.exit(0)

signal.signal(signal.SIGTERM, save)
open(kept + "/early.txt", "w").write("half")
print("training", flush=True)
while True:
    time.sleep(0.1)
"""


def test_who_saves_in_time_has_saved_and_who_does_not_end_is_ended(tmp_path: Path) -> None:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    runtime = PyTorchDistributedRuntime(
        command=f"exec {shlex.join([sys.executable, str(script)])}", replicas=2, output_uri=str(tmp_path / "kept")
    )
    run = jobs.start(JobSpec(name="grace", infrastructure=LocalJob(), runtime=runtime))
    eventually(lambda: sum(line.text == "training" for line in run.lines()) == 2)
    status = run.cancel()
    assert status.state == "cancelled"
    assert running(str(script)) == []
    result = json.loads((runs_folder() / run.id / "result.json").read_text())
    asked = next(event["time"] for event in result["events"] if event["text"] == "stopping")
    assert result["endedAt"] - asked < CANCEL_S

    kept = tmp_path / "kept"
    assert (kept / "early.txt").read_text() == "half"
    assert (kept / "node-1" / "saved.txt").read_text() == "all of it"
    ends = []
    for node in (0, 1):
        assert "saving" in (kept / "logs" / f"node-{node}.log").read_text()
        report = json.loads((runs_folder() / run.id / f"node-{node}" / "report.json").read_text())
        assert report["stopped"] == "SIGTERM"
        ends.append((report["exitCode"], report["signal"]))
    assert ends == [(137, "SIGKILL"), (0, None)]
