"""Pipelines as one JobSet of a rehearsed cluster: real files between the steps, and nobody who leads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtune import pipelines, verbs
from cloudtune.errors import ServiceError, UsageError
from cloudtune.plan import Call
from cloudtune.rehearsal.kubernetes.cluster import Cluster
from cloudtune.runs import Run
from cloudtune.spec.document import load
from cloudtune.spec.job import PipelineSpec
from cloudtune.store import Store
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture
from tests.rehearsal.kubernetes.acting import acting

pytest.importorskip("kubernetes", reason="the extra eks is not installed")
pytestmark = pytest.mark.usefixtures("namespaces")
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "fsx", "namespace": "default"},
    "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
}
PIPELINE = """
kind: pipeline
spec:
  name: chain
  infrastructure:
    kind: infrastructure
    type: eksJob
    spec: {image: "i:1", jobKind: KIND, volumes: [{claim: fsx, mountPath: /fsx}]}
  steps:
    - name: rows
      job:
        runtime:
          kind: runtime
          type: pyTorchDistributed
          spec:
            replicas: 2
            processesPerNode: 1
            command: echo row $CLOUDTUNE_NODE_RANK ${#MY_TOKEN} > /fsx/row-$CLOUDTUNE_NODE_RANK
            env: {MY_TOKEN: "0123456789"}
    - name: join_them
      needs: [rows]
      job:
        runtime:
          kind: runtime
          type: pyTorchDistributed
          spec: {processesPerNode: 1, command: "cat /fsx/row-0 /fsx/row-1 > /fsx/all; END"}
    - name: show
      job:
        runtime:
          kind: runtime
          type: pyTorchDistributed
          spec: {processesPerNode: 1, command: cat /fsx/all}
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with acting(tmp_path) as here:
        here.make(CLAIM)
        for name, value in here.cluster.environment().items():
            monkeypatch.setenv(name, value)
        yield here.cluster


def begun(*, end: str = "true", kind: str = "jobSet") -> Run:
    pipeline = load(PIPELINE.replace("END", end).replace("KIND", kind))
    assert isinstance(pipeline, PipelineSpec)
    return pipelines.start_pipeline(pipeline)


def told(run: Run) -> str:
    return f"{run.status} {run.status.reason}\n" + "\n".join(line.text for line in run.logs())


def test_the_steps_follow_each_other_without_anybody_here(cluster: Cluster) -> None:
    run = begun()
    assert not run.is_pipeline
    assert run.wait(120).state == "succeeded", told(run)
    assert len(cluster.objects.list("JobSet")) == 1
    lines = [line.text for line in run.logs() if line.stream == "stdout"]
    assert lines == ["row 0 10", "row 1 10"], told(run)
    # whose lines they are: every step counts its nodes from 0
    starts = [(line.step, line.replica) for line in run.logs() if "starts: " in line.text]
    assert sorted(starts[:2]) == [("rows", 0), ("rows", 1)]
    assert starts[2:] == [("join_them", 0), ("show", 0)]
    assert {line.step for line in run.logs() if line.replica is not None} == {"rows", "join_them", "show"}
    with pytest.raises(UsageError, match="as a whole"):
        pipelines.resume_pipeline(run)
    verbs.delete(run.id)
    assert cluster.objects.wait_for(lambda: not cluster.objects.list("ConfigMap", "default"), timeout_s=60)


def test_a_step_that_fails_ends_the_chain(cluster: Cluster) -> None:
    run = begun(end="exit 3")
    assert run.wait(120).state == "failed", told(run)
    failure = run.status.failure
    assert failure is not None
    assert (failure.replica, failure.exit_code) == (0, 3), told(run)
    # by the name that its lines have
    assert str(run.status.reason).startswith("step join_them failed: "), told(run)
    assert "starts: cat /fsx/all" not in told(run)


def test_a_submission_that_was_cut_off_is_continued(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudtune.clients.kubernetes import KubernetesClient

    send, sent = KubernetesClient.send, []

    def cut(client: KubernetesClient, call: Call, **more: Any) -> Any:
        sent.append(call.operation)
        if len(sent) == 3:
            raise ServiceError("the reply was lost", service="kubernetes", operation="create", definite=False)
        return send(client, call, **more)

    monkeypatch.setattr(KubernetesClient, "send", cut)
    with pytest.raises(ServiceError, match="lost"):
        begun()
    (record,) = Store().runs()
    assert (record.state, record.handle) == ("pending", None)
    monkeypatch.setenv("MY_TOKEN", "0123456789")  # a secret is not kept
    run = verbs.run(resume=record.id)
    assert run.wait(120).state == "succeeded", told(run)
    assert len(cluster.objects.list("JobSet")) == 1
