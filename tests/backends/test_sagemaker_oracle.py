"""The plan beside what the SageMaker SDK sends for the same job; needs the recorded requests beside the checkout.

Each case is an estimator or a trainer in the SDK's Python; beside it stands the same job as a spec. What the user chose
must agree; what belongs to the SDK's own way of starting scripts is listed below, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtune import jobs
from cloudtune.backends.sagemaker_images import GPU, image_uri
from cloudtune.rehearsal.aws.checker import violations
from cloudtune.spec.document import load
from cloudtune.spec.job import JobSpec
from cloudtune.spec.sagemaker import Framework
from tests.conftest import SHARED

ORACLE = SHARED / "oracle" / "sagemaker"
CASES = sorted(path.name for path in ORACLE.glob("*/")) if ORACLE.is_dir() else []
pytestmark = pytest.mark.skipif(not CASES, reason="the oracles are not beside this checkout (../shared)")

ROLE = "arn:aws:iam::123456789012:role/sagemaker_execution_role"
NEURON_IMAGE = (
    "763104351884.dkr.ecr.us-west-2.amazonaws.com/huggingface-pytorch-training-neuronx:"
    "1.13.1-transformers4.36.2-neuronx-py310-sdk2.18.0-ubuntu20.04"
)
#: What only the SDK has, by path, and why a plan has it not.
SDKS_OWN = {
    "HyperParameters": "the job's own command is in the agent's order, where no shell reads it and nothing is retyped",
    "DebugHookConfig": "the debugger was not asked for",
    "ProfilerConfig": "the profiler was not asked for",
    "AlgorithmSpecification.EnableSageMakerMetricsTimeSeries": "there are no metric definitions to draw",
}
#: What only a plan has.
OURS = {
    "AlgorithmSpecification.ContainerEntrypoint": "the agent is started by Python itself",
    "AlgorithmSpecification.ContainerArguments": "the agent is started by Python itself",
    "Environment.CLOUDTUNE_PLACE": "tells the agent where it is",
    "Environment.CLOUDTUNE_RUN_ID": "tells the agent which run it is of",
}
#: What differs on purpose, by path.
OTHERWISE = {
    "TrainingJobName": "made of the job's name and the run's id, not of the time",
    "Environment.HF_TOKEN": "a secret is never sent in clear; the spec names one of Secrets Manager",
}
HUGGING_FACE = {"name": "huggingface", "version": "2.1.0", "transformersVersion": "4.36.0", "pyVersion": "py310"}
NO_ROBOTS = [{"channel": "training", "uri": "s3://ct-bucket/datasets/huggingface-h4-no-robots"}]
TOKEN = {"name": "HF_TOKEN", "secret": "arn:aws:secretsmanager:us-west-2:123456789012:secret:hub-AbC"}
#: The hyperparameters of the first seed, as the words of a command.
QLORA = [
    *("--dataset_path", "/opt/ml/input/data/training/", "--model_id", "meta-llama/Meta-Llama-3-8B"),
    *("--max_seq_len", "3072", "--use_qlora", "True", "--num_train_epochs", "1", "--learning_rate", "0.0002"),
    *(
        "--bf16",
        "True",
        "--output_dir",
        "/tmp/tun",
        "--merge_adapters",
        "True",
        "--fsdp",
        "full_shard auto_wrap offload",
    ),
]


def variables(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


#: The cases that train, in our words: name, replicas, place, command and variables.
JOBS: dict[str, tuple[str, int, dict[str, Any], list[str], list[dict[str, str]]]] = {
    "01-seed001-fsdp-qlora": (
        "meta-llama-Meta-Llama-3-8B-bf16",
        1,
        {
            "instanceType": "ml.g5.12xlarge",
            "volumeSizeInGB": 300,
            "maxRuntimeInSeconds": 172800,
            "framework": HUGGING_FACE,
            "outputPath": "s3://ct-bucket/",
            "compressOutput": False,
            "inputs": NO_ROBOTS,
        },
        ["torchrun", "run_fsdp_qlora.py", *QLORA],
        [
            *variables(
                HUGGINGFACE_HUB_CACHE="/tmp/.cache", ACCELERATE_USE_FSDP="1", FSDP_CPU_RAM_EFFICIENT_LOADING="1"
            ),
            TOKEN,
        ],
    ),
    "02-seed003-trn1-optimum-neuron": (
        "tinyllama-trn1-run-1",
        1,
        {
            "instanceType": "ml.trn1.2xlarge",
            "volumeSizeInGB": 512,
            "maxRuntimeInSeconds": 86400,
            "image": NEURON_IMAGE,
            "outputPath": "s3://ct-bucket/",
            "compressOutput": False,
        },
        ["torchrun", "run_clm.py", "--tensor_parallel_size", "2", "--output_dir", "/opt/ml/model"],
        variables(MALLOC_ARENA_MAX="64", NEURON_CC_FLAGS="--model-type transformer"),
    ),
    "03-p4d-4node": (
        "p4d4",
        4,
        {
            "instanceType": "ml.p4d.24xlarge",
            "framework": {"name": "pytorch", "version": "2.5.1", "pyVersion": "py311"},
            "outputPath": "s3://ct-bucket/",
            "inputs": [
                {
                    "channel": "train",
                    "uri": "s3://ct-bucket/d",
                    "mode": "FastFile",
                    "distribution": "ShardedByS3Key",
                }
            ],
        },
        ["torchrun", "run_fsdp_qlora.py", "--epochs", "3", "--lr", "1e-05"],
        [],
    ),
    "11-v3-seed001": (
        "meta-llama-3-8b-bf16",
        1,
        {
            "instanceType": "ml.g5.12xlarge",
            "volumeSizeInGB": 300,
            "maxRuntimeInSeconds": 172800,
            "framework": HUGGING_FACE,
            "outputPath": "s3://ct-bucket/meta-llama-3-8b-bf16",
            "compressOutput": False,
            # this release of the SDK spells out what the others leave to the service
            "inputs": [{**NO_ROBOTS[0], "mode": "File"}],
        },
        ["torchrun", "run_fsdp_qlora.py", *QLORA],
        [*variables(HUGGINGFACE_HUB_CACHE="/tmp/.cache", ACCELERATE_USE_FSDP="1"), TOKEN],
    ),
}
#: Cases that train nothing, and what of them can be compared.
DEPLOYS = {"20-deploy-hf-llm-gpu": Framework(name="huggingface-llm", version="3.3.6")}


def job_of(case: str) -> JobSpec:
    """Return the case's job, read as a user's file is."""
    name, replicas, place, command, env = JOBS[case]
    runtime = {"scriptPathURI": "scripts/trl", "command": command, "replicas": replicas, "env": env}
    document = {
        "kind": "job",
        "spec": {
            "name": name,
            "infrastructure": {
                "kind": "infrastructure",
                "type": "sageMakerTrainingJob",
                "spec": {"region": "us-west-2", "roleArn": ROLE, **place},
            },
            "runtime": {"kind": "runtime", "type": "pyTorchDistributed", "spec": runtime},
        },
    }
    job = load(json.dumps(document))
    assert isinstance(job, JobSpec)
    return job


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a request by path; channels by their names."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}" if path else key)
    elif path == "InputDataConfig":
        for item in value:
            yield from flat(item, f"{path}.{item['ChannelName']}")
    else:
        yield path, value


def test_every_case_is_compared() -> None:
    assert set(CASES) == {*JOBS, *DEPLOYS}


@pytest.mark.parametrize("case", JOBS)
def test_the_request_agrees(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scripts" / "trl").mkdir(parents=True)
    (tmp_path / "scripts" / "trl" / JOBS[case][3][1]).write_text("print(1)\n")
    monkeypatch.chdir(tmp_path)
    plan = jobs.plan_job(job_of(case))
    step = next(step for step in plan.to_dict()["steps"] if step["operation"] == "create_training_job")
    assert not list(violations("sagemaker", "CreateTrainingJobRequest", step["parameters"]))
    have = dict(flat(step["parameters"]))
    want = dict(flat(json.loads((ORACLE / case / "create_training_job.json").read_text())))
    own = {path for path in have if path.startswith("InputDataConfig.cloudtune.") or path in OURS}
    theirs = {
        path for path in want if path.startswith("InputDataConfig.") and path.split(".")[1] in {"code", "sm_drivers"}
    }
    theirs |= {path for path in want if path in SDKS_OWN or path.partition(".")[0] in SDKS_OWN}
    # the third release of the SDK starts its own drivers; in ours the agent stands there
    compared = (set(have) - own) | (set(want) - theirs - set(OURS))
    assert {path for path in compared if have.get(path) != want.get(path)} <= set(OTHERWISE)
    assert have["TrainingJobName"].startswith(JOBS[case][0])
    assert len(compared) >= 12
    order = next(
        json.loads(file.content or b"") for one in plan.steps for file in one.files if file.path == "order.json"
    )
    assert order["command"] == JOBS[case][3]


@pytest.mark.parametrize("case", DEPLOYS)
def test_the_image_of_an_endpoint_agrees(case: str) -> None:
    want = json.loads((ORACLE / case / "create_model.json").read_text())["PrimaryContainer"]["Image"]
    assert image_uri(DEPLOYS[case], region="us-west-2", processor=GPU, use="inference") == want
