"""The JSON Schema: fresh, and in step with the reader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from cloudtune.errors import SpecError
from cloudtune.spec.document import load, to_dict
from cloudtune.spec.fields import keys_of
from cloudtune.spec.infrastructure import INFRASTRUCTURES
from cloudtune.spec.job import JobSpec, PipelineSpec
from cloudtune.spec.runtimes import RUNTIMES
from cloudtune.spec.schema import schema
from tests.spec.test_faults import RUN, STRICT, job
from tests.strategies import jobs, pipelines

SPECS = Path(__file__).resolve().parents[2] / "specs"
VALIDATOR = Draft202012Validator(schema())


def is_valid(data: Any) -> bool:
    """Tell whether plain data is valid by the schema."""
    return not list(VALIDATOR.iter_errors(data))


def test_it_is_a_schema_and_the_file_is_fresh() -> None:
    Draft202012Validator.check_schema(schema())
    done = subprocess.run([sys.executable, "-m", "cloudtune.spec.schema"], capture_output=True, check=True)
    written = (SPECS / "job.schema.json").read_bytes()
    assert done.stdout.replace(b"\r\n", b"\n") == written, "python -m cloudtune.spec.schema > specs/job.schema.json"
    assert json.loads(written) == schema()


def test_every_key_of_every_type_is_described() -> None:
    definitions = schema()["$defs"]
    for cls in (*INFRASTRUCTURES.values(), *RUNTIMES.values()):
        properties = definitions[cls.__name__]["properties"]
        for key in keys_of(cls):
            assert properties[key.word]["description"] == key.doc != ""
        assert definitions[cls.__name__]["additionalProperties"] is False
    assert definitions["infrastructure"]["properties"]["type"]["enum"] == list(INFRASTRUCTURES)
    assert definitions["runtime"]["properties"]["type"]["enum"] == list(RUNTIMES)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(jobs())
def test_any_job_is_valid(value: JobSpec) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(to_dict(value))] == []


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(pipelines())
def test_any_pipeline_is_valid(value: PipelineSpec) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(to_dict(value))] == []


def test_the_ready_specs_are_valid() -> None:
    for file in sorted(SPECS.rglob("*.yaml")):
        assert is_valid(yaml.safe_load(file.read_text())), file


def test_schema_and_reader_agree_about_the_oracles(shared: Path) -> None:
    files = sorted((shared / "oracle" / "oci").glob("*/job.yaml"))
    assert files
    for file in files:
        try:
            load(file)
            read = True
        except SpecError:
            read = False
        assert is_valid(yaml.safe_load(file.read_text())) == read, file


#: What the schema leaves to the reader: characters, two spellings of one key, and 2.0, which JSON calls an integer.
LEFT = ('outputUri: "a\\0b"', "outputURI: a\noutputUri: b", "replicas: 2.0")


@pytest.mark.parametrize("keys", [keys for keys, _, _ in STRICT if keys not in LEFT])
def test_what_the_reader_refuses_by_its_type_the_schema_refuses(keys: str) -> None:
    text = job(
        keys if "command" in keys or "recipe" in keys else f"command: torchrun x\n{keys}", kind="pyTorchDistributed"
    )
    data = yaml.load(text, Loader=yaml.BaseLoader) if keys == "deepspeed: yes" else yaml.safe_load(text)
    assert not is_valid(data)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "kind: job",
        "kind: job\nspec: {name: x}",
        "kind: job\nspec: {runtime: }",
        "kind: jobs\nspec: {runtime: {type: python}}",
        "kind: job\nspec: {runtime: {type: nope}}",
        "kind: job\nspec: {runtime: {spec: {}}}",
        "kind: job\nspec: {runtime: {type: python, replicas: 2}}",
        "kind: job\nspec: {runtime: {type: python, spec: {image: x}}}",
        "kind: job\nspec: {runtime: {kind: infrastructure, type: python}}",
        "kind: job\nspec: {infrastructure: {type: eksJob, spec: {volumes: [{claim: a}]}}, runtime: {type: container}}",
        "kind: pipeline\nspec: {steps: []}",
        "kind: pipeline\nspec: {runtime: {type: python}}",
        "kind: pipeline\nspec: {steps: [{name: a}]}",
        "kind: pipeline\nspec: {steps: [{name: a, prepare: {}, check: {model: m}}]}",
        "kind: pipeline\nspec: {steps: [{prepare: {}}]}",
        "kind: pipeline\nspec: {steps: [{name: a, check: {}}]}",
        "kind: pipeline\nspec: {steps: [{name: a, check: {model: m, to: x}}]}",
        f"kind: pipeline\nspec: {{steps: [{{name: a, {RUN}, extra: 1}}]}}",
    ],
)
def test_documents_of_the_wrong_form_are_invalid_in_both(text: str) -> None:
    assert not is_valid(yaml.safe_load(text))
    with pytest.raises(SpecError):
        load(text + "\n")


@pytest.mark.parametrize(
    "text",
    [
        "kind: job\nname: x\nspec: {runtime: {type: python, spec: {scriptPathURI: a, replicas: , env: {A: 1, B: }}}}",
        "kind: job\nspec: {infrastructure: , runtime: {type: python, spec: {scriptPathURI: a, env: [A, {name: B, value: [1]}]}}}",
        f"kind: pipeline\nspec: {{steps: [{{name: a, {RUN}}}, {{name: b, prepare: , infrastructure: {{type: local}}}}]}}",
    ],
)
def test_documents_that_are_valid_in_both(text: str) -> None:
    assert is_valid(yaml.safe_load(text))
    load(text + "\n")
