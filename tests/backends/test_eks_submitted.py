"""Jobs sent to a cluster by the real client: what is there afterwards, and what is refused with nothing left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune import jobs, verbs
from cloudtune.errors import CloudtuneError, SpecError
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.kubernetes.cluster import Cluster
from cloudtune.rehearsal.stage import Stage
from cloudtune.spec.infrastructure import EKSJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.store import Store
from tests.manifests import KINDS

pytest.importorskip("kubernetes", reason="the extra eks is not installed")
RUNTIME = PyTorchDistributedRuntime(
    command="torchrun train.py", replicas=2, env={"MY_TOKEN": "0123456789"}, output_uri="s3://b/o"
)
PLACE = EKSJob(image="i:1", instance_type="p5.48xlarge", namespace="default")
Begin = Callable[..., Cluster]
WHERE = "spec.infrastructure.spec"


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Return what begins a cluster in which nothing happens by itself."""
    with Identity() as identity, Stage(tmp_path / "cluster") as stage:

        def made(**options: Any) -> Cluster:
            cluster = Cluster(stage, identity, acts=False, **options)
            for name, value in cluster.environment().items():
                monkeypatch.setenv(name, value)
            return cluster

        yield made
    assert stage.errors == ()


def job(**keys: Any) -> JobSpec:
    return JobSpec(name="tune", infrastructure=attrs.evolve(PLACE, **keys), runtime=RUNTIME)


def there(cluster: Cluster) -> set[str]:
    """Return what a run has left: kinds of objects."""
    kinds = ("Job", "PyTorchJob", "TrainJob", "JobSet", "ConfigMap", "Secret", "Service")
    found = set()
    for kind in kinds:
        with suppress(KeyError):  # a kind that is not served
            found |= {kind for one in cluster.objects.list(kind) if one["metadata"]["name"].startswith("tune-")}
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_run_makes_is_owned_by_its_job(begin: Begin, kind: str) -> None:
    cluster = begin()
    run = jobs.start(job(job_kind=kind))
    assert run.handle is not None
    name = run.handle.id.partition("/")[2]
    made = {one for one in ("ConfigMap", "Secret", "Service") if one in there(cluster)}
    assert made == ({"ConfigMap", "Secret", "Service"} if kind == "job" else {"ConfigMap", "Secret"})
    (one,) = (word for word in there(cluster) if word not in made)
    owner = cluster.objects.get(one, "default", name)
    assert owner is not None
    for word in made:
        owned = cluster.objects.get(word, "default", name)
        assert owned is not None
        (reference,) = owned["metadata"]["ownerReferences"]
        assert (reference["kind"], reference["uid"]) == (one, owner["metadata"]["uid"])
    held = cluster.objects.get("ConfigMap", "default", name)
    assert held is not None
    assert set(held["binaryData"]) == {"agent.pyz", "order.json"}


@pytest.mark.parametrize(
    ("options", "keys", "path", "words"),
    [
        ({}, {"queue": "nobody"}, "queue", "no LocalQueue 'nobody'"),
        ({"operators": ()}, {"job_kind": "pyTorchJob"}, "jobKind", "knows no PyTorchJobs"),
        ({"operators": ()}, {"job_kind": "jobSet"}, "jobKind", "knows no JobSets"),
        ({"trainer_api": "v2.1"}, {"job_kind": "trainJob"}, "trainerApi", "trainerApi: v2.1"),
        ({"trainer_api": "v2.2"}, {"job_kind": "trainJob", "trainer_api": "v2.0"}, "trainerApi", "trainerApi: v2.2"),
    ],
)
def test_what_the_cluster_has_not_is_refused_with_its_key(
    begin: Begin, options: dict[str, Any], keys: dict[str, Any], path: str, words: str
) -> None:
    cluster = begin(**options)
    with pytest.raises(SpecError, match=words) as caught:
        jobs.start(job(**keys))
    assert [fault.path for fault in caught.value.faults] == [f"{WHERE}.{path}"]
    assert there(cluster) == set()
    assert list(Store().runs()) == []


def test_each_version_of_the_trainer_takes_its_own_jobs(begin: Begin) -> None:
    cluster = begin(trainer_api="v2.1")
    jobs.start(job(job_kind="trainJob", trainer_api="v2.1"))
    assert "TrainJob" in there(cluster)


def test_what_a_dry_run_of_the_server_refuses_leaves_nothing(begin: Begin) -> None:
    cluster = begin()
    with pytest.raises(CloudtuneError):
        jobs.start(job(overrides={"service": {"spec": {"clusterIp": "None"}}}))
    assert there(cluster) == set()


def test_a_run_that_waits_is_not_taken_for_one_that_was_cut_off(begin: Begin) -> None:
    begin()
    run = jobs.start(job())
    assert run.state == "pending"
    assert not verbs.unsubmitted(run)
    assert jobs.resume(run.id).id == run.id
    assert Store().run(run.id).state == "starting"
