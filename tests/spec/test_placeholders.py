"""What somebody forgot to fill in is found, and what is meant as it stands is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudtune.errors import SpecError
from cloudtune.pipeline_steps import job_of
from cloudtune.spec.document import from_dict, load
from cloudtune.spec.infrastructure import EKSJob, MetricDefinition, SageMakerTrainingJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.placeholders import placeholders
from cloudtune.spec.runtimes import ContainerRuntime, PyTorchDistributedRuntime, Recipe

SPECS = sorted((Path(__file__).parents[2] / "specs").rglob("*.yaml"))


def found(job: JobSpec) -> list[str]:
    return [text for _, text in placeholders(job)]


def in_text(value: Any) -> list[str]:
    """Return everything in angle brackets, and every made-up OCID, below a document."""
    if isinstance(value, dict):
        return [text for item in (*value, *value.values()) for text in in_text(item)]
    if isinstance(value, list):
        return [text for item in value for text in in_text(item)]
    return re.findall(r"<[A-Za-z][^<>]*>|ocid1\.[a-z0-9.-]*x{4,}", value) if isinstance(value, str) else []


def runtime(**keys: Any) -> JobSpec:
    return JobSpec(name="j", runtime=PyTorchDistributedRuntime(**{"command": "true", **keys}))


@pytest.mark.parametrize("file", SPECS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_placeholder_of_the_specs_is_found(file: Path) -> None:
    spec, data = load(file), yaml.safe_load(file.read_text())
    if spec.kind == "job":
        assert sorted(found(spec)) == sorted(in_text(data))
        return
    for step, raw in zip(spec.steps, data["spec"]["steps"], strict=True):
        place = data["spec"].get("infrastructure") if "job" in raw and "infrastructure" not in raw else None
        assert set(found(job_of(spec, step, {}))) >= {*in_text(raw), *in_text(place)}


def test_every_placeholder_of_the_oracles_is_found(shared: Path) -> None:
    files = sorted((shared / "oracle" / "oci").glob("*/job.yaml"))
    seen = []
    for file in files:
        data = yaml.safe_load(file.read_text())
        try:
            job = from_dict(data)
        except SpecError:  # an oracle of a fault
            continue
        assert sorted(found(job)) == sorted(in_text(data)), file
        seen.append(file)
    assert len(seen) >= len(files) - 1


def test_the_words_of_the_guides_are_found_wherever_text_stands(shared: Path) -> None:
    words = set()
    for guide in (shared / "seeds").glob("*.md"):
        words |= set(re.findall(r"<(?:[a-z]+[ _-])+[a-z_ -]*[a-z]>", guide.read_text()))
    assert {
        "<your huggingface token>",
        "<access_token>",
        "<bucket-to-save-finetuned-weights>",
        "<subnet_ocid>",
    } <= words
    for word in words:
        assert found(runtime(env={"A": word})) == [word], word


@pytest.mark.parametrize(
    "text",
    ["<image>", "<s>", "</s>", "<|eot_id|>", "<start_of_turn>user", "<pad>", "<think>", "<tool_call>", "<br />", "a < b and c > d", "<extra_id_0>", "<3"],
)  # fmt: skip
def test_real_text_is_left_alone(text: str) -> None:
    assert (
        found(
            runtime(env={"PROMPT": text}, freeform_tags={"a": text}, recipe=Recipe(name="sft", args={"template": text}))
        )
        == []
    )


@pytest.mark.parametrize(
    "command",
    [
        "cat <in.txt >out.txt", "sort <your-list | tee >(wc)", "a <b>c", "<region>", "cat <<EOF >x\nEOF",
        ("sh", "-c", "cat <in.txt >out.txt"), ("sh", "-c", "a <in>out"),
    ],
)  # fmt: skip
def test_redirections_are_no_placeholders(command: Any) -> None:
    assert found(runtime(command=command)) == []
    words = (command,) if isinstance(command, str) else command
    assert found(runtime(args=words)) == []
    assert found(JobSpec(runtime=ContainerRuntime(image="i", cmd=words, entrypoint=words))) == []


@pytest.mark.parametrize(
    "command", ["login --token <your token>", ("sh", "-c", "x <insert_your_token_here>"), "run <replace with a path>"]
)
def test_an_address_to_the_reader_counts_in_a_command(command: Any) -> None:
    assert len(found(runtime(command=command))) == 1


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"env": {"HF_TOKEN": "<token>"}}, "spec.runtime.spec.env[0].value"),
        ({"env": {"A": {"secret": "<mine>"}}}, "spec.runtime.spec.env[0].secret"),
        ({"env": {"A": "oci://<place>/x"}}, "spec.runtime.spec.env[0].value"),
        ({"inputs": {"s3://<place>/x": "x"}}, "spec.runtime.spec.inputs.s3://<place>/x"),
        ({"inputs": {"https://a:b@<host>/x": "x"}}, "spec.runtime.spec.inputs.https://***@<host>/x"),
        ({"output_uri": "s3://b/<place>"}, "spec.runtime.spec.outputUri"),
        (
            {"recipe": {"name": "sft", "args": {"model": "<your model, or a folder>"}}},
            "spec.runtime.spec.recipe.args.model",
        ),
    ],
)
def test_where_a_placeholder_stands_is_said(keys: dict[str, Any], path: str) -> None:
    assert [where for where, _ in placeholders(runtime(**keys))] == [path]
    assert found(runtime(**keys, allow_placeholders=True)) == []


def test_a_place_has_no_other_text_in_brackets() -> None:
    regex = MetricDefinition(name="loss", regex="loss=(?P<loss>[0-9.]+) (?<your>x)")
    assert found(JobSpec(infrastructure=SageMakerTrainingJob(metric_definitions=(regex,)))) == []
    place = EKSJob(cluster="<mine>", overrides={"job": {"text": "<image>", "name": "<your name>"}})
    job = JobSpec(infrastructure=place, runtime=PyTorchDistributedRuntime(command="true", allow_placeholders=True))
    assert sorted(found(job)) == ["<mine>", "<your name>"]
