"""cloudtune's own job on the stand-in: planned, carried out by its client, run by the agent on two nodes."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from cloudtune import storage
from cloudtune.plan import Plan
from cloudtune.rehearsal import faults
from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.spec.sagemaker import SageMakerTrainingJob
from cloudtune.submit import submit
from tests.aws_place import AwsPlace, aws_place
from tests.journal import Journal

pytestmark = pytest.mark.usefixtures("namespaces")
RUN_ID = "abcdefgh"


def planned(place: AwsPlace, code: Path, command: Any, **changes: Any) -> Plan:
    from cloudtune.backends.sagemaker import SageMakerBackend

    infrastructure = SageMakerTrainingJob(
        region="us-west-2",
        role_arn=place.role,
        instance_type="ml.m5.xlarge",
        image="img:1",
        output_path=f"s3://{place.bucket}/out",
        compress_output=False,
    )
    runtime = PyTorchDistributedRuntime(command=command, replicas=2, script_path_uri=str(code), **changes)
    return SageMakerBackend().plan(JobSpec(name="tuned", infrastructure=infrastructure, runtime=runtime), RUN_ID)


def send(plan: Plan) -> dict[str, Any]:
    from cloudtune.clients.aws import AwsClient

    return dict(submit(plan, AwsClient(), Journal(), environ={}, sleep=lambda _: time.sleep(0.02)))


def lines(place: AwsPlace) -> list[str]:
    place.stage.clock.push(60)  # whatever is on its way is there
    found = place.sdk("logs").get_paginator("filter_log_events").paginate(logGroupName="/aws/sagemaker/TrainingJobs")
    return [event["message"] for page in found for event in page["events"]]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "say.sh").write_text(
        'echo "$CLOUDTUNE_NODE_RANK of $CLOUDTUNE_NUM_NODES by $CLOUDTUNE_MAIN_ADDR"\n'
        'echo "$HUSH" | wc -c\n[ $CLOUDTUNE_NODE_RANK = 1 ] || cp say.sh "$SM_MODEL_DIR/model.txt"\nexit ${CODE:-0}\n'
    )
    return folder


def test_the_agent_runs_a_job_over_two_nodes_with_every_reply_lost_once(tmp_path: Path, code: Path) -> None:
    calls = [("aws.s3", "put_object")] * 3 + [("aws.sagemaker", "create_training_job")]
    with aws_place(tmp_path, faults=faults.each_once(calls, faults.lost("*"))) as place:
        secret = place.sdk("secretsmanager").create_secret(Name="hush", SecretString="not to be told")["ARN"]
        env = (EnvironmentVariable(name="HUSH", secret=secret),)
        replies = send(planned(place, code, "bash say.sh", env=env))
        assert replies["job"]["TrainingJobArn"].endswith(f":training-job/tuned-{RUN_ID}")
        job = place.over(f"tuned-{RUN_ID}")
        said = lines(place)
        assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), said)
        words = sorted(found[1] for line in said if (found := re.search(r" O (\d+ of 2 by .*|\d+)$", line)))
        assert words == ["0 of 2 by algo-1", "1 of 2 by algo-1", "15", "15"]
        assert "not to be told" not in "".join(said)
        model = job["ModelArtifacts"]["S3ModelArtifacts"]
        assert model == f"s3://{place.bucket}/out/tuned-{RUN_ID}/output/model/"
        assert "model.txt" in {entry.path for entry in storage.listing(model)}
        assert place.stage.faults.left() == ()
        assert len(place.sdk("sagemaker").list_training_jobs()["TrainingJobSummaries"]) == 1


def test_a_failed_job_says_what_its_agent_wrote(place: AwsPlace, code: Path) -> None:
    env = (EnvironmentVariable(name="CODE", value="7"),)
    send(planned(place, code, ["bash", "-c", 'echo "$0"; exec bash say.sh', "two  words; $(id)"], env=env))
    job = place.over(f"tuned-{RUN_ID}")
    assert job["TrainingJobStatus"] == "Failed"
    assert re.match(r"AlgorithmError: .*7", job["FailureReason"], re.DOTALL)
    assert any(line.endswith(" O two  words; $(id)") for line in lines(place))
