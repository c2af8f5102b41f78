"""Changes from the command line: --set, -e and --infrastructure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.errors import SpecError
from cloudtune.spec import profiles
from cloudtune.spec.document import dumps, load
from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.infrastructure import DataScienceJob, EKSJob, LocalJob
from tests.strategies import TRAPS

JOB = """\
kind: job
spec:
  name: ft
  infrastructure: {type: eksJob, spec: {image: i, volumes: [{claim: a, mountPath: /a}]}}
  runtime:
    type: pyTorchDistributed
    spec:
      command: torchrun train.py
      args: [a, b]
      env: [{name: A, value: '1'}, {name: B, value: '2'}]
"""
PIPELINE = """\
kind: pipeline
spec:
  steps:
  - {name: prepare, prepare: {model: tiny}}
  - name: train
    job: {runtime: {type: python, spec: {scriptPathURI: a.py, env: {A: '1'}}}}
  - {name: merge, merge: {base: x, adapter: y}}
"""


def value(spec: Any, dotted: str) -> Any:
    """Return an attribute of an attribute; numbers are indices."""
    for part in dotted.split("."):
        spec = spec[int(part)] if part.isdigit() else spec[part] if isinstance(spec, dict) else getattr(spec, part)
    return spec


@pytest.mark.parametrize(
    ("setting", "where", "expected"),
    [
        ("spec.runtime.spec.replicas=4", "runtime.replicas", 4),
        ("runtime.replicas=4", "runtime.replicas", 4),
        ("runtime.spec.replicas= 4", "runtime.replicas", 4),
        ("name=other", "name", "other"),
        ("name=5", "name", "5"),
        ("name=true", "name", "true"),
        ("spec.name=1.10", "name", "1.10"),
        ("name=a: b # c", "name", "a: b # c"),
        ("name=a=b", "name", "a=b"),
        ("name='5'", "name", "5"),
        ("name=", "name", None),
        ("runtime.deepspeed=true", "runtime.deepspeed", True),
        ("runtime.command=[torchrun, 'x y']", "runtime.command", ("torchrun", "x y")),
        ("runtime.command=torchrun --lr 1e-5 *.py", "runtime.command", "torchrun --lr 1e-5 *.py"),
        ("runtime.args=[x]", "runtime.args", ("x",)),
        ("runtime.args[1]=x", "runtime.args", ("a", "x")),
        ("runtime.args.0=7", "runtime.args", ("7", "b")),
        ("runtime.args[2]=c", "runtime.args", ("a", "b", "c")),
        ("runtime.pythonPath[0]=src", "runtime.python_path", ("src",)),
        ("runtime.outputLayout=shared", "runtime.output_layout", "shared"),
        ("runtime.conda.slug=x", "runtime.conda.slug", "x"),
        ('runtime.inputs["s3://b/a.txt"]=data', "runtime.inputs", {"s3://b/a.txt": "data"}),
        ("runtime.maximumRuntimeInMinutes=null", "runtime.maximum_runtime_in_minutes", None),
        ("infrastructure.namespace=ml", "infrastructure.namespace", "ml"),
        ("infrastructure.volumes[0].claim=z", "infrastructure.volumes.0.claim", "z"),
        ("infrastructure.podSpec={a: {b: [1, x]}}", "infrastructure.pod_spec", {"a": {"b": (1, "x")}}),
        ("infrastructure.overrides.job.x=1", "infrastructure.overrides", {"job": {"x": 1}}),
        ("infrastructure={type: local}", "infrastructure", LocalJob()),
    ],
)
def test_a_setting(setting: str, where: str, expected: Any) -> None:
    assert value(load(JOB, set=[setting]), where) == expected


@pytest.mark.parametrize(
    ("setting", "where", "expected"),
    [
        ("steps.train.runtime.replicas=3", "steps.1.job.runtime.replicas", 3),
        ("steps[1].job.runtime.replicas=3", "steps.1.job.runtime.replicas", 3),
        ("steps.1.job.runtime.spec.replicas=3", "steps.1.job.runtime.replicas", 3),
        ("steps.prepare.prepare.model=big", "steps.0.options", {"model": "big"}),
        ("steps.merge.infrastructure.type=eksJob", "steps.2.infrastructure", EKSJob()),
        ("infrastructure.type=eksJob", "infrastructure", EKSJob()),
    ],
)
def test_a_setting_of_a_pipeline(setting: str, where: str, expected: Any) -> None:
    assert value(load(PIPELINE, set=[setting]), where) == expected


def test_settings_are_applied_in_order() -> None:
    job = load(JOB, set=["runtime.replicas=2", "runtime.replicas=3", "infrastructure={type: local}", "name=x"])
    assert (job.runtime.replicas, job.infrastructure, job.name) == (3, LocalJob(), "x")


@pytest.mark.parametrize(
    ("setting", "path", "message"),
    [
        ("runtime.replicas", "", "no setting"),
        ("=4", "", "no setting"),
        ("", "", "no setting"),
        ("runtime..replicas=4", "", "no setting"),
        ("runtime.replicas=four", "spec.runtime.spec.replicas", "a whole number"),
        ("runtime.replicas='4'", "spec.runtime.spec.replicas", "a whole number"),
        ("runtime.replica=4", "spec.runtime.spec.replica", "unknown key"),
        ("runtme.replicas=4", "spec.runtme", "unknown key"),
        ("runtime.args[5]=x", "spec.runtime.spec.args[5]", "no such item"),
        ("runtime.env.A=x", "spec.runtime.spec.env.A", "no such item"),
        ("name.x=1", "spec.name.x", "no mapping"),
        ("runtime[0]=1", "spec.runtime.spec[0]", "no list"),
        ("runtime.args=[a", "", "no valid YAML"),
        ("runtime.command=", "spec.runtime.spec.command", "missing"),
        (".".join("a" * 80) + "=1", "", "no setting"),
    ],
)
def test_a_setting_that_cannot_be(setting: str, path: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(JOB, set=[setting])
    (fault,) = caught.value.faults
    assert message in fault.message
    assert fault.path == path
    assert str(fault.file).startswith("--set") or message == "missing"


def test_a_setting_of_an_unknown_step_gets_a_hint() -> None:
    with pytest.raises(SpecError, match="did you mean 'train'"):
        load(PIPELINE, set=["steps.trian.runtime.replicas=3"])


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=30)
    | st.tuples(st.sampled_from(["name", "runtime.args", "runtime.env"]), st.sampled_from(TRAPS)).map("=".join)
)
def test_any_setting_is_taken_or_refused(setting: str) -> None:
    try:
        job = load(JOB, set=[setting])
    except SpecError:
        return
    assert load(dumps(job)) == job


def test_variables_are_added_and_replaced() -> None:
    job = load(JOB, env=["B=x=y", "C=", "HOME", "D=${A}"])
    assert job.runtime.env == (
        EnvironmentVariable(name="A", value="1"),
        EnvironmentVariable(name="B", value="x=y"),
        EnvironmentVariable(name="C", value=""),
        EnvironmentVariable(name="HOME"),
        EnvironmentVariable(name="D", value="${A}"),
    )


def test_variables_go_to_every_job_of_a_pipeline() -> None:
    pipeline = load(PIPELINE, env=["A", "X=1"])
    assert pipeline.steps[1].job.runtime.env == (
        EnvironmentVariable(name="A"),
        EnvironmentVariable(name="X", value="1"),
    )
    assert pipeline.steps[0].job is None


@pytest.mark.parametrize("item", ["", "=x", " =x", "A B=1", "A=\udc80"])
def test_variables_that_cannot_be(item: str) -> None:
    with pytest.raises(SpecError):
        load(JOB, env=[item])


# --- profiles


def write(name: str, text: str) -> Path:
    folder = profiles.folder()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    return file


def test_a_profile_takes_the_place_of_the_infrastructure(tmp_path: Path) -> None:
    write("big.yaml", "kind: infrastructure\ntype: dataScienceJob\nspec: {shapeName: VM.GPU.A10.2}\n")
    write("small.yml", "{type: local}")
    write("notes.txt", "x")
    assert profiles.names() == ("big", "small")
    assert profiles.load("big") == DataScienceJob(shape_name="VM.GPU.A10.2")
    assert load(JOB, infrastructure="big").infrastructure == DataScienceJob(shape_name="VM.GPU.A10.2")
    assert load(PIPELINE, infrastructure="small").infrastructure == LocalJob()
    other = tmp_path / "other.yaml"
    other.write_text(dumps(EKSJob(cluster="c")))
    assert load(JOB, infrastructure=other).infrastructure == EKSJob(cluster="c")
    assert load(JOB, infrastructure=str(other)).infrastructure == EKSJob(cluster="c")
    whole = tmp_path / "job.yaml"
    whole.write_text(JOB)
    assert load(PIPELINE, infrastructure=whole).infrastructure == load(JOB).infrastructure


def test_local_needs_no_profile_but_may_have_one() -> None:
    assert load(JOB, infrastructure="local").infrastructure == LocalJob()
    assert profiles.load("local") == LocalJob()
    write("local.yaml", "type: local\nspec: {python: /usr/bin/python3}\n")
    assert profiles.load("local") == LocalJob(python="/usr/bin/python3")


def test_a_setting_goes_into_the_profile_given_after_it() -> None:
    write("big.yaml", "type: dataScienceJob\nspec: {shapeName: VM.GPU.A10.2}\n")
    job = load(JOB, infrastructure="big", set=["infrastructure.shapeName=VM.GPU.A10.1"])
    assert job.infrastructure == DataScienceJob(shape_name="VM.GPU.A10.1")


def test_faults_of_a_profile_stand_in_the_profile() -> None:
    file = write("bad.yaml", "kind: infrastructure\ntype: dataScienceJob\nspec:\n  shapename: x\n")
    for read in (lambda: profiles.load("bad"), lambda: load(JOB, infrastructure="bad")):
        with pytest.raises(SpecError) as caught:
            read()
        (fault,) = caught.value.faults
        assert (fault.file, fault.line, fault.column) == (str(file), 4, 3)
        assert fault.hint == "did you mean 'shapeName'?"


@pytest.mark.parametrize("text", ["", "[]", "type: nope", "5", "type: [a]", "kind: job\nspec: 5"])
def test_a_profile_that_holds_no_infrastructure(text: str) -> None:
    write("bad.yaml", text)
    with pytest.raises(SpecError):
        profiles.load("bad")


def test_an_unknown_profile_names_the_nearest_and_the_folder() -> None:
    write("production.yaml", "type: local")
    with pytest.raises(SpecError, match="did you mean 'production'") as caught:
        profiles.load("prodution")
    assert str(profiles.folder()) in str(caught.value)
    with pytest.raises(SpecError, match="known: production, local"):
        profiles.load("zzz")
    with pytest.raises(SpecError, match="no such file"):
        profiles.load("no/such/file.yaml")
    with pytest.raises(SpecError):
        profiles.load("../../etc/passwd\0")


def test_a_file_that_was_meant_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("gpus.yaml", "type: local")
    (tmp_path / "gpu.yaml").write_text("type: local")
    with pytest.raises(SpecError, match=r"no profile 'gpu' .*did you mean 'gpu\.yaml'\?"):
        profiles.load("gpu")
    assert profiles.load("gpu.yaml") == LocalJob()


def test_the_folder_is_the_users_config_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CLOUDTUNE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert profiles.folder().name == "cloudtune"
    assert profiles.names() == () or profiles.folder().is_dir()


def test_reading_a_job_imports_nothing_heavy(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(JOB)
    code = (
        "import sys\nfrom cloudtune.spec.document import load\n"
        f"load({str(file)!r}, set=['name=x'])\n"
        "print(sorted({'fsspec', 'rich', 'platformdirs', 'torch', 'click', 'boto3', 'oci', 'cattrs'} & set(sys.modules)))\n"
        "print([n for n in ('oci', 'sagemaker', 'programs') if f'cloudtune.spec.{n}' in sys.modules])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[]\n[]\n"
