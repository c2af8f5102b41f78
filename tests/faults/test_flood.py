"""Logs of a run that writes faster than anybody reads."""

from __future__ import annotations

from cloudtune import jobs
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from tests.processes import eventually


def test_logs_of_a_run_that_never_stops_talking_come_to_an_end() -> None:
    runtime = PyTorchDistributedRuntime(command="echo first; yes talk", replicas=2)
    run = jobs.start(JobSpec(name="flood", infrastructure=LocalJob(), runtime=runtime))
    try:
        eventually(lambda: run.state == "running")
        eventually(lambda: "first" in [line.text for line in run.logs()])
        assert len(list(run.logs(tail=5))) == 5
    finally:
        run.cancel()
