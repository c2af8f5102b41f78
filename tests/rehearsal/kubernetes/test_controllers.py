"""Controllers of a rehearsed cluster asked by hand, about objects to which nothing happens by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cloudtune.rehearsal.clock import Clock
from cloudtune.rehearsal.kubernetes.conditions import condition, holds
from cloudtune.rehearsal.kubernetes.installed import TRAIN_JOBS, install
from cloudtune.rehearsal.kubernetes.job_controller import JobController
from cloudtune.rehearsal.kubernetes.kinds import Kinds
from cloudtune.rehearsal.kubernetes.objects import Objects
from cloudtune.rehearsal.kubernetes.timing import Timing
from cloudtune.rehearsal.kubernetes.validation import Validation
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
