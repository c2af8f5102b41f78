"""The contract suite on a place with three steps, and the proof that submissions survive being killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtune import backends, jobs, runs
from cloudtune.errors import ServiceError
from cloudtune.spec import infrastructure
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.states import Handle
from cloudtune.store import Store
from tests.contract.standin import StandinBackend, StandinJob
from tests.contract.suite import BackendContract, Place

ROOT = Path(__file__).resolve().parents[2]
STEPS = ("bucket", "job", "run")


@pytest.fixture(autouse=True)
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "standin"
    place.mkdir()
    monkeypatch.setenv("STANDIN_FOLDER", str(place))
    monkeypatch.setitem(backends.BACKENDS, "standin", backends.Row("standin", "tests.contract.standin:StandinBackend"))
    monkeypatch.setitem(infrastructure.INFRASTRUCTURES, "standin", StandinJob)
    return place


def job() -> JobSpec:
    return JobSpec(name="three", infrastructure=StandinJob(), runtime=PyTorchDistributedRuntime(command="true"))


class TestStandin(BackendContract):
    @pytest.fixture
    def place(self, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Place:
        ends = {"test_failure_names_the_replica": "failed", "test_cancel_ends_the_run": "running"}
        monkeypatch.setenv("STANDIN_END", ends.get(request.node.originalname, "succeeded"))
        return Place(backend=StandinBackend(), good=job(), bad=job(), long=job(), talkative=job())

    @pytest.fixture
    def foreign(self) -> Callable[[Handle], str]:
        return lambda handle: handle.id


def service(place: Path) -> dict[str, list[str]]:
    data = json.loads((place / "service.json").read_text())
    kinds: dict[str, list[str]] = {}
    for thing in data["things"].values():
        kinds.setdefault(thing["kind"], []).append(thing["id"])
    return kinds


SUBMIT = """
import sys
from tests.contract import test_standin as t
t.backends.BACKENDS["standin"] = t.backends.Row("standin", "tests.contract.standin:StandinBackend")
t.infrastructure.INFRASTRUCTURES["standin"] = t.StandinJob
run = t.jobs.resume(sys.argv[1]) if len(sys.argv) > 1 else t.jobs.start(t.job(), run_id="abcdefgh")
print(run.id)
"""


def process(faults: list[list[str]], *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STANDIN_FAULTS": json.dumps(faults), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", SUBMIT, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_around_a_step_then_resumed(moment: str, step: str, standin: Path) -> None:
    killed = process([[moment, step]])
    assert killed.returncode == -9, killed.stderr
    record = Store().run("abcdefgh")
    assert record.state == "pending"
    assert record.handle is None

    resumed = process([[moment, step]], "abcdefgh")
    assert resumed.returncode == 0, resumed.stderr
    assert {kind: len(things) for kind, things in service(standin).items()} == {"bucket": 1, "job": 1, "run": 1}
    assert runs.get("abcdefgh").wait(20).state == "succeeded"
    # a third time there is nothing left to send
    before = (standin / "service.json").read_text().count('"create_')
    assert "nothing to continue" in process([], "abcdefgh").stderr
    assert (standin / "service.json").read_text().count('"create_') == before


@pytest.mark.parametrize("step", STEPS)
def test_a_lost_reply_is_asked_for_again(step: str, standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_FAULTS", json.dumps([["lost", step]]))
    with pytest.raises(ServiceError) as caught:
        jobs.start(job(), run_id="abcdefgh")
    assert "--resume abcdefgh" in str(caught.value)
    assert Store().run("abcdefgh").state == "pending"
    jobs.resume("abcdefgh")
    assert {kind: len(things) for kind, things in service(standin).items()} == {"bucket": 1, "job": 1, "run": 1}


@pytest.mark.parametrize("step", STEPS)
def test_a_refused_step_takes_back_the_steps_before_it(
    step: str, standin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_FAULTS", json.dumps([["refused", step]]))
    with pytest.raises(ServiceError):
        jobs.start(job(), run_id="abcdefgh")
    record = Store().run("abcdefgh")
    assert record.state == "failed"
    assert "not submitted" in (record.reason or "")
    assert not (standin / "service.json").exists() or service(standin) == {}


def test_a_text_that_looks_like_a_reference_stays_text(standin: Path) -> None:
    jobs.start(job(), run_id="abcdefgh")
    things = json.loads((standin / "service.json").read_text())["things"].values()
    got = next(thing["got"] for thing in things if thing["kind"] == "job")
    assert got["looksLikeRef"] == "${bucket.id}"
    assert got["bucket"].startswith("standin-bucket-")
