"""From YAML to values and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtune.errors import SpecError
from cloudtune.spec.checks import findings_of
from cloudtune.spec.document import checked, dumps, from_dict, load, to_dict
from cloudtune.spec.infrastructure import INFRASTRUCTURES, DataScienceJob, LocalJob, SageMakerTrainingJob
from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.runtimes import RUNTIMES, PythonRuntime, PyTorchDistributedRuntime
from tests.strategies import infrastructures, jobs, pipelines, runtimes

SPECS = Path(__file__).resolve().parents[2] / "specs"
SLOW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.mark.parametrize("kind", list(RUNTIMES))
def test_any_runtime_survives_the_round_trip(kind: str) -> None:
    @SLOW
    @given(runtimes(kind))
    def round_trip(runtime: Any) -> None:
        job = JobSpec(name="x", runtime=runtime)
        assert list(findings_of(job)) == []
        assert load(dumps(job)) == job
        assert dumps(load(dumps(job))) == dumps(job)

    round_trip()


@pytest.mark.parametrize("kind", list(INFRASTRUCTURES))
def test_any_infrastructure_survives_the_round_trip(kind: str) -> None:
    @SLOW
    @given(infrastructures(kind))
    def round_trip(place: Any) -> None:
        job = JobSpec(infrastructure=place, runtime=PythonRuntime(script_path_uri="a.py"))
        assert load(dumps(job)) == job

    round_trip()


@SLOW
@given(jobs())
def test_any_job_survives_the_round_trip(job: JobSpec) -> None:
    assert load(dumps(job)) == job
    assert from_dict(to_dict(job)) == job
    assert checked(job) == job


@SLOW
@given(pipelines())
def test_any_pipeline_survives_the_round_trip(pipeline: PipelineSpec) -> None:
    assert load(dumps(pipeline)) == pipeline
    assert checked(pipeline) == pipeline


@SLOW
@given(jobs())
def test_other_readers_of_yaml_read_the_same_text(job: JobSpec) -> None:
    """What is written is quoted so that a YAML 1.1 reader, ADS's above all, sees the same data."""
    assert yaml.safe_load(dumps(job)) == to_dict(job)


def test_the_dialect_is_written_with_what_differs_only() -> None:
    job = JobSpec(
        name="ft",
        infrastructure=DataScienceJob(shape_name="VM.GPU.A10.2", block_storage_size=256),
        runtime=PyTorchDistributedRuntime(
            command="torchrun train.py\n--epochs 3\n", replicas=2, env={"A": "on"}, conda={"slug": "pytorch20"}
        ),
    )
    assert dumps(job) == (
        "kind: job\napiVersion: v1.0\nspec:\n  name: ft\n"
        "  infrastructure:\n    kind: infrastructure\n    type: dataScienceJob\n    spec:\n"
        "      shapeName: VM.GPU.A10.2\n      blockStorageSize: 256\n"
        "  runtime:\n    kind: runtime\n    type: pyTorchDistributed\n    spec:\n"
        "      env:\n      - name: A\n        value: 'on'\n      replicas: 2\n"
        "      conda:\n        type: service\n        slug: pytorch20\n"
        "      command: |\n        torchrun train.py\n        --epochs 3\n"
    )


def test_env_is_a_list_or_a_mapping() -> None:
    head = "kind: job\nspec:\n  runtime:\n    type: python\n    spec:\n      scriptPathURI: a.py\n      env:\n"
    listed = head + (
        "      - {name: A, value: text}\n      - {name: B, value: 1.10}\n      - {name: C, value: true}\n"
        "      - {name: D, value: null}\n      - {name: E, value: [1, a]}\n      - {name: F, secret: env:X}\n"
        "      - {name: G}\n      - H\n      - {name: I, value: yes}\n      - {name: J, value: 010}\n"
    )
    found = {v.name: (v.value, v.secret) for v in load(listed).runtime.env}
    assert found == {
        "A": ("text", None),
        "B": ("1.10", None),
        "C": ("true", None),
        "D": ("", None),
        "E": ('[1, "a"]', None),
        "F": (None, "env:X"),
        "G": (None, None),
        "H": (None, None),
        "I": ("yes", None),
        "J": ("010", None),
    }
    mapped = (
        head
        + "        A: text\n        C: true\n        D:\n        F: {secret: env:X}\n        M: {secret: a, b: 1}\n"
    )
    found = {v.name: (v.value, v.secret) for v in load(mapped).runtime.env}
    assert found == {
        "A": ("text", None),
        "C": ("true", None),
        "D": ("", None),
        "F": (None, "env:X"),
        "M": ('{"secret": "a", "b": 1}', None),
    }


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("TRUE", True),
        ("1e-5", 1e-5),
        ("12:30:00", "12:30:00"),
        ("2024-05-01", "2024-05-01"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("0x10", 16),
        ("0o17", 15),
        (".5", 0.5),
        (".inf", ".inf"),
        ("1e999", "1e999"),
        ("9" * 70, "9" * 70),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("2.0", 2.0),
        ("-7", -7),
    ],
)
def test_plain_scalars_mean_what_they_say(scalar: str, value: Any) -> None:
    text = f"kind: job\nspec:\n  runtime: {{type: python, spec: {{recipe: {{name: sft, args: {{x: {scalar}}}}}}}}}\n"
    found = load(text).runtime.recipe.args["x"]
    assert found == value
    assert type(found) is type(value)


def test_names_of_ads_are_understood() -> None:
    job = load(
        "kind: job\nname: top\nspec:\n  runtime: {type: notebook, spec: {notebookPathURI: a.ipynb, outputURI: x}}\n"
    )
    assert job.name == "top"
    assert job.runtime.output_uri == "x"
    both = load("kind: job\nname: top\nspec: {name: inner, runtime: {type: python, spec: {scriptPathURI: a}}}\n")
    assert both.name == "inner"


def test_a_number_without_a_point_is_a_fine_float() -> None:
    text = "kind: job\nspec:\n  infrastructure: {type: dataScienceJob, spec: {shapeConfigDetails: {ocpus: 1}}}\n"
    text += "  runtime: {type: python, spec: {scriptPathURI: a}}\n"
    assert load(text).infrastructure.shape_config_details.ocpus == 1


def test_a_path_is_read_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    job = JobSpec(name="é", runtime=PythonRuntime(script_path_uri="a.py"))
    file.write_bytes(b"\xef\xbb\xbf" + dumps(job).encode())
    assert load(file) == job
    assert load(str(file)) == job
    assert load(dumps(job).replace("\n", "\r\n")) == job


def test_every_ready_spec_is_read() -> None:
    files = sorted(SPECS.rglob("*.yaml"))
    assert files
    for file in files:
        spec = load(file)
        assert load(dumps(spec)) == spec, file


def test_the_oracles_are_read(shared: Path) -> None:
    for file in sorted((shared / "oracle" / "oci").glob("*/job.yaml")):
        refused = file.parent / "deviation.json"
        if refused.exists() and '"exit": 2' in refused.read_text():
            with pytest.raises(SpecError):
                load(file)
        else:
            spec = load(file)
            assert load(dumps(spec)) == spec


def test_a_step_may_say_where_it_runs_in_its_job() -> None:
    text = (
        "kind: pipeline\nspec:\n  infrastructure: {type: eksJob, spec: {image: i}}\n  steps:\n"
        "  - name: a\n    job: {infrastructure: {type: local}, runtime: {type: python, spec: {scriptPathURI: a}}}\n"
        "  - name: b\n    job: {infrastructure: {type: dataScienceJob}, runtime: {type: python, spec: {scriptPathURI: a}}}\n"
        "  - name: c\n    job: {runtime: {type: container}, infrastructure: {type: eksJob, spec: {image: i}}}\n"
    )
    pipeline = load(text)
    assert pipeline.steps[0].infrastructure == LocalJob()
    assert pipeline.steps[1].job.infrastructure == DataScienceJob()
    assert load(dumps(pipeline)) == pipeline


def test_a_value_built_in_python_is_checked_like_yaml() -> None:
    place: Any = SageMakerTrainingJob(image="i", framework={"name": "pytorch"}, use_spot="yes", volume_size_in_gb=0)
    job = JobSpec(infrastructure=place, runtime=PyTorchDistributedRuntime(replicas="2"))
    with pytest.raises(SpecError) as caught:
        checked(job)
    assert {fault.path for fault in caught.value.faults} == {
        "spec.infrastructure.spec.framework",
        "spec.infrastructure.spec.useSpot",
        "spec.infrastructure.spec.volumeSizeInGB",
        "spec.runtime.spec.replicas",
        "spec.runtime.spec.command",
    }
    assert all(fault.line is None for fault in caught.value.faults)


def test_checking_keeps_the_class() -> None:
    @attrs.frozen(kw_only=True)
    class Mine(JobSpec):
        pass

    mine = Mine(runtime=PythonRuntime(script_path_uri="a"))
    assert type(checked(mine)) is Mine


def test_data_that_is_part_of_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(SpecError, match="deep"):
        PythonRuntime(defined_tags=loop)
    with pytest.raises(SpecError, match="deep"):
        from_dict(loop)
    with pytest.raises(SpecError, match="nothing that YAML can hold"):
        from_dict({"kind": "job", "spec": {"name": object()}})
    with pytest.raises(SpecError, match="no text"):
        from_dict({5: "job"})  # type: ignore[dict-item]


def test_plain_data_has_the_same_faults_without_lines() -> None:
    place = {"type": "local"}
    run = {"type": "python", "spec": {"scriptPathURI": "a", "outputURI": "x", "outputUri": "y", "replicas": "2"}}
    steps = [
        {"name": "a", "infrastructure": place, "job": {"infrastructure": place, "runtime": run}, "merge": {}},
        {"name": "b", "chek": {}, "bogus": 1},
        {"name": "c", "check": {"modle": "x", "for": 5}},
    ]
    with pytest.raises(SpecError) as caught:
        from_dict({"kind": "pipeline", "spec": {"steps": steps}, "extra": 1})
    assert sorted(fault.path for fault in caught.value.faults) == [
        "extra",
        "spec.steps[0].job.infrastructure",
        "spec.steps[0].job.runtime.spec.outputUri",
        "spec.steps[0].job.runtime.spec.replicas",
        "spec.steps[0].merge",
        "spec.steps[1].bogus",
        "spec.steps[1].chek",
        "spec.steps[2].check.for",
        "spec.steps[2].check.modle",
    ]
    assert {(fault.file, fault.line) for fault in caught.value.faults} == {(None, None)}


@pytest.mark.parametrize("source", ["", "\n", "---\n", "# only a comment\n", "null\n"])
def test_an_empty_document_is_one_fault(source: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(source)
    assert len(caught.value.faults) <= 3


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "nul").write_bytes(b"kind: job\x00\n")
    (tmp_path / "large").write_bytes(b"# " + b"x" * (1 << 20))
    (tmp_path / "utf16").write_bytes("kind: job".encode("utf-16"))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "job.yaml").write_text("kind: job")
    for name, message in {
        "binary": "UTF-8",
        "nul": "binary",
        "large": "larger",
        "utf16": "UTF-8",
        "empty": "empty",
        "missing": "no such file",
        "jobs.yaml": "did you mean .*job.yaml",
        "": "folder",
        "job.yaml/x": "cannot be read",
    }.items():
        with pytest.raises(SpecError, match=message) as caught:
            load(tmp_path / name)
        assert len(caught.value.faults) == 1
        assert caught.value.exit_code == 2
        assert str(tmp_path)[:20] in str(caught.value)


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("kind: job")
    file.chmod(0)
    with pytest.raises(SpecError, match="may not be read"):
        load(file)


@pytest.mark.parametrize("source", ["job.yaml", "s3://bucket/job.yaml", "C:\\jobs\\job.yaml", "a" * 5000])
def test_a_name_that_is_no_file_is_no_text(source: str) -> None:
    with pytest.raises(SpecError, match=r"no such file|cannot be read"):
        load(source)


@st.composite
def _deep(draw: st.DrawFn) -> str:
    opening = draw(st.sampled_from(["[", "{a: ", "- ", "? ", "[[", "{", "a:\n ", '"a": [']))
    return opening * draw(st.integers(70, 30_000))


@settings(max_examples=25, deadline=None)
@given(_deep())
def test_deep_text_is_refused_without_recursion(text: str) -> None:
    with pytest.raises(SpecError):
        load(text + "\n")


def test_steps_hold_jobs_and_verbs() -> None:
    pipeline = PipelineSpec(
        steps=(
            PipelineStep(name="a", job=JobSpec(runtime=PythonRuntime(script_path_uri="a.py"))),
            PipelineStep(name="b", verb="merge", options={"base": "x", "adapter": "${steps.a.outputs}"}),
            PipelineStep(name="c", verb="prepare"),
        )
    )
    assert to_dict(pipeline)["spec"]["steps"] == [
        {
            "name": "a",
            "job": {"runtime": {"kind": "runtime", "type": "python", "spec": {"scriptPathURI": "a.py"}}},
        },
        {"name": "b", "merge": {"base": "x", "adapter": "${steps.a.outputs}"}},
        {"name": "c", "prepare": {}},
    ]
    assert load(dumps(pipeline)) == pipeline
