"""The stock ``aws`` command line against the stand-in: a client that nobody here has written.

It lives in an environment of its own (``python3 -m venv DIR && DIR/bin/pip install awscli``); CLOUDTUNE_AWS_CLI names
it, else it is looked for on PATH.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.aws_place import AwsPlace, until
from tests.rehearsal.aws.serving import COMMAND
from tests.weights.checks.checkable import write_model

Aws = Callable[..., Any]


@pytest.fixture
def aws(place: AwsPlace, tmp_path: Path) -> Aws:
    """Return what runs the command and reads its answer; it signs as the user of the stand-in."""
    command = os.environ.get("CLOUDTUNE_AWS_CLI") or shutil.which("aws")
    if not command or not Path(command).exists():
        pytest.skip("the aws command line is not installed: set CLOUDTUNE_AWS_CLI to it")

    def run(*words: str, fails: str = "", plain: bool = False) -> Any:
        how: Any = {"env": place.environ, "cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120}
        done = subprocess.run([command, *words], check=False, **how)
        if fails:
            assert done.returncode != 0
            assert fails in done.stderr
            return None
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout if plain else json.loads(done.stdout or "null")

    return run


@pytest.mark.heavy  # the command takes a second to start, each time
def test_files_are_put_and_a_job_is_created_followed_listed_and_stopped(
    aws: Aws, place: AwsPlace, tmp_path: Path, namespaces: None
) -> None:
    assert aws("sts", "get-caller-identity")["Account"] == place.cloud.account
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x y+z.txt").write_text("hello from the bucket\n")
    aws("s3", "sync", "in", f"s3://{place.bucket}/in", plain=True)
    assert "x y+z.txt" in aws("s3", "ls", f"s3://{place.bucket}/in/", plain=True)
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{place.bucket}/in/"}}
    script = "cat /opt/ml/input/data/d/*; cp /opt/ml/input/data/d/* /opt/ml/model; exec sleep $NAP"
    changes = {"InputDataConfig": [{"ChannelName": "d", "DataSource": source}]}

    def create(name: str, nap: str, **more: str) -> Any:
        request = place.job(name, "sh", "-c", script, Environment={"NAP": nap}, **changes)
        request["OutputDataConfig"]["CompressionType"] = "NONE"
        (tmp_path / "job.json").write_text(json.dumps(request))
        return aws("sagemaker", "create-training-job", "--cli-input-json", "file://job.json", **more)

    arn = create("by-hand", "0")["TrainingJobArn"]
    create("by-hand", "0", fails="ResourceInUse")
    place.over("by-hand")  # the command looks every two minutes
    aws("sagemaker", "wait", "training-job-completed-or-stopped", "--training-job-name", "by-hand", plain=True)
    job = aws("sagemaker", "describe-training-job", "--training-job-name", "by-hand")
    assert (job["TrainingJobStatus"], job["TrainingJobArn"]) == ("Completed", arn)
    aws("s3", "cp", job["ModelArtifacts"]["S3ModelArtifacts"], "model", "--recursive", plain=True)
    assert (tmp_path / "model" / "x y+z.txt").read_text() == "hello from the bucket\n"
    group = ("--log-group-name", "/aws/sagemaker/TrainingJobs")
    found = until(lambda: aws("logs", "filter-log-events", *group, "--log-stream-name-prefix", "by-hand/")["events"])
    assert "hello from the bucket" in [event["message"] for event in found]
    create("long", "60")
    aws("sagemaker", "stop-training-job", "--training-job-name", "long", plain=True)
    place.over("long")
    listed = aws("sagemaker", "list-training-jobs", "--name-contains", "long")["TrainingJobSummaries"]
    assert [row["TrainingJobStatus"] for row in listed] == ["Stopped"]
    aws("s3", "rm", f"s3://{place.bucket}/in", "--recursive", plain=True)
    aws("sagemaker", "describe-training-job", "--training-job-name", "nobody", fails="Requested resource not found")


@pytest.mark.heavy
def test_a_model_is_imported_served_and_asked(aws: Aws, place: AwsPlace, tmp_path: Path, namespaces: None) -> None:
    from cloudtune.rehearsal.aws.bedrock_runtime import BedrockRuntime
    from cloudtune.rehearsal.aws.endpoints import Endpoints

    place.cloud.part(BedrockRuntime).command = COMMAND
    # the endpoint is not there before the test says so, however long a command takes
    held = 'while [ ! -e /opt/ml/model/go ]; do sleep 0.1; done; exec "$@"'
    place.cloud.part(Endpoints).commands["me/vllm:1"] = ("sh", "-c", held, "sh", *COMMAND)
    write_model(tmp_path / "model")
    aws("s3", "sync", "model", f"s3://{place.bucket}/model", plain=True)
    uri, named = f"s3://{place.bucket}/model/", ("--role-arn", place.role)

    def wait(field: str, words: tuple[str, ...], value: str) -> Any:
        return until(lambda: one if (one := aws(*words))[field] == value else None)

    source = json.dumps({"s3DataSource": {"s3Uri": uri}})
    job = ("--job-name", "first", "--imported-model-name", "m", "--model-data-source", source)
    aws("bedrock", "create-model-import-job", *job, *named)
    wait("status", ("bedrock", "get-model-import-job", "--job-identifier", "first"), "Completed")
    assert aws("bedrock", "list-imported-models")["modelSummaries"][0]["modelArchitecture"] == "llama"
    arn = aws("bedrock", "get-imported-model", "--model-identifier", "m")["modelArn"]
    (tmp_path / "body.json").write_text('{"prompt": "hello there"}')
    ask = ("bedrock-runtime", "invoke-model", "--model-id", arn, "--body", "fileb://body.json", "out.json")
    until(lambda: succeeds(aws, *ask))  # the command itself asks a cold model some times
    assert json.loads((tmp_path / "out.json").read_text())["generation"] == "hello there"
    said = json.dumps([{"role": "user", "content": [{"text": "how are you"}]}])
    answer = aws("bedrock-runtime", "converse", "--model-id", arn, "--messages", said)
    assert answer["output"]["message"]["content"] == [{"text": "how are you"}]
    aws("bedrock", "delete-imported-model", "--model-identifier", "m", plain=True)

    data = {"S3DataSource": {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None"}}
    container = json.dumps({"Image": "me/vllm:1", "ModelDataSource": data})
    aws("sagemaker", "create-model", "--model-name", "m", "--primary-container", container, *execution(place))
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1}
    variants = ("--production-variants", json.dumps([variant]))
    aws("sagemaker", "create-endpoint-config", "--endpoint-config-name", "c", *variants)
    endpoint = ("--endpoint-name", "e")
    aws("sagemaker", "create-endpoint", *endpoint, "--endpoint-config-name", "c")
    aws("sagemaker", "delete-endpoint", *endpoint, fails="in-progress endpoint")
    fetched = until(lambda: [path.parent for path in place.stage.folder.glob("endpoints/e/*/config.json")])
    (fetched[0] / "go").touch()
    wait("EndpointStatus", ("sagemaker", "describe-endpoint", *endpoint), "InService")
    kind = ("--content-type", "application/json")
    aws("sagemaker-runtime", "invoke-endpoint", *endpoint, *kind, "--body", "fileb://body.json", "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["choices"][0]["text"] == "hello there"
    for words in (("delete-endpoint", *endpoint), ("delete-endpoint-config", "--endpoint-config-name", "c")):
        aws("sagemaker", *words, plain=True)
    aws("sagemaker", "delete-model", "--model-name", "m", plain=True)
    assert aws("sagemaker", "list-models")["Models"] == []


def execution(place: AwsPlace) -> tuple[str, str]:
    return "--execution-role-arn", place.role


def succeeds(aws: Aws, *words: str) -> bool:
    """Whether a command succeeds by now."""
    with contextlib.suppress(AssertionError):
        aws(*words)
        return True
    return False
