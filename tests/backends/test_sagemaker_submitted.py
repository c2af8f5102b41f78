"""A plan carried out by the client against the stand-in of the service: two nodes run what the spec said."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtune import jobs
from cloudtune.spec.infrastructure import SageMakerTrainingJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.submit import submit
from tests.aws_place import aws_place
from tests.backends.test_sagemaker_node import nodes
from tests.journal import Journal

__all__ = ["nodes"]  # the fixture, by which these tests skip where namespaces are not allowed
SCRIPT = """
import os
rank = os.environ["RANK"]
rows = open(os.environ["SM_CHANNEL_ROWS"] + "/rows.jsonl").read()
with open(os.environ["CLOUDTUNE_OUTPUT_DIR"] + "/told-" + rank, "w") as file:
    file.write(rows + os.environ["NOTE"])
"""


@pytest.mark.usefixtures("nodes")
def test_two_nodes_run_what_was_planned(tmp_path: Path) -> None:
    from cloudtune.clients.aws import AwsClient

    (tmp_path / "src" / "code").mkdir(parents=True)
    (tmp_path / "src" / "code" / "a.py").write_text(SCRIPT)
    with aws_place(tmp_path) as place:
        s3 = place.sdk("s3", region_name="us-west-2")
        s3.put_object(Bucket=place.bucket, Key="rows/rows.jsonl", Body=b"one row, ")
        where = SageMakerTrainingJob(
            region="us-west-2",
            role_arn=place.role,
            instance_type="ml.m5.xlarge",
            image="image:1",
            output_path=f"s3://{place.bucket}/out",
            compress_output=False,
            inputs=[{"channel": "rows", "uri": f"s3://{place.bucket}/rows/"}],  # type: ignore[arg-type]
        )
        runtime = PyTorchDistributedRuntime(
            script_path_uri=str(tmp_path / "src"),
            command=("python3", "code/a.py"),
            replicas=2,
            env={"NOTE": "a note of some length " * 100},
        )
        plan = jobs.plan_job(JobSpec(name="two nodes", infrastructure=where, runtime=runtime), "abcdefgh")
        replies = submit(plan, AwsClient(), Journal())
        assert replies["job"]["TrainingJobArn"].endswith(":training-job/two-nodes-abcdefgh")
        job = place.over("two-nodes-abcdefgh")
        assert job["TrainingJobStatus"] == "Completed", job
        assert job["ModelArtifacts"]["S3ModelArtifacts"].rstrip("/") == plan.outputs[0]
        for name in ("told-0", "node-1/told-1"):
            key = f"{plan.outputs[0].removeprefix(f's3://{place.bucket}/')}/{name}"
            told = s3.get_object(Bucket=place.bucket, Key=key)["Body"].read().decode()
            assert told == "one row, " + "a note of some length " * 100


@pytest.mark.usefixtures("nodes")
def test_outputs_are_where_the_service_says_whatever_the_overrides(tmp_path: Path) -> None:
    with aws_place(tmp_path, speed=1000.0) as place:
        where = SageMakerTrainingJob(
            region="us-west-2",
            role_arn=place.role,
            instance_type="ml.m5.xlarge",
            image="image:1",
            output_path=f"s3://{place.bucket}/out",
            compress_output=False,
            overrides={
                "job": {"OutputDataConfig": {"S3OutputPath": f"s3://{place.bucket}/else", "CompressionType": None}}
            },
        )
        runtime = PyTorchDistributedRuntime(command="echo > $CLOUDTUNE_OUTPUT_DIR/file")
        run = jobs.start(JobSpec(name="elsewhere", infrastructure=where, runtime=runtime))
        status = run.wait(120)
        assert status.state == "succeeded", (status.reason, *(line.text for line in run.lines()))
        job = place.over(f"elsewhere-{run.id}")
        assert run.outputs() == (job["ModelArtifacts"]["S3ModelArtifacts"],)
        assert run.outputs()[0].endswith("/model.tar.gz")
