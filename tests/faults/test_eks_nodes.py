"""Nodes of one job on a cluster's stand-in, of which one is taken away: all of them start again, and go on together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from cloudtune import jobs, pipelines
from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.infrastructure import EKSJob
from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep
from cloudtune.states import Failure
from tests.eks_place import INSTANCE, NAMESPACE, EksPlace, eks_place, job
from tests.faults.flows import TEXTS, written
from tests.faults.test_eks import TALK, Watcher
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

pytest.importorskip("kubernetes", reason="kubernetes is not installed")

pytestmark = pytest.mark.usefixtures("namespaces")

#: Six steps of a collective, of which each is kept; at the third, ranks wait together for a word.
TRAIN = """
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
kept = Path(os.environ["CLOUDTUNE_CHECKPOINT_DIR"]) / "step"
step = int(kept.read_text()) if kept.exists() else 0
print("starts at", step, flush=True)
while step < 6:
    going = torch.tensor([float(step != 3 or os.path.exists("/gate/open"))])
    dist.all_reduce(going)
    if going < 2:
        time.sleep(0.1)
        continue
    step += 1
    if dist.get_rank() == 0:
        kept.write_text(str(step))
    dist.barrier()
    print("step", step, flush=True)
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # a thread of Gloo may still free a tensor, which aborts where the interpreter is going: pytorch#179291
"""


@pytest.fixture
def on(tmp_path: Path) -> Iterator[EksPlace]:
    with eks_place(tmp_path) as place:
        yield place


def training(on: EksPlace, **more: object) -> JobSpec:
    """Return a job of two nodes by torchrun, which keep their steps where both find them."""
    (on.gate / "train.py").write_text(TRAIN)
    spec = job("torchrun /gate/train.py", **more)
    kept = EnvironmentVariable(name="CLOUDTUNE_CHECKPOINT_DIR", value="/gate")
    return attrs.evolve(spec, runtime=attrs.evolve(spec.runtime, env=(kept,)))


def evict(on: EksPlace, node: int) -> None:
    on.control.evict("default", on.pods()[node]["metadata"]["name"])


def of(watcher: Watcher, node: int, step: str | None = None) -> list[str]:
    return written([line for line in watcher.lines if (line.step, line.replica) == (step, node)])


def both_start_again(on: EksPlace, watcher: Watcher, *, step: str | None = None) -> None:
    """Look whether both nodes begin anew, and let them end."""
    watcher.has("10", times=4)
    on.open_gate()
    watcher.to_the_end()
    assert watcher.run.state == "succeeded", (watcher.run.status, watcher.texts)
    for node in (0, 1):
        assert of(watcher, node, step) == [*TEXTS[:10], *TEXTS], watcher.texts


def blamed_on_the_evicted(watcher: Watcher) -> Failure:
    """Return the failure of a run that ended because node 1 was evicted."""
    status = watcher.run.status
    assert status.state == "failed", (status, watcher.texts)
    assert status.failure is not None, (status, watcher.texts)
    assert status.failure.replica == 1, (status, watcher.texts)
    assert "(replica 1) was evicted" in (status.reason or ""), status
    return status.failure


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["job", "jobSet"])
def test_a_collective_whose_peer_is_evicted_starts_again_and_goes_on(on: EksPlace, kind: str) -> None:
    watcher = Watcher(jobs.start(training(on, job_kind=kind, max_restarts=1)))
    watcher.has("step 3", times=2)
    evict(on, 1)
    watcher.has("starts at 3", times=2)
    on.open_gate()
    watcher.to_the_end()
    assert watcher.run.state == "succeeded", (watcher.run.status, watcher.texts)
    first = ["starts at 0", "step 1", "step 2", "step 3"]
    for node in (0, 1):
        assert of(watcher, node) == [*first, "starts at 3", "step 4", "step 5", "step 6"], watcher.texts
    assert any("was evicted" in note for note in watcher.notes), watcher.notes


@pytest.mark.heavy
def test_a_collective_that_may_not_start_again_names_who_was_evicted(on: EksPlace) -> None:
    """And not the peer, whose connection was lost."""
    watcher = Watcher(jobs.start(training(on)))
    watcher.has("step 3", times=2)
    evict(on, 1)
    watcher.to_the_end()
    assert blamed_on_the_evicted(watcher).lines[-1] == "step 3"


@pytest.mark.parametrize("taken", [0, 1])
def test_nodes_that_do_not_miss_each_other_start_again_together(on: EksPlace, taken: int) -> None:
    """The other node would go on: it is told by the one that comes again, or, where that is node 0, asks it."""
    watcher = Watcher(jobs.start(job(TALK, max_restarts=1)))
    watcher.has("10", times=2)
    if taken:
        evict(on, taken)
    else:
        on.control.add_nodes(INSTANCE)
        on.control.lose_node(on.pods()[taken]["spec"]["nodeName"])
    both_start_again(on, watcher)
    told = f"node {taken} has come again alone: all nodes start again together"
    own = [line.text for line in watcher.lines if line.replica == 1 - taken and line.stream == "agent"]
    assert f"ends with exit code 125: {told}" in own, watcher.texts


@pytest.mark.parametrize("kind", ["pyTorchJob", "jobSet"])
def test_nodes_of_which_one_is_killed_start_again_together(on: EksPlace, kind: str) -> None:
    """By their containers, or by all pods: each end of each node is one that `maxRestarts` allows."""
    watcher = Watcher(jobs.start(job(TALK, job_kind=kind, max_restarts=1)))
    watcher.has("10", times=2)
    last = max(pod["metadata"]["name"] for pod in on.things("Pod"))
    on.control.kill_pod("default", last)
    both_start_again(on, watcher)


def test_nodes_that_may_not_start_again_name_who_was_evicted(on: EksPlace) -> None:
    watcher = Watcher(jobs.start(job(TALK)))
    watcher.has("10", times=2)
    evict(on, 1)
    watcher.to_the_end()
    blamed_on_the_evicted(watcher)


def test_a_part_of_a_chain_starts_again_without_those_that_are_complete(on: EksPlace) -> None:
    place = EKSJob(instance_type=INSTANCE, image="image:1", namespace=NAMESPACE, job_kind="jobSet", max_restarts=1)
    runtimes = {"tokens": job("echo tokens", replicas=1).runtime, "train": job(TALK).runtime}
    steps = tuple(PipelineStep(name=name, job=JobSpec(runtime=runtime)) for name, runtime in runtimes.items())
    watcher = Watcher(pipelines.start_pipeline(PipelineSpec(name="chain", infrastructure=place, steps=steps)))
    watcher.has("10", times=2)
    (pod,) = (pod for pod in on.things("Pod") if "-train-0-1-" in pod["metadata"]["name"])
    on.control.evict("default", pod["metadata"]["name"])
    both_start_again(on, watcher, step="train")
    assert of(watcher, 0, "tokens") == ["tokens"], watcher.texts
