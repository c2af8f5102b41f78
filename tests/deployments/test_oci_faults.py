"""Deploying on OCI where calls fail, answers are lost, and whoever waits is interrupted or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import attrs
import pytest

import cloudtune
import cloudtune.verbs
from cloudtune.errors import CloudtuneError, ServiceError, UsageError
from cloudtune.rehearsal import faults
from cloudtune.store import Store
from tests.deployments.oci_serving import IMAGE, SHAPE, Serving

pytest.importorskip("oci", reason="the oci SDK is not installed")
SERVICE = "oci.data_science"
FAULTS = {
    "429": faults.refused("*", status=429),
    "500": faults.refused("*", status=500),
    "lost": faults.lost("*"),
    "cut": faults.cut("*"),
}
#: Times that the client asks before it gives up.
TRIES = 8


@pytest.mark.parametrize("kind", FAULTS)
def test_every_call_may_fail_once(kind: str, serving: Serving) -> None:
    serving.profile(logGroupId=serving.place.log_group)

    def all_of_it() -> None:
        serving.deploy(image=None)
        assert cloudtune.invoke("llama", "hello") == "hello"
        assert streamed() == "how are you"
        assert cloudtune.verbs.deployment_state(Store().deployments("llama")[0]) == "running"
        cloudtune.delete("llama")

    def streamed() -> str:
        try:
            return cloudtune.invoke("llama", "how are you", show=str)
        except ServiceError:  # what is shown already cannot be asked for again
            if kind not in ("lost", "cut"):
                raise
            return cloudtune.invoke("llama", "how are you", show=str)

    record = serving.place.stage.record
    before = len(record.calls)
    all_of_it()
    calls = [call.call for call in record.calls]
    assert {operation for _, operation in calls[before:]} >= {"create_model_deployment", "create_log", "predict"}
    for one in faults.each_once(calls[before:], FAULTS[kind]):
        done = calls.count((one.service, one.operation))
        # what is asked again and again until something is there meets it once
        first = 0 if one.operation == "create_log" else done
        serving.place.stage.faults.add(attrs.evolve(one, numbers=(first + 1,)))
    all_of_it()
    left = {fault.operation for fault in serving.place.stage.faults.left()}
    assert left <= {"create_log"}  # the log of the first time is there
    assert len(made(serving)) == 2
    assert serving.deployments() == []


def test_a_call_that_fails_for_good_leaves_nothing_unsaid(serving: Serving) -> None:
    """Each call of a deployment fails until the client gives up; then what is there is known, and deploying goes on.

    Reads are refused, and of changes the answers are lost; what makes the deployment is also refused.
    """
    serving.profile(logGroupId=serving.place.log_group)
    record = serving.place.stage.record
    before = len(record.calls)
    serving.deploy(image=None)
    flow = dict.fromkeys(call.call for call in record.calls[before:] if call.operation != "create_log")
    cloudtune.delete("llama")
    given: list[faults.Fault] = []
    for service, operation in (*flow, (SERVICE, "create_model_deployment")):
        done = sum(call.call == (service, operation) for call in record.calls)
        numbers = tuple(range(done + 1, done + 1 + TRIES))
        again = any(one.operation == operation for one in given)
        given.append(attrs.evolve(FAULTS["500"], service=service, operation=operation, numbers=numbers))
        if operation.startswith("create_") and not again:
            given[-1] = attrs.evolve(given[-1], kind="lost")
        serving.place.stage.faults.add(given[-1])
        with pytest.raises(CloudtuneError) as error:
            serving.deploy(image=None)
        kept, there = cloudtune.list(deployments=True), serving.deployments()
        assert len(there) <= len(kept)
        assert ("llama is kept" in str(error.value)) == bool(kept)
        count = len(made(serving))
        serving.deploy(image=None)
        assert len(made(serving)) == count + (not there)
        assert [one.id for one in serving.deployments()] == [cloudtune.list(deployments=True)[0].details["id"]]
        cloudtune.delete("llama")
        assert (serving.deployments(), cloudtune.list(deployments=True)) == ([], ())


def test_what_was_interrupted_is_gone_on_with_or_taken_down(serving: Serving) -> None:
    main = threading.main_thread().ident
    assert main is not None

    said: list[str] = []

    def interrupt(line: str) -> None:
        said.append(line)
        if line.startswith("deployment: "):
            signal.pthread_kill(main, signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            serving.deploy(progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert said[-1].startswith("the cloud goes on; llama is kept: deploy it again")
    (kept,) = cloudtune.list(deployments=True)
    assert cloudtune.verbs.deployment_state(kept) in ("starting", "running")
    with pytest.raises(UsageError, match="exists already"):
        serving.deploy(replicas=2)  # another one
    said.clear()
    assert serving.deploy(progress=said.append).details["id"] == kept.details["id"]
    assert said[0] == "llama has been begun: going on with it"
    with pytest.raises(UsageError, match="exists already"):
        serving.deploy()
    cloudtune.delete("llama", progress=said.append)
    assert "llama: active" in said
    assert (len(made(serving)), serving.deployments(), cloudtune.list(deployments=True)) == (1, [], ())


@pytest.mark.parametrize("after", ["deploy", "delete"])
def test_what_was_killed_is_found_again(after: str, serving: Serving) -> None:
    """Killed after the service has done what was asked, and before it says so."""
    stage = serving.place.stage
    tries: dict[str, Any] = {"operation": "create_model_deployment", "numbers": range(1, TRIES + 1)}
    stage.faults.add(faults.slow(SERVICE, seconds=2.0, **tries), faults.lost(SERVICE, **tries))
    words = ["deploy", "llama", "--to", "oci", "--shape", SHAPE, "--image", IMAGE]
    environ = {**os.environ, **serving.place.environ}
    process = subprocess.Popen([sys.executable, "-m", "cloudtune", *words], env=environ, stderr=subprocess.PIPE)
    until_s = time.monotonic() + 120
    while not serving.deployments():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until_s
        time.sleep(0.01)
    process.kill()
    process.communicate()
    (kept,) = cloudtune.list(deployments=True)
    assert (kept.details["id"], bool(kept.details["mark"])) == ("", True)
    assert cloudtune.verbs.deployment_state(kept) in ("starting", "running")
    if after == "deploy":
        serving.deploy()
        assert [one.id for one in serving.deployments()] == [cloudtune.list(deployments=True)[0].details["id"]]
    cloudtune.delete("llama")
    assert (len(made(serving)), serving.deployments(), cloudtune.list(deployments=True)) == (1, [], ())


def made(serving: Serving) -> list[Any]:
    """Return all deployments that there ever were."""
    return list(serving.client.list_model_deployments(serving.place.compartment).data)
