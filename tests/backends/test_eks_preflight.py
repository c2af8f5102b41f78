"""What a cluster is asked before a job is sent to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from cloudtune import jobs
from cloudtune.backends import backend_of
from cloudtune.backends.eks import EksBackend
from cloudtune.errors import NotAllowed, SpecError
from cloudtune.plan import Call, Plan
from cloudtune.spec.infrastructure import EKSJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from tests.manifests import KINDS

PLACE = EKSJob(context="c", namespace="ml", instance_type="p5.48xlarge", image="i")
WHERE = "spec.infrastructure.spec"


def plan(**keys: Any) -> Plan:
    runtime = PyTorchDistributedRuntime(command="torchrun train.py", output_uri="s3://b/o")
    return EksBackend().plan(JobSpec(infrastructure=attrs.evolve(PLACE, **keys), runtime=runtime), "abcdefgh")


def definition(*fields: str, served: bool = True) -> dict[str, Any]:
    spec = {"properties": {field: {} for field in fields}}
    schema = {"openAPIV3Schema": {"properties": {"spec": spec}}}
    return {"spec": {"versions": [{"name": "v1alpha1", "served": served, "schema": schema}]}}


def asked(found: Plan, answers: Mapping[str, Any]) -> tuple[list[Call], dict[str, str]]:
    """Return the calls that a plan asks, and the faults of the answers to them, by what is asked for."""
    calls: list[Call] = []
    replies: list[Mapping[str, Any]] = []
    while (call := EksBackend().beforehand(found, replies)) is not None:
        calls.append(call)
        replies.append(answers.get(call.parameters.get("kind") or call.operation, {}))
    assert EksBackend().settled(found, replies).to_json() == found.to_json()
    refusal = EksBackend().refusal(found, replies)
    assert refusal is None or isinstance(refusal, SpecError)
    return calls, {fault.path: f"{fault.message}; {fault.hint}" for fault in refusal.faults} if refusal else {}


def test_an_indexed_job_asks_nothing() -> None:
    assert asked(plan(), {}) == ([], {})


def test_a_queue_is_looked_up() -> None:
    kueue = {"discover": {"versions": [{"version": "v1beta2"}, {"version": "v1beta1"}]}}
    calls, faults = asked(plan(queue="team"), {**kueue, "LocalQueue": {"absent": True}})
    assert [(call.operation, call.parameters.get("name"), call.region) for call in calls] == [
        ("discover", None, "context:c"),
        ("get", "team", "context:c"),
    ]
    assert "would wait for ever" in faults[f"{WHERE}.queue"]
    assert asked(plan(queue="team"), {**kueue, "LocalQueue": {"metadata": {}}})[1] == {}


def test_a_queue_that_cannot_be_seen_is_not_said_to_be_absent() -> None:
    """Without Kueue no job waits; and a release of it that serves another version may have the queue."""
    (said,) = asked(plan(queue="team"), {key: {"absent": True} for key in ("discover", "LocalQueue")})[1].values()
    assert "has no Kueue" in said
    later = {"discover": {"versions": [{"version": "v1"}]}, "LocalQueue": {"absent": True}}
    assert asked(plan(queue="team"), later)[1] == {}


@pytest.mark.parametrize("kind", ["pyTorchJob", "trainJob", "jobSet"])
def test_a_kind_must_be_served_in_its_version(kind: str) -> None:
    found = plan(job_kind=kind)
    assert "knows no" in asked(found, {"discover": {"absent": True}})[1][f"{WHERE}.jobKind"]
    older = {"discover": {"versions": [{"version": "v0"}]}}
    assert "as v0" in asked(found, older)[1][f"{WHERE}.jobKind"]
    version = found.steps[0].parameters["apiVersion"].rpartition("/")[2]
    assert asked(found, {"discover": {"versions": [{"version": version}, {"version": "v0"}]}})[1] == {}


@pytest.mark.parametrize(
    ("asks", "has", "told"),
    [
        ("v2.2", "runtimePatches", None),
        ("v2.3", "runtimePatches", None),
        ("v2.1", "podTemplateOverrides", None),
        ("v2.2", "podTemplateOverrides", "v2.1"),
        ("v2.2", "podSpecOverrides", "v2.0"),
        ("v2.0", "runtimePatches", "v2.2"),
        ("v2.1", "something", None),
    ],
)
def test_a_train_job_is_of_the_version_that_is_served(asks: str, has: str, told: str | None) -> None:
    found = plan(job_kind="trainJob", trainer_api=asks)
    faults = asked(found, {"CustomResourceDefinition": definition("trainer", has)})[1]
    assert set(faults) == ({f"{WHERE}.trainerApi"} if told else set())
    assert not told or f"trainerApi: {told}" in faults[f"{WHERE}.trainerApi"]


def test_what_nobody_may_tell_is_left_to_the_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that this user may not ask does not keep the others from being asked."""

    class Cluster:
        def __init__(self, *, hasty: bool = False) -> None:
            assert hasty

        def read(self, call: Call) -> Mapping[str, Any]:
            if call.operation == "get":
                raise NotAllowed("no", hint="ask")
            return {"absent": True}

    backend = backend_of("eksJob")
    assert backend.client.endswith(":KubernetesClient")
    monkeypatch.setattr(jobs, "load", lambda _: Cluster)
    with pytest.raises(SpecError) as caught:
        jobs.ask_beforehand(plan(job_kind="trainJob", queue="team"), backend)
    assert [fault.path for fault in caught.value.faults] == [f"{WHERE}.queue", f"{WHERE}.jobKind"]


# --- images

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
DIGEST = "sha256:" + "a" * 64


def on_eks(image: str, kind: str = "job") -> Plan:
    return plan(context=None, cluster="c", region="us-west-2", image=image, job_kind=kind)


def images(found: Plan) -> set[str]:
    return set(re.findall(r'"image": "([^"]+)"', found.to_json()))


def replies_to(found: Plan, answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    replies: list[Mapping[str, Any]] = []
    while (call := EksBackend().beforehand(found, replies)) is not None:
        replies.append(answer if call.service == "aws.ecr" else {})
    return replies


@pytest.mark.parametrize("kind", KINDS)
def test_a_tag_is_sent_as_the_digest_that_the_registry_tells(kind: str) -> None:
    found = on_eks(f"{ECR}/team/torch:1", kind)
    replies = replies_to(found, {"images": [{"imageId": {"imageTag": "1", "imageDigest": DIGEST}}]})
    assert EksBackend().refusal(found, replies) is None
    assert images(EksBackend().settled(found, replies)) == {f"{ECR}/team/torch@{DIGEST}"}
    assert images(found) == {f"{ECR}/team/torch:1"}


def test_what_the_registry_is_asked() -> None:
    call = EksBackend().beforehand(on_eks(f"{ECR}/torch"), [])
    assert call is not None
    assert (call.service, call.operation, call.region) == ("aws.ecr", "batch_get_image", "eu-west-1")
    asked_for = {key: call.parameters[key] for key in ("registryId", "repositoryName", "imageIds")}
    assert asked_for == {
        "registryId": "123456789012",
        "repositoryName": "torch",
        "imageIds": [{"imageTag": "latest"}],
    }
    for other in (f"{ECR}/torch@{DIGEST}", "docker.io/library/python:3.12", "python"):
        assert EksBackend().beforehand(on_eks(other), []) is None
    assert EksBackend().beforehand(plan(image=f"{ECR}/torch"), []) is None


def test_a_tag_that_is_not_there_is_refused_and_a_repository_that_is_not_seen_is_not() -> None:
    found = on_eks(f"{ECR}/torch:no")
    missing = {"images": [], "failures": [{"failureCode": "ImageNotFound", "imageId": {"imageTag": "no"}}]}
    refusal = EksBackend().refusal(found, replies_to(found, missing))
    assert isinstance(refusal, SpecError)
    assert [fault.path for fault in refusal.faults] == [f"{WHERE}.image"]
    for answer in ({"absent": True}, {}):
        assert EksBackend().refusal(found, replies_to(found, answer)) is None
        assert images(EksBackend().settled(found, replies_to(found, answer))) == {f"{ECR}/torch:no"}
