"""The plan of SageMaker training jobs, by itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune import jobs
from cloudtune.backends.aws_surroundings import STUDIO_FILE
from cloudtune.backends.sagemaker import SageMakerBackend
from cloudtune.backends.sagemaker_surroundings import surroundings
from cloudtune.backends.sagemaker_wire import training_job_name
from cloudtune.errors import SpecError
from cloudtune.plan import FromShell, Masked, Plan, leaves
from cloudtune.rehearsal.aws.checker import violations
from cloudtune.spec.document import load
from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.infrastructure import SageMakerTrainingJob
from cloudtune.spec.job import JobSpec, PipelineSpec
from cloudtune.spec.runtimes import (
    Conda,
    ContainerRuntime,
    Dependencies,
    GitPythonRuntime,
    NeuronDistributedRuntime,
    NotebookRuntime,
    PythonRuntime,
    PyTorchDistributedRuntime,
    Runtime,
    ScriptRuntime,
)

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
EXAMPLES = ("sagemaker-llama3-qlora-bedrock", "sagemaker-trainium-tinyllama")
ROLE = "arn:aws:iam::123456789012:role/trainer"
ECR = "763104351884.dkr.ecr.us-west-2.amazonaws.com"
PLACE = SageMakerTrainingJob(
    region="us-west-2",
    role_arn=ROLE,
    instance_type="ml.g5.12xlarge",
    image=f"{ECR}/pytorch-training:2.6.0-gpu-py312",
    output_path="s3://bucket/out",
    compress_output=False,
)
TRAIN = PyTorchDistributedRuntime(command="torchrun train.py")
GIT = GitPythonRuntime(url="https://example.com/r.git", entrypoint="a.py")
CONTAINER = ContainerRuntime(image="1.dkr.ecr/i:1", entrypoint=("/bin/sh", "-c"), cmd=("sleep 5",))
SECRET = "arn:aws:secretsmanager:us-west-2:123456789012:secret:hub-AbC"


def plan(runtime: Runtime = TRAIN, place: SageMakerTrainingJob = PLACE, **job: Any) -> Plan:
    return SageMakerBackend().plan(
        JobSpec(**{"name": "j", "infrastructure": place, "runtime": runtime, **job}), "abcdefgh"
    )


def request(found: Plan) -> dict[str, Any]:
    (step,) = (step for step in found.to_dict()["steps"] if step["operation"] == "create_training_job")
    parameters: dict[str, Any] = step["parameters"]
    return parameters


def order_in(found: Plan) -> Any:
    return next(
        json.loads(file.content or b"") for step in found.steps for file in step.files if file.path == "order.json"
    )


def refused(found: Plan) -> set[str]:
    return {note.path for note in found.refused} - {"spec.infrastructure.type"}


def approximated(found: Plan) -> set[str]:
    return {note.path for note in found.fields if note.status == "approximated"}


def told(found: Plan) -> dict[str, str]:
    return {notice.path: notice.message for notice in found.warnings}


def faults(runtime: Runtime = TRAIN, place: SageMakerTrainingJob = PLACE) -> list[str]:
    with pytest.raises(SpecError) as caught:
        plan(runtime, place)
    return [fault.path for fault in caught.value.faults]


def breaches(found: Plan) -> list[str]:
    return [str(one) for one in violations("sagemaker", "CreateTrainingJobRequest", request(found))]


def trained(name: str) -> JobSpec:
    """Return the job of an example's step ``train``, as it is."""
    pipeline = load((ROOT / "cloudtune" / "examples" / name / "pipeline.yaml").read_text(encoding="utf-8"))
    assert isinstance(pipeline, PipelineSpec)
    step = next(step for step in pipeline.steps if step.name == "train")
    assert step.job is not None
    return attrs.evolve(step.job, infrastructure=step.infrastructure)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_seed_jobs_are_the_golden_plans(name: str) -> None:
    """Compare the whole plan; CLOUDTUNE_GOLDEN=write writes it anew.

    What travels along is shown as what it is, not by a digest that every change of it moves.
    """
    job = load(GOLDEN / name / "job.yaml")
    assert isinstance(job, JobSpec)
    found = jobs.plan_job(job, "abcdefgh")
    shown = found.to_dict()
    for one in shown["steps"]:
        one.update({"files": "..."} if one["id"] == "code" else {})
        for file in one.get("files", ()) if one["id"] != "code" else ():
            file.update(bytes="...", sha256="...")
    text = json.dumps({"plan": shown, "order": order_in(found)}, indent=2, ensure_ascii=False) + "\n"
    golden = GOLDEN / name / "sagemaker.json"
    if os.environ.get("CLOUDTUNE_GOLDEN") == "write":
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
    assert breaches(found) == []
    assert refused(found) == set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_as_they_are_give_a_plan(name: str) -> None:
    found = jobs.plan_job(trained(name))
    assert request(found)["RoleArn"] == "arn:aws:iam::<your-account>:role/<your-role>"
    assert any("is a placeholder" in message for message in told(found).values())
    assert found.outputs[0].endswith("/output/model")
    assert refused(found) == set()


def test_what_travels_comes_before_the_job() -> None:
    found = plan(ScriptRuntime(script_path_uri=str(ROOT / "dev.py")))
    prefix = "out/j-abcdefgh/input"
    assert [(step.id, step.service, step.operation) for step in found.steps] == [
        ("agent", "aws.s3", "put_object"),
        ("order", "aws.s3", "put_object"),
        ("code", "aws.s3", "put_object"),
        ("job", "aws.sagemaker", "create_training_job"),
    ]
    assert [step.parameters for step in found.steps[:3]] == [
        {"Bucket": "bucket", "Key": f"{prefix}/{name}"} for name in ("agent.pyz", "order.json", "code.tar.gz")
    ]
    assert [[file.path for file in step.files] for step in found.steps] == [
        ["agent.pyz"],
        ["order.json"],
        ["code/dev.py"],
        [],
    ]
    assert {step.region for step in found.steps} == {"us-west-2"}
    assert {step.token for step in found.steps} == {f"cloudtune-abcdefgh-{step.id}" for step in found.steps}
    assert {step.undo.region for step in found.steps if step.undo} == {"us-west-2"}
    undo = [(step.undo.operation, step.undo.parameters) for step in found.steps if step.undo]
    assert undo[0] == ("delete_object", found.steps[0].parameters)
    assert undo[-1] == ("stop_training_job", {"TrainingJobName": "j-abcdefgh"})
    assert order_in(found)["code"] == {"kind": "archive", "path": "code.tar.gz"}
    for step in found.steps[:2]:
        (file,) = step.files
        assert (file.bytes, file.sha256) == (len(file.content or b""), hashlib.sha256(file.content or b"").hexdigest())
    assert request(found)["InputDataConfig"] == [
        {
            "ChannelName": "cloudtune",
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": f"s3://bucket/{prefix}/",
                    "S3DataDistributionType": "FullyReplicated",
                }
            },
            "InputMode": "File",
        }
    ]
    assert plan().to_json() == plan().to_json()


def test_paths_of_this_machine_and_of_the_node_alone_are_told() -> None:
    here = told(plan(attrs.evolve(TRAIN, output_uri="kept", inputs={"rows.jsonl": "rows"})))
    assert "kept is a folder of the node and ends with it" in here["spec.runtime.spec.outputUri"]
    assert "rows.jsonl is looked up on the node" in here["spec.runtime.spec.inputs"]
    saved = attrs.evolve(TRAIN, output_uri="/opt/ml/checkpoints/out", inputs={"/opt/ml/input/data/rows": "rows"})
    kept = told(plan(saved, attrs.evolve(PLACE, checkpoint_uri="s3://bucket/checkpoints")))
    assert not [path for path in kept if path.startswith("spec.runtime.spec")]
    assert "ends with it" in told(plan(saved))["spec.runtime.spec.outputUri"]


def test_what_does_not_travel_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("echo hi\n")
    os.mkfifo(tmp_path / "pipe")
    found = plan(ScriptRuntime(script_path_uri=str(tmp_path), entrypoint="a.sh"))
    assert "pipe" in told(found)["spec.runtime.spec"]


def test_an_archive_that_is_named_is_the_code(tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(b"PK whatever")
    found = plan(ScriptRuntime(script_path_uri=str(tmp_path / "mine.zip"), entrypoint="a.sh"))
    (file,) = found.steps[2].files
    assert (file.path, file.source) == ("code.tar.gz", str(tmp_path / "mine.zip"))


RUNTIMES = [
    TRAIN,
    GIT,
    PythonRuntime(script_path_uri=str(ROOT / "dev.py")),
    NotebookRuntime(notebook_path_uri="https://example.com/a.ipynb"),
    NeuronDistributedRuntime(command="torchrun train.py", tensor_parallel_size=8, compile_cache_uri="s3://b/cache"),
    CONTAINER,
    attrs.evolve(TRAIN, recipe={"name": "sft", "args": {"model": "m"}}, command=None),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: f"{runtime.type}-{runtime.recipe is not None}")
def test_every_runtime_is_one_training_job(runtime: Runtime) -> None:
    kind = "ml.trn1.32xlarge" if runtime.type == "neuronDistributed" else "ml.g5.12xlarge"
    found = plan(attrs.evolve(runtime, replicas=4), attrs.evolve(PLACE, instance_type=kind))
    assert breaches(found) == []
    assert request(found)["ResourceConfig"] == {"InstanceType": kind, "InstanceCount": 4, "VolumeSizeInGB": 30}
    assert "HyperParameters" not in request(found)
    assert refused(found) == set()
    container = request(found)["AlgorithmSpecification"]
    if runtime is CONTAINER:
        assert (container["ContainerEntrypoint"], container["ContainerArguments"]) == (["/bin/sh", "-c"], ["sleep 5"])
        assert [step.id for step in found.steps] == ["job"]
        assert "spec.runtime.type" in approximated(found)
    else:
        assert container["ContainerEntrypoint"] == ["python3"]
        assert not {"/bin/sh", "sh", "-c"} & {*container["ContainerEntrypoint"], *container["ContainerArguments"]}
        assert order_in(found)["nodes"] == 4


def test_every_key_of_the_place_has_its_field() -> None:
    place = attrs.evolve(
        PLACE,
        volume_size_in_gb=300,
        max_runtime_in_seconds=7200,
        inputs=[
            {"channel": "train", "uri": "s3://b/t", "mode": "FastFile", "distribution": "ShardedByS3Key"},
            {
                "channel": "fsx",
                "fileSystemId": "fs-0123456789abcdef0",
                "fileSystemType": "FSxLustre",
                "directoryPath": "/fsx/x",
                "accessMode": "ro",
            },
        ],
        subnet_ids=("subnet-1",),
        security_group_ids=("sg-1", "sg-2"),
        use_spot=True,
        max_wait_time_in_seconds=9000,
        max_retry_attempts=3,
        checkpoint_uri="s3://b/checkpoints",
        checkpoint_local_path="/opt/ml/ckpt",
        encrypt_inter_container_traffic=True,
        volume_kms_key_id="alias/v",
        output_kms_key_id="alias/o",
        metric_definitions=[{"name": "loss", "regex": "'loss': ([0-9.]+)"}],
        tags={"team": "a b"},
        staging_uri="s3://code/here/",
    )
    found = plan(attrs.evolve(TRAIN, freeform_tags={"cost": "1"}), place)
    assert breaches(found) == []
    own = request(found)["InputDataConfig"].pop()
    assert own["DataSource"]["S3DataSource"]["S3Uri"] == "s3://code/here/j-abcdefgh/input/"
    algorithm = request(found)["AlgorithmSpecification"]
    assert algorithm["MetricDefinitions"] == [{"Name": "loss", "Regex": "'loss': ([0-9.]+)"}]
    have = {key: value for key, value in request(found).items() if key not in {"AlgorithmSpecification", "Environment"}}
    have["InputDataConfig"].remove(own)
    assert have == {
        "TrainingJobName": "j-abcdefgh",
        "RoleArn": ROLE,
        "InputDataConfig": [
            {
                "ChannelName": "train",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": "s3://b/t",
                        "S3DataDistributionType": "ShardedByS3Key",
                    }
                },
                "InputMode": "FastFile",
            },
            {
                "ChannelName": "fsx",
                "DataSource": {
                    "FileSystemDataSource": {
                        "FileSystemId": "fs-0123456789abcdef0",
                        "FileSystemType": "FSxLustre",
                        "DirectoryPath": "/fsx/x",
                        "FileSystemAccessMode": "ro",
                    }
                },
            },
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out", "KmsKeyId": "alias/o", "CompressionType": "NONE"},
        "ResourceConfig": {
            "InstanceType": "ml.g5.12xlarge",
            "InstanceCount": 1,
            "VolumeSizeInGB": 300,
            "VolumeKmsKeyId": "alias/v",
        },
        "VpcConfig": {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1", "sg-2"]},
        "StoppingCondition": {"MaxRuntimeInSeconds": 7200, "MaxWaitTimeInSeconds": 9000},
        "EnableManagedSpotTraining": True,
        "CheckpointConfig": {"S3Uri": "s3://b/checkpoints", "LocalPath": "/opt/ml/ckpt"},
        "RetryStrategy": {"MaximumRetryAttempts": 3},
        "EnableInterContainerTrafficEncryption": True,
        "Tags": [{"Key": "team", "Value": "a b"}, {"Key": "cost", "Value": "1"}],
    }
    assert found.steps[0].parameters == {
        "Bucket": "code",
        "Key": "here/j-abcdefgh/input/agent.pyz",
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "alias/o",
    }
    assert order_in(found)["environment"]["SM_CHANNEL_TRAIN"] == "/opt/ml/input/data/train"
    assert order_in(found)["maximumRuntimeInSeconds"] == 7200


def test_warm_pools_and_isolation() -> None:
    found = plan(place=attrs.evolve(PLACE, keep_alive_period_in_seconds=600, network_isolation=True))
    assert request(found)["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 600
    assert request(found)["EnableNetworkIsolation"] is True
    assert refused(found) == set()
    reaching = attrs.evolve(
        TRAIN,
        inputs={"s3://b/x": "x"},
        output_uri="s3://b/o",
        dependencies=Dependencies(pip_packages="peft"),
        env=({"name": "T", "secret": SECRET},),
    )
    isolated = attrs.evolve(PLACE, network_isolation=True)
    paths = {"inputs", "outputUri", "dependencies", "env[0].secret"}
    assert refused(plan(reaching, isolated)) == {f"spec.runtime.spec.{path}" for path in paths}
    assert refused(plan(GIT, isolated)) == {"spec.runtime.spec.url"}


# --- outputs


def test_the_service_takes_the_model_to_s3() -> None:
    found = plan()
    assert found.outputs == ("s3://bucket/out/j-abcdefgh/output/model",)
    assert order_in(found)["outputs"] == {"dir": "/opt/ml/model", "uri": None, "layout": "perNode"}
    packed = plan(place=attrs.evolve(PLACE, compress_output=None))
    assert packed.outputs == ("s3://bucket/out/j-abcdefgh/output/model.tar.gz",)
    assert "CompressionType" not in request(packed)["OutputDataConfig"]
    assert "loose files" in told(packed)["spec.infrastructure.spec.compressOutput"]
    assert (
        request(plan(place=attrs.evolve(PLACE, compress_output=True)))["OutputDataConfig"]["CompressionType"] == "GZIP"
    )


def test_outputs_are_where_the_overrides_put_them() -> None:
    elsewhere = {"OutputDataConfig": {"S3OutputPath": "s3://other/there/", "CompressionType": None}}
    found = plan(place=attrs.evolve(PLACE, overrides={"job": elsewhere}))
    assert found.outputs == ("s3://other/there/j-abcdefgh/output/model.tar.gz",)
    named = plan(place=attrs.evolve(PLACE, overrides={"job": {"TrainingJobName": "mine"}}))
    assert named.outputs == ("s3://bucket/out/mine/output/model",)
    nowhere = plan(place=attrs.evolve(PLACE, overrides={"job": {"OutputDataConfig": {"S3OutputPath": None}}}))
    assert nowhere.outputs == ()
    own = attrs.evolve(TRAIN, output_uri="s3://mine/x")
    assert plan(own, attrs.evolve(PLACE, overrides={"job": elsewhere})).outputs == ("s3://mine/x",)


def test_a_folder_of_the_jobs_own_is_brought_to_where_the_service_takes_it() -> None:
    outputs = order_in(plan(attrs.evolve(TRAIN, output_dir="results")))["outputs"]
    assert (outputs["dir"], outputs["uri"]) == ("results", "file:///opt/ml/model")


def test_a_place_of_the_users_own_is_the_agents_work() -> None:
    found = plan(
        attrs.evolve(TRAIN, output_uri="s3://mine/$CLOUDTUNE_RUN_ID"), attrs.evolve(PLACE, compress_output=None)
    )
    assert found.outputs == ("s3://mine/abcdefgh",)
    assert order_in(found)["outputs"]["uri"] == "s3://mine/abcdefgh"
    assert "spec.infrastructure.spec.compressOutput" not in told(found)


def test_without_an_output_path_there_is_the_accounts_bucket() -> None:
    bare = attrs.evolve(PLACE, output_path=None)
    found = plan(place=bare)
    assert request(found)["OutputDataConfig"]["S3OutputPath"] == "s3://sagemaker-us-west-2-123456789012"
    assert "default bucket" in told(found)["spec.infrastructure.spec.outputPath"]
    found = plan(attrs.evolve(TRAIN, output_uri="s3://mine/x"), bare)
    assert request(found)["OutputDataConfig"]["S3OutputPath"] == "s3://mine/x"


# --- variables and secrets


def test_what_is_too_large_for_the_request_is_in_the_order() -> None:
    large = "é" * 257
    many = {f"A{number:03}": "x" for number in range(120)}
    found = plan(attrs.evolve(TRAIN, env={**many, "LARGE": large, "FITS": "é" * 256}))
    sent = request(found)["Environment"]
    assert breaches(found) == []
    assert len(sent) == 100
    assert sent["CLOUDTUNE_PLACE"] == "sagemaker"
    assert sent["CLOUDTUNE_RUN_ID"] == "abcdefgh"
    assert "LARGE" not in sent
    assert order_in(found)["environment"] | {"LARGE": large, **many} == order_in(found)["environment"]
    assert request(plan(attrs.evolve(TRAIN, env={"FITS": "é" * 256})))["Environment"]["FITS"] == "é" * 256


def test_secrets_are_fetched_by_the_node_and_never_sent() -> None:
    env = (
        {"name": "HF_TOKEN", "value": "hf_literal"},
        {"name": "ALSO", "value": "x-hf_literal-x"},
        EnvironmentVariable(name="WANDB_API_KEY"),
        EnvironmentVariable(name="WANDB_PROJECT"),
        {"name": "GOOD", "secret": SECRET},
        {"name": "VAULT", "secret": "ocid1.vaultsecret.oc1.iad.a"},
        {"name": "HERE", "secret": "env:X"},
    )
    found = plan(attrs.evolve(TRAIN, env=env, inputs={"https://u:pa55word@host/x": "x"}))
    job = found.steps[-1].parameters
    assert job["Environment"]["WANDB_PROJECT"] == FromShell("WANDB_PROJECT")
    assert not [leaf for leaf in leaves(job) if isinstance(leaf, Masked)]
    assert set(job["Environment"]) == {"CLOUDTUNE_PLACE", "CLOUDTUNE_RUN_ID", "WANDB_PROJECT"}
    everything = found.to_json() + "".join(
        (file.content or b"").decode(errors="replace") for step in found.steps for file in step.files
    )
    assert "hf_literal" not in everything
    assert "pa55word" not in everything
    assert order_in(found)["secrets"]["GOOD"] == SECRET
    spec = "spec.runtime.spec"
    assert refused(found) == {
        spec,
        *(f"{spec}.env[{index}]" for index in (0, 1, 2)),
        *(f"{spec}.env[{index}].secret" for index in (5, 6)),
    }


def test_the_runs_own_variables_are_not_the_users() -> None:
    found = plan(attrs.evolve(TRAIN, env={"CLOUDTUNE_RUN_ID": "mine"}))
    assert request(found)["Environment"]["CLOUDTUNE_RUN_ID"] == "abcdefgh"
    assert "no effect" in told(found)["spec.runtime.spec.env"]


# --- what cannot be


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    keys = ("region", "roleArn", "image", "outputPath")
    found = plan(place=SageMakerTrainingJob(instance_type="g5.xlarge"))
    assert refused(found) == {f"spec.infrastructure.spec.{key}" for key in keys}
    assert request(found)["ResourceConfig"]["InstanceType"] == "ml.g5.xlarge"
    nameless = SageMakerTrainingJob(accelerator={"count": 1})  # type: ignore[arg-type]
    assert "spec.infrastructure.spec.instanceType" in refused(plan(place=nameless))
    waiting = attrs.evolve(PLACE, image=None, framework={"name": "pytorch"}, region="<region>")
    assert refused(plan(place=waiting)) == set()
    assert "TrainingImage" not in request(plan(place=waiting))["AlgorithmSpecification"]


def test_everything_that_cannot_be_is_told_at_once() -> None:
    channels = [{"channel": f"c{number}", "uri": f"s3://b/{number}"} for number in range(20)]
    place = attrs.evolve(
        PLACE, instance_type="ml.inf2.xlarge", inputs=channels, use_spot=True, max_wait_time_in_seconds=3600
    )
    where = "spec.infrastructure.spec"
    assert faults(attrs.evolve(TRAIN, freeform_tags={"aws:x": "y"}), place) == [
        f"{where}.instanceType",
        f"{where}.maxWaitTimeInSeconds",
        f"{where}.inputs[19]",
        'spec.runtime.spec.freeformTags["aws:x"]',
    ]
    framework = attrs.evolve(PLACE, image=None, framework={"name": "pytorch", "version": "9"})
    assert faults(place=framework) == [f"{where}.framework.version"]
    assert plan(CONTAINER, attrs.evolve(PLACE, inputs=channels)).steps


def test_a_containers_own_words_must_fit_the_request() -> None:
    words = attrs.evolve(CONTAINER, cmd=("a" * 257, "two\nlines"), env={"A": "x" * 513}, args=("b",) * 99)
    spec = "spec.runtime.spec"
    assert faults(words) == [f"{spec}.cmd"] * 3 + [f"{spec}.env"]
    assert refused(plan(attrs.evolve(CONTAINER, entrypoint=None))) == {f"{spec}.entrypoint"}


def test_a_container_without_an_agent() -> None:
    found = plan(
        attrs.evolve(CONTAINER, image_digest="sha256:abc", inputs={"s3://b/x": "x"}, args=("c",), env={"A": "b"})
    )
    algorithm = request(found)["AlgorithmSpecification"]
    assert algorithm["TrainingImage"] == "1.dkr.ecr/i:1@sha256:abc"
    assert algorithm["ContainerArguments"] == ["sleep 5", "c"]
    assert request(found)["Environment"] == {"A": "b"}
    assert "InputDataConfig" not in request(found)
    assert refused(found) == {"spec.runtime.spec.inputs"}
    placed = plan(attrs.evolve(CONTAINER, image=None))
    assert request(placed)["AlgorithmSpecification"]["TrainingImage"] == PLACE.image


def test_what_is_another_way_than_written() -> None:
    runtime = attrs.evolve(
        GIT, conda=Conda(slug="s"), defined_tags={"a": {"b": "c"}}, git_secret_id="ocid1.vaultsecret.x"
    )
    found = plan(runtime, name="my_job", id="ocid1.job")
    paths = {"spec.name", "spec.id", "spec.runtime.spec.conda", "spec.runtime.spec.definedTags"}
    assert approximated(found) == paths
    assert refused(found) == {"spec.runtime.spec.gitSecretId"}


def test_spot_waits_longer_than_it_may_run() -> None:
    found = plan(place=attrs.evolve(PLACE, use_spot=True))
    assert request(found)["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400, "MaxWaitTimeInSeconds": 172800}
    assert {"spec.infrastructure.spec.maxWaitTimeInSeconds", "spec.infrastructure.spec.checkpointUri"} <= set(
        told(found)
    )
    limited = plan(attrs.evolve(TRAIN, maximum_runtime_in_minutes=10), attrs.evolve(PLACE, max_runtime_in_seconds=7200))
    assert request(limited)["StoppingCondition"] == {"MaxRuntimeInSeconds": 600}
    assert "600 s" in told(limited)["spec.infrastructure.spec.maxRuntimeInSeconds"]


def test_images_for_trainium_are_those_of_the_older_mode() -> None:
    hugging = {"image": None, "framework": {"name": "huggingface", "version": "2.7", "transformersVersion": "4.55"}}
    place = attrs.evolve(PLACE, instance_type="ml.trn2.48xlarge", **hugging)
    runtime = NeuronDistributedRuntime(command="torchrun train.py", tensor_parallel_size=4, precompile=True)
    found = plan(runtime, place)
    image = "huggingface-pytorch-training-neuronx:2.7.0-transformers4.55.4-neuronx-py310-sdk2.26.0-ubuntu22.04"
    assert request(found)["AlgorithmSpecification"]["TrainingImage"] == f"{ECR}/{image}"
    assert order_in(found)["neuron"]["dataParallelSize"] == 16
    assert order_in(found)["processesPerNode"] == 64
    assert refused(found) == set()
    newer = attrs.evolve(runtime, mode="torchNeuron", precompile=None)
    assert refused(plan(newer, place)) == {"spec.infrastructure.spec.framework"}
    assert refused(plan(newer, attrs.evolve(place, framework=None, image="image:1"))) == set()


def test_a_patch_adds_what_the_spec_does_not_name() -> None:
    found = plan(place=attrs.evolve(PLACE, overrides={"job": {"RemoteDebugConfig": {"EnableRemoteDebug": True}}}))
    assert request(found)["RemoteDebugConfig"] == {"EnableRemoteDebug": True}
    assert breaches(found) == []


# --- names and surroundings


@given(st.text(max_size=80), st.from_regex(r"[a-z][a-z0-9]{7}(-[A-Za-z0-9_-]{1,40})?", fullmatch=True))
def test_any_name_becomes_one_that_the_service_takes(name: str, run_id: str) -> None:
    made = training_job_name(name, run_id)
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", made)
    assert run_id[:8] in made


def test_names_of_two_runs_differ() -> None:
    ids = ("abcdefgh-a_b", "abcdefgh-a-b", "abcdefgh-a--b", "abcdefgh-a-b-")
    assert len({training_job_name("j", run_id) for run_id in ids}) == 4


@pytest.mark.parametrize(
    ("environ", "files", "region", "role"),
    [
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"}, {}, "eu-west-1", None),
        ({"AWS_DEFAULT_REGION": "us-east-1"}, {}, "us-east-1", None),
        ({"HOME": "/h"}, {"/h/.aws/config": "[default]\nregion = eu-north-1\n"}, "eu-north-1", None),
        (
            {"AWS_CONFIG_FILE": "/c", "AWS_PROFILE": "p"},
            {"/c": "[default]\nregion=a\n[profile p]\nregion=eu-west-3\n"},
            "eu-west-3",
            None,
        ),
        (
            {"HOME": "/h"},
            {
                STUDIO_FILE: json.dumps(
                    {"ResourceArn": "arn:aws:sagemaker:us-east-2:1:app/d/x", "ExecutionRoleArn": ROLE}
                )
            },
            "us-east-2",
            ROLE,
        ),
        ({"HOME": "/h"}, {STUDIO_FILE: "not json", "/h/.aws/config": "no section"}, None, None),
    ],
)
def test_region_and_role_come_from_where_the_plan_is_made(
    environ: dict[str, str], files: dict[str, str], region: str | None, role: str | None
) -> None:
    found = surroundings(SageMakerTrainingJob(), environ, files.get)
    assert (found.region, found.role) == (region, role)
    assert set(found.found) == {key for key, value in (("region", region), ("roleArn", role)) if value}
    named = surroundings(PLACE, environ, files.get)
    assert (named.region, named.role, named.found) == ("us-west-2", ROLE, {})
    assert named.bucket == "s3://sagemaker-us-west-2-123456789012"
