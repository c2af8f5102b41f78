"""EKS in this release: jobs are checked and planned as far as that goes; nothing is submitted."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from cloudtune import jobs, runs
from cloudtune.backends import Backend, backend_named, backend_of, every_backend
from cloudtune.errors import RunNotFound, SpecError, UsageError
from cloudtune.plan import Call
from cloudtune.spec.infrastructure import EKSJob, Infrastructure, SageMakerTrainingJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.states import Handle
from cloudtune.store import Store

RUNTIME = PyTorchDistributedRuntime(command="torchrun train.py", replicas=2)
SAGEMAKER = SageMakerTrainingJob(
    region="us-west-2", role_arn="arn:aws:iam::123456789012:role/r", instance_type="ml.g5.12xlarge", image="image:1"
)
EKS = EKSJob(instance_type="p4d.24xlarge")
PLACES = [pytest.param(EKS, "eks", id="eks")]


def test_the_plan_is_a_launch_without_steps() -> None:
    job = JobSpec(name="j", infrastructure=EKS, runtime=attrs.evolve(RUNTIME, output_uri="s3://bucket/out"))
    plan = jobs.plan_job(job)
    assert plan.launch is not None
    assert (plan.launch.nodes, plan.launch.processes_per_node) == (2, 8)
    assert plan.steps == ()
    assert plan.outputs == ("s3://bucket/out",)
    assert plan.to_json() == jobs.plan_job(job).to_json()


def test_the_smaller_limit_is_told() -> None:
    place = attrs.evolve(SAGEMAKER, max_runtime_in_seconds=60)
    runtime = attrs.evolve(RUNTIME, maximum_runtime_in_minutes=2)
    warnings = jobs.plan_job(JobSpec(infrastructure=place, runtime=runtime)).warnings
    assert any("60 s" in warning.message for warning in warnings)


@pytest.mark.parametrize(("place", "name"), PLACES)
def test_a_run_is_refused_before_anything_is_recorded(place: Infrastructure, name: str) -> None:
    job = JobSpec(name="j", infrastructure=place, runtime=RUNTIME)
    (note,) = jobs.plan_job(job).refused
    assert note.path == "spec.infrastructure.type"
    with pytest.raises(SpecError) as caught:
        jobs.start(job)
    assert caught.value.exit_code == 2
    assert "submit them yet" in str(caught.value)
    assert "--infrastructure local" in str(caught.value)
    assert list(Store().runs()) == []


@pytest.mark.parametrize(("place", "name"), PLACES)
def test_what_is_about_submitted_runs_says_that_there_are_none(place: Infrastructure, name: str) -> None:
    backend: Any = backend_of(place.type)
    assert backend.name == name
    assert type(backend_named(name)) is type(backend)
    plan = backend.plan(JobSpec(infrastructure=place, runtime=RUNTIME), "abcdefgh")
    handle = Handle(backend=name, id="x")
    calls = {
        "handle": (plan, {}),
        "look": (handle,),
        "status": (handle, {}),
        "logs": (handle, None),
        "lines": (handle, {}),
        "cancel": (handle,),
    }
    for method, arguments in calls.items():
        with pytest.raises(UsageError, match="submit them yet"):
            getattr(backend, method)(*arguments)
    with pytest.raises(UsageError, match="submit them yet"):
        backend.delete(handle, outputs=False)
    client = runs.client_of(backend)
    for deed in (client.send, client.read):
        with pytest.raises(UsageError, match=r"oci\.data_science get_job"):
            deed(Call(service="oci.data_science", operation="get_job"))


def test_their_ids_are_not_recognised() -> None:
    backends: tuple[Backend, ...] = tuple(every_backend())
    text = "namespace/name"
    assert [backend.recognise(text) for backend in backends] == [None] * len(backends)
    with pytest.raises(RunNotFound):
        runs.get(text)


@pytest.mark.parametrize(("place", "name"), PLACES)
def test_a_run_of_theirs_named_by_its_handle_ends_with_that_text(place: Infrastructure, name: str) -> None:
    run = runs.Run(handle=Handle(backend=name, id="x"), record=None)
    with pytest.raises(UsageError, match="submit them yet"):
        _ = run.state
