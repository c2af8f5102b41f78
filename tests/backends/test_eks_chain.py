"""A pipeline as one JobSet: its parts follow each other, and it owns what they brought."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.backends.eks import EksBackend
from cloudtune.backends.eks_chain import part_names
from cloudtune.plan import Plan, Step
from cloudtune.spec.infrastructure import EKSJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from tests.manifests import check

PLACE = EKSJob(context="c", image="i", job_kind="jobSet", instance_type="p5.48xlarge", namespace="ml")


def planned(name: str, replicas: int = 1, **keys: Any) -> tuple[str, Plan]:
    runtime = PyTorchDistributedRuntime(
        command="torchrun a.py", replicas=replicas, env={"MY_TOKEN": "0123456789"}, output_uri="s3://b/o"
    )
    job = JobSpec(name=name, infrastructure=attrs.evolve(PLACE, **keys), runtime=runtime)
    return name, EksBackend().plan(job, f"abcdefgh-{name}")


def chained(*parts: tuple[str, Plan]) -> tuple[Step, ...]:
    found = EksBackend().chain(PLACE, "My chain", "abcdefgh", parts)
    assert found is not None
    assert found.why == ""
    return found.steps


def test_the_parts_follow_each_other_and_the_whole_owns_all() -> None:
    first, second = planned("tokenize"), planned("train", replicas=2, max_restarts=2, queue="team")
    steps = chained(first, second)
    assert [step.id for step in steps] == [
        *("job", "tokenize.secret", "tokenize.files", "train.secret", "train.files"),
    ]
    job, *owned = (step.parameters for step in steps)
    assert (job["kind"], job["metadata"]["name"]) == ("JobSet", "my-chain-abcdefgh")
    assert {step.region for step in steps} == {"context:c"}
    for one in owned:
        (owner,) = one["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], str(owner["uid"])) == (
            "JobSet",
            "my-chain-abcdefgh",
            "${job.metadata.uid}",
        )
    parts = job["spec"]["replicatedJobs"]
    assert [(part["name"], part.get("dependsOn")) for part in parts] == [
        ("tokenize", None),
        ("train", [{"name": "tokenize", "status": "Complete"}]),
    ]
    # what is complete is not run again: pods start again, the whole does not
    assert job["spec"]["failurePolicy"] == {"maxRestarts": 0}
    assert [part["template"]["spec"]["backoffLimit"] for part in parts] == [0, 4]
    for part in parts:
        rules = part["template"]["spec"]["podFailurePolicy"]["rules"]
        assert [rule["action"] for rule in rules] == ["Ignore", "FailJob"]
    template = parts[1]["template"]["spec"]["template"]
    given = {one["name"]: one.get("value") for one in template["spec"]["containers"][0]["env"]}
    assert given["CLOUDTUNE_JOB_NAME"] == "my-chain-abcdefgh-train-0"
    assert given["CLOUDTUNE_SERVICE"] == "my-chain-abcdefgh"
    assert given["CLOUDTUNE_RUN_ID"] == "abcdefgh-train"
    assert template["metadata"]["labels"]["cloudtune.dev/run-id"] == "abcdefgh"
    assert template["metadata"]["labels"]["cloudtune.dev/step"] == "train"
    assert template["spec"]["volumes"][1]["configMap"]["name"] == owned[-1]["metadata"]["name"]
    plan = attrs.evolve(second[1], steps=steps)
    assert EksBackend().handle(plan, {step.id: {} for step in steps}).id == "ml/my-chain-abcdefgh"


def test_it_is_what_the_api_takes(shared: Any) -> None:
    steps = chained(*(planned(name, replicas=2) for name in ("tokenize", "compile", "train", "to_one", "a" * 30)))
    plan = attrs.evolve(planned("x")[1], steps=steps)
    assert check([step["parameters"] for step in plan.to_dict()["steps"]]) == []


@pytest.mark.parametrize(
    ("keys", "why"),
    [({"job_kind": "job"}, "step b is no"), ({"namespace": "x"}, "one namespace"), ({"context": "x"}, "one namespace")],
)
def test_what_is_not_all_of_one_place_is_no_chain(keys: dict[str, Any], why: str) -> None:
    found = EksBackend().chain(PLACE, "c", "abcdefgh", [planned("a"), planned("b", **keys)])
    assert found is not None
    assert found.steps == ()
    assert why in found.why


def test_it_is_made_where_the_pipeline_asks_for_it() -> None:
    place = attrs.evolve(PLACE, job_kind="job")
    assert EksBackend().chain(place, "c", "abcdefgh", [planned("a"), planned("b")]) is None


@given(
    st.lists(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,38}[A-Za-z0-9])?", fullmatch=True), max_size=6, unique=True)
)
def test_parts_have_names_of_their_own(steps: list[str]) -> None:
    names = part_names(steps)
    assert len(set(names.values())) == len(steps)
    for name in names.values():
        assert len(name) <= 18
        assert name[0].isalpha()
        assert name[-1] != "-"
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
