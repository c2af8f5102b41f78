"""The plan beside what Oracle ADS sends for the same YAML; needs the recorded requests beside the checkout."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

from cloudtune import jobs
from cloudtune.errors import SpecError
from cloudtune.plan import Plan
from cloudtune.spec.document import load
from cloudtune.spec.job import JobSpec
from tests.conftest import SHARED

ORACLE = SHARED / "oracle" / "oci"
CASES = sorted(path.name for path in ORACLE.glob("*/")) if ORACLE.is_dir() else []
pytestmark = pytest.mark.skipif(not CASES, reason="the oracles are not beside this checkout (../shared)")

#: What cannot agree: this case's name was made by ADS from the file's name and the time.
GENERATED = {"52-python-published-conda-fixed": "create_job.displayName"}
#: Local files that the cases name.
FILES = (
    "custom_script.py",
    "local/path/to/training_script.py",
    "local/path/to/code_dir/my_package/my_script.py",
    "local/path/to/code_dir/my_package/my_script.sh",
    "path/to/artifact",
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in a folder with the files that the cases name."""
    for name in FILES:
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("print(1)\n")
    monkeypatch.chdir(tmp_path / "code")


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    """Return the tool that compares a plan with a case."""
    spec = importlib.util.spec_from_file_location("compare_oci", SHARED / "tools" / "compare_oci.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(case: str, name: str) -> Any:
    path = ORACLE / case / name
    return json.loads(path.read_text()) if path.exists() else None


def job_of(case: str) -> JobSpec:
    job = load(ORACLE / case / "job.yaml")
    assert isinstance(job, JobSpec)
    return job


def parameters(plan: Plan, operation: str) -> list[Any]:
    return [step["parameters"] for step in plan.to_dict()["steps"] if step["operation"] == operation]


def differences(compare: ModuleType, want: Any, have: Any, name: str) -> Iterator[str]:
    yield from compare.differences(compare.clean(want), compare.clean(have), name)


@pytest.mark.parametrize("case", CASES)
def test_the_job_agrees(case: str, compare: ModuleType) -> None:
    deviation = read(case, "deviation.json") or {}
    if deviation.get("exit") == 2:
        with pytest.raises(SpecError):
            jobs.plan_job(job_of(case))
        return
    plan = jobs.plan_job(job_of(case))
    want = {**read(case, "create_job.json"), **deviation.get("create_job", {})}
    (have,) = parameters(plan, "create_job")
    found = list(differences(compare, want, have, "create_job"))
    if case in GENERATED:
        assert [line.partition(":")[0] for line in found] == [GENERATED[case]]
    else:
        assert found == []
    assert len(parameters(plan, "create_job_run")) == len(read(case, "create_job_run.json"))


@pytest.mark.parametrize("case", [case for case in CASES if not (ORACLE / case / "deviation.json").exists()])
def test_the_run_belongs_to_the_same(case: str) -> None:
    plan = jobs.plan_job(job_of(case))
    for want, have in zip(read(case, "create_job_run.json"), parameters(plan, "create_job_run"), strict=True):
        told = {"compartmentId", "projectId", "freeformTags", "definedTags"}
        assert {key: have.get(key) for key in told} == {key: want.get(key) for key in told}


@pytest.mark.parametrize("case", [case for case in CASES if (ORACLE / case / "create_job.dtv1.json").exists()])
def test_the_older_form_agrees(case: str, compare: ModuleType) -> None:
    job = job_of(case)
    plan = jobs.plan_job(attrs.evolve(job, infrastructure=attrs.evolve(job.infrastructure, multi_node="jobRuns")))
    (have,) = parameters(plan, "create_job")
    assert list(differences(compare, read(case, "create_job.dtv1.json"), have, "create_job")) == []
    runs = parameters(plan, "create_job_run")
    wanted = read(case, "create_job_run.dtv1.json")
    assert len(runs) == len(wanted)
    if read(case, "run_kwargs.json") is not None:
        return  # these runs were given a name and variables of their own
    for want, have in zip(wanted, runs, strict=True):
        text = json.dumps(want).replace("ocid1.datasciencejob.oc1.iad.TESTJOB", "${job.id}")
        assert json.loads(text.replace("ocid1.datasciencejobrun.oc1.iad.TESTRUN0", "${run-0.id}")) == have
