"""Deployments as they are recorded: names, two at once, what fails on the way, what is left at the end."""

from __future__ import annotations

import itertools
import secrets
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

from cloudtune import deployments
from cloudtune.deployments import local
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.store import Deployment, Store
from tests.processes import eventually, running


class Sleeper:
    """A place whose servers are sleeping processes; it may be told to wait, or to break."""

    started: ClassVar[list[local.LocalDeployment]] = []
    hurdle: ClassVar[Any] = None

    def __getattr__(self, name: str) -> Any:
        return getattr(local, name)

    def reserve(self, model_dir: Path, *, name: str, directory: Path) -> local.LocalDeployment:
        mark = f"serve-{secrets.token_hex(6)}"
        return local.LocalDeployment(
            name=name, url="", model=str(model_dir), mark=mark, pid=0, log=str(directory / "log")
        )

    def deploy(self, reserved: local.LocalDeployment, *, progress: Any = None) -> local.LocalDeployment:
        Path(reserved.log).parent.mkdir(parents=True, exist_ok=True)
        code = "import time; time.sleep(600)"
        process = subprocess.Popen(
            [sys.executable, "-c", code, reserved.mark], env={"CLOUDTUNE_RUN_ID": reserved.mark}, start_new_session=True
        )
        process.returncode = 0
        served = attrs.evolve(reserved, url="http://127.0.0.1:1", pid=process.pid)
        self.started.append(served)
        if self.hurdle is not None:
            self.hurdle(served)
        return served


@pytest.fixture
def place(monkeypatch):
    sleeper = Sleeper()
    monkeypatch.setattr(deployments, "_place", lambda to: sleeper)
    monkeypatch.setattr(Sleeper, "started", [])
    yield sleeper
    for served in sleeper.started:
        local.stop(served)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return str(folder)


def put_up(model, name="twin", store=None, **options):
    return deployments.put_up(model, to="local", name=name, shape=None, store=store or Store(), **options)


def alive(place):
    return [served for served in place.started if running(served.mark)]


def test_a_deployment_lives_and_goes_with_its_folder(place, model, home):
    deployment = put_up(model)
    assert Store().deployments("twin") == (deployment,)
    assert deployments.state_of(deployment) == "running"
    (home / "deployments" / "twin" / "huggingface").mkdir()
    deployments.take_down(deployment, Store())
    assert Store().deployments() == ()
    assert not (home / "deployments" / "twin").exists()
    assert alive(place) == []
    assert deployments.state_of(deployment) == "lost"


def test_two_of_one_name_at_once_leave_one_server(place, model, monkeypatch):
    together = threading.Barrier(2)
    add, calls = Store.add_deployment, itertools.count()

    def at_once(store, deployment):
        if next(calls) < 2:
            together.wait(30)  # both have looked, and found the name free
        add(store, deployment)

    monkeypatch.setattr(Store, "add_deployment", at_once)
    failed: list[CloudtuneError] = []

    def deploy() -> None:
        try:
            put_up(model)
        except CloudtuneError as error:
            failed.append(error)

    threads = [threading.Thread(target=deploy) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "exists already" in str(failed[0])
    (kept,) = Store().deployments()
    assert [served.mark for served in alive(place)] == [kept.details["mark"]]
    assert len(failed) == 1


def test_a_server_that_cannot_be_recorded_is_ended(place, model, monkeypatch):
    def full(served):
        def refuse(*_):
            raise CloudtuneError("the disk is full")

        monkeypatch.setattr(Store, "replace_deployment", refuse)

    monkeypatch.setattr(Sleeper, "hurdle", staticmethod(full))
    with pytest.raises(CloudtuneError, match="full"):
        put_up(model)
    assert len(place.started) == 1
    assert alive(place) == []


@pytest.mark.parametrize("error", [CloudtuneError("it ended"), KeyboardInterrupt(), SystemExit(143)])
def test_the_name_is_free_again_where_the_start_fails(error, place, model, monkeypatch):
    def fail(served):
        raise error

    monkeypatch.setattr(Sleeper, "hurdle", staticmethod(fail))
    with pytest.raises(type(error)):
        put_up(model)
    assert Store().deployments() == ()


def test_one_that_is_starting_is_listed_and_can_be_ended(place, model, monkeypatch):
    seen: dict[str, Any] = {}

    def look(served):
        (deployment,) = Store().deployments("twin")
        eventually(lambda: running(served.mark))
        seen["state"] = deployments.state_of(deployment)
        with pytest.raises(UsageError, match="does not answer yet"):
            deployments.ask(deployment, "hello")
        deployments.take_down(deployment, Store())
        seen["alive"] = running(served.mark)
        raise CloudtuneError("it was ended")

    monkeypatch.setattr(Sleeper, "hurdle", staticmethod(look))
    with pytest.raises(CloudtuneError, match="it was ended"):
        put_up(model)
    assert seen == {"state": "starting", "alive": []}


@pytest.mark.parametrize("name", ["a/b", "../x", ".hidden", "-x", "a b", "", "x:1"])
def test_names_that_are_no_folder_are_refused_before_anything(name, place, model, home, tmp_path):
    if name:
        with pytest.raises(UsageError, match="cannot be the name of a deployment"):
            put_up(model, name)
    else:
        odd = tmp_path / "my model"
        odd.mkdir()
        (odd / "config.json").write_text("{}")
        with pytest.raises(UsageError, match="'my model' cannot be the name"):
            put_up(str(odd), None)
    assert place.started == []
    assert not (home / "deployments").exists()


def test_a_record_of_a_strange_name_takes_no_folder_with_it(place, home):
    kept = home / "models"
    kept.mkdir(parents=True)
    details = attrs.asdict(place.reserve(Path("m"), name="x", directory=home))
    strange = Deployment(name="../models", backend="local", model="m", details=details)
    Store().add_deployment(strange)
    deployments.take_down(strange, Store())
    assert kept.is_dir()
    assert Store().deployments() == ()
