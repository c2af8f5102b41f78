"""The plan of a local run: what it says before anything runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from cloudtune import jobs
from cloudtune.backends.local import LocalBackend
from cloudtune.errors import SpecError
from cloudtune.plan import shown
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime


def job(python: str | None, command: str = "true") -> JobSpec:
    return JobSpec(infrastructure=LocalJob(python=python), runtime=PyTorchDistributedRuntime(command=command))


def staged(python: str | None) -> dict[str, Any]:
    found: dict[str, Any] = shown(LocalBackend().plan(job(python), "abcdefgh").steps[0].parameters)
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which is the home too and holds a virtual environment's link to this Python."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("named", ["./venv/bin/python", "venv/bin/python", "~/venv/bin/python"])
def test_the_python_of_the_nodes_is_found_from_here(named: str, here: Path) -> None:
    assert staged(named)["python"] == str(here / "venv" / "bin" / "python")


def test_a_bare_name_is_looked_for_on_the_path(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{here / 'venv' / 'bin'}{os.pathsep}/nowhere")
    assert staged("python")["python"] == str(here / "venv" / "bin" / "python")
    assert staged(None)["python"] is None
    with pytest.raises(SpecError, match=r"there is no program \./python"):
        staged("./python")


@pytest.mark.parametrize("named", ["./gone/bin/python", "no-such-python", "~/venv", "./plain"])
def test_a_python_that_is_none_is_a_fault_of_its_key(named: str, here: Path) -> None:
    (here / "plain").write_text("no program")
    with pytest.raises(SpecError, match=rf"spec\.infrastructure\.spec\.python: there is no program {named}"):
        staged(named)


def test_a_run_uses_the_relative_python(here: Path) -> None:
    run = jobs.start(job("./venv/bin/python", 'python -c "print(6 * 7)"'))
    assert run.wait(60).state == "succeeded"
    assert "42" in [line.text for line in run.lines()]


def test_a_job_has_eight_seconds_to_save() -> None:
    assert staged(None)["order"]["graceInSeconds"] == 8


def test_relative_inputs_are_looked_for_from_here(here: Path) -> None:
    inputs = {"rows/a.jsonl": "a", "/there/b": "b", "s3://bucket/c": "c", "$WHERE/d": "d", "~/e": "e"}
    runtime = PyTorchDistributedRuntime(command="true", inputs=inputs)
    planned = LocalBackend().plan(JobSpec(infrastructure=LocalJob(), runtime=runtime), "abcdefgh")
    order = shown(planned.steps[0].parameters)["order"]
    assert order["inputs"] == {f"{here}/rows/a.jsonl": "a", **{uri: to for uri, to in inputs.items() if to != "a"}}
