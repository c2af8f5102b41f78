"""The verb, as a function and on the command line."""

from __future__ import annotations

import json

import pytest
import yaml

import cloudtune
from cloudtune.diagnosis.findings import STATUSES
from tests.cli.calling import call
from tests.diagnosis.test_document import job

GENERAL = ["python", "packages", "home", "disk", "git", "torch", "credentials"]


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """Be somebody without credentials, who asks no Hub."""
    for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "nobody"))
    for name in ("HF_TOKEN", "KUBECONFIG", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_without_a_file_this_machine_is_looked_at():
    report = cloudtune.doctor()
    assert list(dict.fromkeys(one.check for one in report.findings)) == GENERAL
    assert report.ok, report.of("problem")


def test_a_good_job_here_ends_with_0(tmp_path):
    answer = call("doctor", "-f", str(job(tmp_path)))
    assert answer.code == 0, answer.out
    rows = [line.split("\t") for line in answer.out.splitlines()]
    assert rows[0] == ["status", "check", "where", "finding", "what to do"]
    assert {row[0] for row in rows[1:]} <= set(STATUSES) - {"problem"}
    assert rows[1][:4] == ["ok", "job", "", "j on local can be planned: 2 steps, 1 x 1 processes on CPU"]
    assert answer.err.startswith("ok: ")


def test_a_problem_ends_with_1_and_is_told_in_every_form(tmp_path):
    file = str(job(tmp_path, env={"TOKEN": "<your token>"}))
    answer = call("doctor", "-f", file)
    assert answer.code == 1
    assert answer.err.startswith("not ok: 1 problem")
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        answer = call("doctor", "-f", file, "-o", form)
        data = read(answer.out)
        assert (answer.code, answer.err, data["ok"], data["counts"]["problem"]) == (1, "", False, 1)
        (problem,) = [one for one in data["findings"] if one["status"] == "problem"]
        assert problem["where"] == "spec.runtime.spec.env[0].value"


def test_a_file_that_is_no_job_is_a_problem_and_the_machine_is_looked_at_all_the_same(tmp_path):
    (tmp_path / "job.yaml").write_text("kind: jobb\n")
    answer = call("doctor", "-f", str(tmp_path / "job.yaml"), "-o", "json")
    findings = json.loads(answer.out)["findings"]
    assert answer.code == 1
    assert findings[0]["check"] == "job"
    assert [check for check in dict.fromkeys(one["check"] for one in findings) if check != "job"] == GENERAL


def test_the_same_job_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    place = {"kind": "infrastructure", "type": "eksJob", "spec": {"context": "c", "instanceType": "p5.48xlarge"}}
    (tmp_path / "eks.yaml").write_text(json.dumps(place))
    report = cloudtune.doctor(job(tmp_path), infrastructure=str(tmp_path / "eks.yaml"), set=["spec.name=other"])
    assert any("other on eks can be planned" in one.message for one in report.of("ok"))
    (found,) = [one for one in report.findings if one.check in {"cluster", "eksJob"}]
    assert found.status == "problem"
    assert found.hint


@pytest.mark.parametrize(
    ("runtime", "place", "said"),
    [
        ({"env": [{"name": "A", "secret": "env:NOT_SET_HERE"}]}, {}, "comes from the variable NOT_SET_HERE"),
        ({"processesPerNode": 64}, {"accelerator": {"name": "H100", "count": 64}}, "64 x H100 are wanted, and "),
    ],
)
def test_jobs_here_need_what_this_machine_has(tmp_path, runtime, place, said):
    report = cloudtune.doctor(job(tmp_path, place=("local", place), **runtime))
    (problem,) = report.of("problem")
    assert said in problem.message
    assert problem.hint


def test_recipes_need_their_packages(tmp_path, monkeypatch):
    from cloudtune.diagnosis import local

    spec = {"recipe": {"name": "sft", "args": {"model": "Qwen/Qwen3-0.6B", "dataset": "data", "method": "lora"}}}
    file = tmp_path / "job.json"
    runtime = {"kind": "runtime", "type": "pyTorchDistributed", "spec": spec}
    file.write_text(json.dumps({"kind": "job", "spec": {"name": "j", "runtime": runtime}}))
    monkeypatch.setattr(local, "lacking", lambda _: ["peft", "trl"])
    (problem,) = [one for one in cloudtune.doctor(file).findings if one.check == "local" and one.status != "ok"]
    assert problem.message.startswith("recipes need peft, trl, which ")
    monkeypatch.setattr(local, "lacking", lambda _: [])
    (ok,) = [one for one in cloudtune.doctor(file).findings if one.check == "local"]
    assert ok.status == "ok"
