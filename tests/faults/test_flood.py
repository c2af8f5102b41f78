"""Logs of a run that writes whenever anybody reads."""

from __future__ import annotations

from cloudtune import jobs
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from tests.processes import eventually


def test_logs_of_a_run_that_never_stops_talking_come_to_an_end() -> None:
    # as much as a terminal takes and no more: what is written without end at full speed is read for minutes beside others
    talk = "echo first; while :; do seq 100; sleep 0.02; done"
    runtime = PyTorchDistributedRuntime(command=talk, replicas=2)
    run = jobs.start(JobSpec(name="flood", infrastructure=LocalJob(), runtime=runtime))
    try:
        eventually(lambda: run.state == "running")
        eventually(lambda: "first" in [line.text for line in run.logs()])
        assert len(list(run.logs(tail=5))) == 5
    finally:
        run.cancel()
