"""What the user has to put into a rehearsed cloud: what is read there and not written by the spec itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtune import pipelines
from cloudtune.rehearsal.oci.ocids import new_ocid
from cloudtune.rehearsing.adapting import filled_in
from cloudtune.rehearsing.inputs import lacking, needed
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


MOUNTED = (
    '{type: eksJob, spec: {context: c, namespace: team-a, image: "i:1", instanceType: p5.48xlarge, volumes: ['
    "{claim: fsx-claim, mountPath: /fsx}, {claim: data, mountPath: /data, subPath: mine}, "
    "{emptyDir: 1Gi, mountPath: /fsx/scratch}]}}"
)
CHAIN = f"""
kind: pipeline
spec:
  name: chain
  infrastructure: {MOUNTED}
  steps:
    - name: train
      job:
        runtime:
          type: pyTorchDistributed
          spec:
            recipe: {{name: sft, args: {{model: /fsx/base, trainData: "file:///data/train.jsonl", outputDir: /fsx/out}}}}
            outputUri: file:///fsx/adapter
            inputs: {{/fsx/scratch/a: a, file:///fsx/more/: more}}
    - name: whole
      infrastructure: {MOUNTED}
      merge: {{base: /fsx/base2, adapter: /fsx/adapter/last, output: /fsx/whole}}
    - {{name: good, infrastructure: {MOUNTED}, check: {{model: /fsx/whole}}}}
    - {{name: here, check: {{model: /fsx/of/this/machine}}}}
"""


def test_what_is_read_from_a_claim_is_named_as_it_is_put_there() -> None:
    spec = load(CHAIN)
    assert isinstance(spec, PipelineSpec)
    assert needed(spec, pipelines.plan_pipeline(spec, "abcdefgh").outputs) == {
        "pvc://team-a/fsx-claim/base": "step train",
        "pvc://team-a/data/mine/train.jsonl": "step train",
        "pvc://team-a/fsx-claim/more": "step train",
        "pvc://team-a/fsx-claim/base2": "step whole",  # its adapter is written by train
    }


def test_it_is_not_known_what_commands_of_earlier_steps_write_to_a_claim() -> None:
    spec = load(CHAIN)
    said = [lacking(spec, uri, who) for uri, who in needed(spec, ()).items()]
    unless = {text.partition(",")[0].rpartition("/")[2]: "unless an earlier step writes it" in text for text in said}
    assert unless == {
        "base": False,
        "train.jsonl": False,
        "more": False,
        "base2": True,
        "last": True,
        "whole": True,
    }
