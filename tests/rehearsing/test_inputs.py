"""What the user has to put into a rehearsed cloud: what is read there and not written by the spec itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtune import pipelines
from cloudtune.rehearsal.oci.ocids import new_ocid
from cloudtune.rehearsing.adapting import filled_in
from cloudtune.rehearsing.inputs import needed
from cloudtune.spec.document import load
from cloudtune.spec.job import PipelineSpec

EXAMPLES = Path(pipelines.__file__).parent / "examples"
JOB = """
kind: job
spec:
  name: tune
  infrastructure:
    type: sageMakerTrainingJob
    spec: {region: us-west-2, inputs: [{channel: rows, uri: "s3://bucket/rows"}]}
  runtime:
    type: pyTorchDistributed
    spec: {command: torchrun a.py, inputs: {"s3://bucket/base": base, "https://example.com/a": a}}
"""


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        ("oci-llama2-lora", {"oci://your-bucket@your-namespace/dialogues/": "step train"}),
        ("sagemaker-llama3-qlora-bedrock", {}),
        ("sagemaker-trainium-tinyllama", {}),
    ],
)
def test_what_an_example_reads_and_does_not_write(example: str, expected: dict[str, str]) -> None:
    spec, _ = filled_in(load(EXAMPLES / example / "pipeline.yaml"), new_ocid)
    assert isinstance(spec, PipelineSpec)
    assert needed(spec, pipelines.plan_pipeline(spec, "abcdefgh").outputs) == expected


def test_a_job_needs_its_inputs_and_channels() -> None:
    assert needed(load(JOB), ["s3://bucket"]) == {"s3://bucket/base": "tune", "s3://bucket/rows": "tune"}


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ((), ["s3://b/base", "s3://b/adapter", "s3://b/second"]),
        (("s3://b/adapter/", "s3://b/second/of"), ["s3://b/base"]),
        (("s3://b/ba",), ["s3://b/base", "s3://b/adapter", "s3://b/second"]),
        (("s3://b",), []),
    ],
)
def test_what_an_earlier_step_writes_is_not_needed(written: tuple[str, ...], left: list[str]) -> None:
    merge = "{base: 's3://b/base', adapter: ['s3://b/adapter', 's3://b/second', '${steps.x.outputs}'], output: out}"
    steps = f"[{{name: x, check: {{model: m}}}}, {{name: whole, needs: [x], merge: {merge}}}]"
    spec = load(f"kind: pipeline\nspec:\n  name: p\n  steps: {steps}\n")
    assert needed(spec, written) == dict.fromkeys(left, "step whole")
