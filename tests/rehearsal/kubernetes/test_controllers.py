"""Controllers of a rehearsed cluster asked by hand, about objects to which nothing happens by itself."""

from __future__ import annotations

import contextlib
import json
import threading
from email.message import Message
from types import SimpleNamespace
from typing import Any

import pytest

from cloudtune.rehearsal.clock import Clock
from cloudtune.rehearsal.kubernetes.conditions import condition, holds
from cloudtune.rehearsal.kubernetes.installed import TRAIN_JOBS, install
from cloudtune.rehearsal.kubernetes.job_controller import JobController
from cloudtune.rehearsal.kubernetes.kinds import Kinds
from cloudtune.rehearsal.kubernetes.kueue import Kueue
from cloudtune.rehearsal.kubernetes.objects import Objects
from cloudtune.rehearsal.kubernetes.pytorch_controller import PyTorchController
from cloudtune.rehearsal.kubernetes.targets import Target
from cloudtune.rehearsal.kubernetes.timing import Timing
from cloudtune.rehearsal.kubernetes.trainjob_controller import _processes
from cloudtune.rehearsal.kubernetes.validation import Validation
from cloudtune.rehearsal.kubernetes.watches import Watch
from cloudtune.rehearsal.messages import Body, Refused, Request
from cloudtune.rehearsal.state import Store

Object = dict[str, Any]
STAGE: Any = SimpleNamespace(clock=Clock())
TIMING = Timing(admission_s=0.0)
TEMPLATE = {"spec": {"restartPolicy": "Never", "containers": [{"name": "pytorch", "image": "i"}]}}


@pytest.fixture
def objects() -> Objects:
    found = Objects(Store(), Kinds())
    found.admission = Validation(found, types={"TrainJob": TRAIN_JOBS["v2.2"]}).admit
    install(found, found.kinds, trainer_api="v2.2")
    return found


def thing(api: str, kind: str, name: str, spec: Object, **meta: Any) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, **meta}, "spec": spec}


def ends(objects: Objects, pod: Object, phase: str) -> None:
    objects.update_status("Pod", "default", pod["metadata"]["name"], lambda it: it["status"].update(phase=phase))


# --- Jobs


class Led:
    """A Job, led step by step."""

    def __init__(self, objects: Objects, spec: Object) -> None:
        self.objects, self.controller = objects, JobController(STAGE, objects, Timing(job_backoff_s=0.0))
        objects.create(thing("batch/v1", "Job", "j", {"template": TEMPLATE, **spec}))
        self.step()

    def step(self) -> str:
        """Take a step; return what the Job says of its end."""
        self.controller.sync("default", "j")
        job = self.objects.get("Job", "default", "j")
        assert job is not None
        words = ("SuccessCriteriaMet", "FailureTarget", "Complete", "Failed")
        found = [condition(job, word) for word in words if holds(job, word)]
        return " ".join(f"{row['type']}:{row['reason']}" for row in found if row)

    def end(self, *phases: str) -> str:
        """Let the pods that run end in these ways, all before the next step."""
        pods = self.objects.list("Pod", where=lambda pod: pod["status"]["phase"] not in ("Succeeded", "Failed"))
        for pod, phase in zip(pods, phases, strict=False):
            ends(self.objects, pod, phase)
        return self.step()


BOTH = {"completions": 2, "parallelism": 2, "completionMode": "Indexed"}
FIRST = {"successPolicy": {"rules": [{"succeededIndexes": "0"}]}}
TOO_MANY = "FailureTarget:BackoffLimitExceeded Failed:BackoffLimitExceeded"


@pytest.mark.parametrize("spec", [{**BOTH, **FIRST}, {"parallelism": 2}])
def test_a_job_of_which_enough_has_failed_is_no_success(objects: Objects, spec: Object) -> None:
    assert Led(objects, {**spec, "backoffLimit": 0}).end("Succeeded", "Failed") == TOO_MANY


def test_a_failure_within_the_limit_costs_a_job_nothing(objects: Objects) -> None:
    led = Led(objects, {**BOTH, "backoffLimit": 1})
    assert led.end("Failed", "Succeeded") == ""
    assert led.end("Succeeded") == "SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached"


def test_what_fails_after_a_job_has_succeeded_changes_nothing(objects: Objects) -> None:
    led = Led(objects, {**BOTH, **FIRST, "backoffLimit": 0})
    _, second = objects.list("Pod")
    # the second runs on a node, so that it has a grace in which it fails
    objects.update("Pod", "default", second["metadata"]["name"], lambda it: it["spec"].update(nodeName="n"))
    assert led.end("Succeeded") == "SuccessCriteriaMet:SuccessPolicy"
    assert led.end("Failed") == "SuccessCriteriaMet:SuccessPolicy Complete:SuccessPolicy"


# --- PyTorchJobs


def counts(objects: Objects, controller: PyTorchController) -> Object:
    """Return how many replicas of a job are what, once its controller has seen all."""
    controller.sync("default", "p")
    controller.sync("default", "p")
    job = objects.get("PyTorchJob", "default", "p")
    assert job is not None
    found: Object = job["status"]["replicaStatuses"]
    return found


def test_no_replica_of_a_pytorchjob_is_active_that_is_suspended_or_has_succeeded(objects: Objects) -> None:
    specs = {"Master": {"replicas": 1, "template": TEMPLATE}, "Worker": {"replicas": 2, "template": TEMPLATE}}
    objects.create(thing("kubeflow.org/v1", "PyTorchJob", "p", {"pytorchReplicaSpecs": specs}))
    controller = PyTorchController(STAGE, objects, TIMING, lambda _: 29500)

    def all_run() -> None:
        controller.sync("default", "p")
        for pod in objects.list("Pod"):
            ends(objects, pod, "Running")
        assert counts(objects, controller) == {"Master": {"active": 1}, "Worker": {"active": 2}}

    def suspend(suspended: bool) -> None:
        objects.update("PyTorchJob", "default", "p", lambda it: it["spec"]["runPolicy"].update(suspend=suspended))

    all_run()
    suspend(True)
    assert counts(objects, controller) == {"Master": {}, "Worker": {}}
    suspend(False)
    all_run()
    master, last, _ = objects.list("Pod")
    for pod in (master, last):
        ends(objects, pod, "Succeeded")
    # a worker that still runs when its master is done is counted with those that have succeeded
    assert counts(objects, controller) == {"Master": {"succeeded": 1}, "Worker": {"succeeded": 2}}


# --- TrainJobs


@pytest.mark.parametrize(
    ("given", "limits", "requests", "processes"),
    [
        (None, {"cpu": 4}, {}, 4),
        ("auto", {"cpu": "8"}, {"cpu": "1500m"}, 2),
        ("auto", {"cpu": 4, "nvidia.com/gpu": "8"}, {}, 8),
        (None, {}, {}, 1),
        (2, {"nvidia.com/gpu": 8}, {}, 2),
        ("cpu", {"cpu": 4, "nvidia.com/gpu": 8}, {}, 4),
        ("gpu", {"cpu": 4, "nvidia.com/gpu": 8}, {}, 8),
    ],
)
def test_a_trainjob_has_as_many_processes_as_it_says_or_asks_for(
    given: object, limits: Object, requests: Object, processes: int
) -> None:
    trainer = {} if given is None else {"numProcPerNode": given}
    assert _processes(trainer, {"name": "node", "resources": {"limits": limits, "requests": requests}}) == processes


# --- queues


def test_who_is_admitted_again_is_no_longer_evicted(objects: Objects) -> None:
    kueue = Kueue(STAGE, objects, TIMING)
    objects.create(thing("kueue.x-k8s.io/v1beta2", "ClusterQueue", "all", {}))
    objects.create(thing("kueue.x-k8s.io/v1beta2", "LocalQueue", "team", {"clusterQueue": "all"}))
    labels = {"kueue.x-k8s.io/queue-name": "team"}
    objects.create(thing("batch/v1", "Job", "j", {"template": TEMPLATE}, labels=labels))

    def evicted() -> tuple[str, str, str] | None:
        (workload,) = objects.list("Workload")
        row = condition(workload, "Evicted")
        return (row["status"], row["reason"], row["message"]) if row else None

    kueue.sync("Job/default", "j")
    assert evicted() is None
    kueue.evict("default", "Job", "j")
    words = "Preempted to accommodate a workload due to prioritization in the ClusterQueue"
    assert evicted() == ("True", "Preempted", words)
    kueue.sync("Job/default", "j")
    assert evicted() == ("False", "QuotaReserved", f"Previously: {words}")
    kueue.evict("default", "Job", "j")
    assert evicted() == ("True", "Preempted", words)


# --- watches


class Busy(Objects):
    """Objects to which somebody adds one just before they are listed, if nobody holds them at that moment."""

    def list(self, kind: str, *given: Any, **named: Any) -> list[Object]:
        maker = threading.Thread(target=self._make)
        maker.start()
        maker.join()
        return super().list(kind, *given, **named)

    def _make(self) -> None:
        lock: Any = self._store.held()
        if lock.acquire(blocking=False):
            with contextlib.suppress(Refused):  # it is there
                self.create(thing("v1", "ConfigMap", "late", {}))
            lock.release()


def test_what_is_made_while_a_watch_begins_is_told_once() -> None:
    objects = Busy(Store(), Kinds())
    objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    objects.create(thing("v1", "ConfigMap", "early", {}))
    looks = iter([True, False])
    request = Request(
        method="GET", target="/?watch=1", headers=Message(), body=Body(lambda _: b""), alive=lambda: next(looks)
    )
    target = Target(verb="watch", kind=objects.kinds["ConfigMap"], version="v1", namespace="default")
    watch = Watch(objects, target, request, lambda _: True, lambda one: one)
    lines = [json.loads(line) for line in b"".join(watch).splitlines()]
    told = [(line["type"], line["object"]["metadata"]["name"]) for line in lines]
    assert ("ADDED", "early") in told
    assert len(told) == len(set(told))
