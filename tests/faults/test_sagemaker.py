"""Whole flows on SageMaker's stand-in where something goes wrong: nothing is doubled, lost, or left unsaid."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtune import jobs, places, runs
from cloudtune.backends import sagemaker_logs
from cloudtune.errors import CloudtuneError, NoCapacity, NotAllowed, ServiceError
from cloudtune.rehearsal import faults
from cloudtune.runs import Run
from cloudtune.spec.infrastructure import SageMakerTrainingJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.store import Store
from tests.aws_place import AwsPlace, aws_place
from tests.faults.flows import COMMAND, TEXTS, from_now_on, killed_anywhere, sent, watched_and_deleted, written
from tests.processes import eventually
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

pytest.importorskip("botocore", reason="botocore is not installed")

pytestmark = pytest.mark.usefixtures("namespaces")
SAGEMAKER, LOGS, S3 = "aws.sagemaker", "aws.logs", "aws.s3"
#: What a submission sends, and what a watch asks for.
SUBMITTING = ((S3, "put_object"), (SAGEMAKER, "create_training_job"))
WATCHING = ((SAGEMAKER, "describe_training_job"), (LOGS, "filter_log_events"))
ENDING = ((SAGEMAKER, "stop_training_job"), (SAGEMAKER, "delete_training_job"), (S3, "delete_object"))
#: Tries after which the SDK gives up.
TRIES = 6
SPEED = 1000.0


def job(
    on: AwsPlace,
    command: str = COMMAND,
    *,
    replicas: int | None = None,
    code: Path | None = None,
    **more: Any,
) -> JobSpec:
    where = SageMakerTrainingJob(
        region="us-west-2",
        role_arn=on.role,
        instance_type="ml.m5.xlarge",
        image="image:1",
        output_path=f"s3://{on.bucket}/out",
        compress_output=False,
        **more,
    )
    runtime = PyTorchDistributedRuntime(
        command=command, replicas=replicas, script_path_uri=str(code) if code is not None else None
    )
    return JobSpec(name="fault", infrastructure=where, runtime=runtime)


@pytest.fixture
def on(tmp_path: Path) -> Iterator[AwsPlace]:
    with aws_place(tmp_path, speed=SPEED) as place:
        yield place


def made(on: AwsPlace) -> list[str]:
    """Return the names of the jobs that the service has."""
    found = on.sdk("sagemaker", region_name="us-west-2").list_training_jobs(MaxResults=100)
    return [job["TrainingJobName"] for job in found["TrainingJobSummaries"]]


def uploads(on: AwsPlace) -> list[str]:
    """Return what of cloudtune's own lies in S3."""
    found = on.sdk("s3", region_name="us-west-2").list_objects_v2(Bucket=on.bucket).get("Contents", ())
    return [one["Key"] for one in found if "/input/" in one["Key"]]


def watched_and_gone(run: Run, on: AwsPlace) -> None:
    """Watch a run to its end and delete it: each line is there once, and nothing stays."""
    watched_and_deleted(run)
    assert (made(on), uploads(on)) == ([], [])


KINDS = {
    "429": faults.refused("*", status=429, code="ThrottlingException"),
    "503": faults.refused("*", status=503, code="ServiceUnavailable"),
    "cut": faults.cut("*"),
    "lost": faults.lost("*"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_fails_once(kind: str, tmp_path: Path) -> None:
    """Submit, watch and delete; cancel and delete: of every operation the 1st, 3rd, ... call goes wrong."""
    calls = [one for one in (*SUBMITTING, *WATCHING, *ENDING) for _ in range(2)]
    with aws_place(tmp_path, speed=SPEED, faults=faults.each_once(calls, KINDS[kind])) as on:
        watched_and_gone(jobs.start(job(on)), on)
        run = jobs.start(job(on, "echo begun; sleep 300"))
        eventually(lambda: run.state == "running")
        assert run.cancel().state == "cancelled"
        run.delete()
        assert (made(on), uploads(on), Store().runs()) == ([], [], ())
        fired = {(one.service, one.operation) for one in on.stage.faults.fired}
        assert fired >= {*SUBMITTING, *WATCHING, *ENDING}


def test_a_submission_that_cannot_go_on_is_continued(on: AwsPlace) -> None:
    for service, operation in SUBMITTING:
        from_now_on(on.stage, service, operation, faults.lost, calls=TRIES)
        with pytest.raises(ServiceError) as caught:
            jobs.start(job(on))
        (record,) = Store().runs()
        assert f"cloudtune run --resume {record.id}" in str(caught.value)
        watched_and_gone(jobs.resume(record.id), on)


#: Who may not ask for quotas learns of them when a job is refused.
QUOTAS = "servicequotas:ListServiceQuotas"


def test_what_a_quota_does_not_allow_is_refused_before_anything_is_sent(on: AwsPlace) -> None:
    on.cloud.quotas["ml.m5.xlarge"] = 1
    with pytest.raises(NoCapacity) as caught:
        jobs.start(job(on, replicas=2))
    told = str(caught.value)
    assert "takes 2 x ml.m5.xlarge, and the quota 'ml.m5.xlarge for training job usage' (L-" in told
    assert "is 1" in told
    assert "Service Quotas" in (caught.value.hint or "")
    assert Store().runs() == ()
    assert sent(on.stage, "put_object") == sent(on.stage, "create_training_job") == 0
    assert jobs.start(job(on, "true")).wait(240).state == "succeeded"


def test_a_submission_that_is_refused_leaves_nothing(on: AwsPlace) -> None:
    on.cloud.quotas["ml.m5.xlarge"] = 0
    on.cloud.denied.add(QUOTAS)
    with pytest.raises(NoCapacity, match="service limit") as caught:
        jobs.start(job(on))
    assert "left behind" not in str(caught.value)
    assert (made(on), uploads(on)) == ([], [])
    (record,) = Store().runs()
    assert record.state == "failed"


def test_what_a_refused_submission_leaves_is_said(on: AwsPlace) -> None:
    on.cloud.quotas["ml.m5.xlarge"] = 0
    on.cloud.denied |= {QUOTAS, "s3:DeleteObject"}
    with pytest.raises(CloudtuneError) as caught:
        jobs.start(job(on))
    assert "agent (aws.s3 put_object" in str(caught.value).partition("left behind: ")[2]


def test_a_submission_that_is_killed_anywhere_goes_on(on: AwsPlace, tmp_path: Path) -> None:
    """SIGKILL before each thing that `cloudtune run` writes down, sends or asks for."""
    where = {
        "region": "us-west-2",
        "roleArn": on.role,
        "instanceType": "ml.m5.xlarge",
        "image": "image:1",
        "outputPath": f"s3://{on.bucket}/out",
        "compressOutput": False,
    }
    count = killed_anywhere(
        tmp_path,
        "sageMakerTrainingJob",
        where,
        client="cloudtune.clients.aws:AwsClient",
        environ=on.environ,
        least=9,
    )
    assert len(made(on)) == len(set(made(on))) == count


# --- a watch that is disturbed


def test_a_watch_waits_for_a_service_that_is_away(on: AwsPlace) -> None:
    for service, operation in WATCHING:
        run = jobs.start(job(on))
        from_now_on(on.stage, service, operation, faults.lost, calls=2 * TRIES)
        lines = list(run.lines(follow=True))
        assert written(lines) == TEXTS
        notes = [line.text for line in lines if line.stream == "agent" and line.replica is None]
        assert sum("trying again" in note for note in notes) == 1
        assert sum("connected again" in note for note in notes) == 1
    assert on.stage.faults.left() == ()


def test_a_session_that_expires_in_a_watch_is_renewed(on: AwsPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_LONGEST_S", 0.5)
    on.cloud.principals.sign_in(session=True)
    run, lines = jobs.start(job(on, "seq 10; sleep 3; seq 11 20")), []
    for line in run.lines(follow=True):
        lines.append(line)
        if line.text == "10":
            on.cloud.principals.end_sessions()
        if "have expired" in line.text:
            on.cloud.principals.sign_in(session=True)
    assert written(lines) == TEXTS
    assert any("have expired" in line.text for line in lines)
    assert run.state == "succeeded"


def test_a_job_of_two_nodes_that_somebody_else_started(on: AwsPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name and its ARN alone, without cloudtune's agent: lines are labelled by their hosts."""
    monkeypatch.setattr(sagemaker_logs, "QUIET_S", 0.5)
    request = on.job("their-job", "/bin/sh", "-c", 'echo "here is $CURRENT_HOST"; sleep 1; echo bye', nodes=2)
    arn = on.sdk("sagemaker").create_training_job(**request)["TrainingJobArn"]
    lines = list(runs.get(arn).lines(follow=True))
    told = {(line.replica, line.text) for line in lines if line.stream == "stdout" and "substituted" not in line.text}
    assert told == {(node, text) for node in (0, 1) for text in (f"here is algo-{node + 1}", "bye")}
    texts = [line.text for line in lines if line.text.startswith("SageMaker: ")]
    for words in ("downloading the image", "uploading outputs", "s billed on each of 2 instances"):
        assert any(words in text for text in texts), texts
    found = runs.get("their-job")
    assert (found.state, found.exit_code) == ("succeeded", 0)
    assert found.to_dict()["outputs"] == [f"s3://{on.bucket}/out/their-job/output/model.tar.gz"]
    assert "their-job" in found.to_dict()["links"]["console"]
    found.delete()
    assert made(on) == []


def test_a_job_of_another_account_is_not_lost(on: AwsPlace) -> None:
    run = jobs.start(job(on, "sleep 300"))
    eventually(lambda: run.state == "running")
    account, on.cloud.account = on.cloud.account, "210987654321"  # as with another profile
    with pytest.raises(NotAllowed, match=f"submitted to account {account}, and you are in 210987654321"):
        _ = run.status
    with pytest.raises(NotAllowed):
        run.delete()
    on.cloud.account = account
    assert run.cancel().state == "cancelled"
    (name,) = made(on)
    on.sdk("sagemaker", region_name="us-west-2").delete_training_job(TrainingJobName=name)
    run.delete()
    assert Store().runs() == ()


# --- capacity and interruptions


TRAIN = """
import os, sys, time
kept = os.environ["CLOUDTUNE_CHECKPOINT_DIR"] + "/state"
done, value = 0, 1.0
if os.path.exists(kept):
    step, number = open(kept).read().split()
    done, value = int(step), float(number)
    print("resumed", flush=True)
for step in range(done + 1, 31):
    value = value * 0.9 + 0.01 * step
    with open(kept + ".new", "w") as file:
        file.write(f"{step} {value!r}")
    os.replace(kept + ".new", kept)
    print("step", step, value, flush=True)
    time.sleep(0.05)
    while step == 25 and "held" in sys.argv and not done:
        time.sleep(0.05)  # until the interruption, however late that comes
with open(os.environ["CLOUDTUNE_OUTPUT_DIR"] + "/loss", "w") as file:
    file.write(repr(value))
"""


def losses(on: AwsPlace, code: Path, *, faulty: bool) -> tuple[str, list[str], Run]:
    """Train on spot capacity; return the final loss and the log."""
    spot: dict[str, Any] = {
        "use_spot": True,
        "max_runtime_in_seconds": 86400,
        "max_wait_time_in_seconds": 172800,
        "checkpoint_uri": f"s3://{on.bucket}/checkpoints/{'disturbed' if faulty else 'calm'}",
    }
    run = jobs.start(job(on, f"{sys.executable} train.py {'held' if faulty else ''}", code=code, **spot))
    lines = [line.text for line in run.lines(follow=True)]
    assert run.state == "succeeded", lines
    (uri,) = run.outputs()
    key = f"{uri.removeprefix(f's3://{on.bucket}/')}/loss"
    body = on.sdk("s3", region_name="us-west-2").get_object(Bucket=on.bucket, Key=key)["Body"]
    return body.read().decode(), lines, run


def test_an_interrupted_spot_job_goes_on_from_its_checkpoint(on: AwsPlace, tmp_path: Path) -> None:
    """At a random step: the loss at the end is the same as undisturbed."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(TRAIN)
    calm, lines, _ = losses(on, code, faulty=False)
    assert "resumed" not in lines
    at = random.randrange(14, 22)  # lines, of which the agent writes some before the first step
    on.stage.faults.add(faults.event("interrupted", after_lines=at))
    loss, lines, run = losses(on, code, faulty=True)
    assert loss == calm
    assert "resumed" in lines, at
    assert sum("interrupted" in line for line in lines if line.startswith("SageMaker: ")) == 1
    steps = [int(line.split()[1]) for line in lines if line.startswith("step ")]
    again = lines[lines.index("resumed") :]
    assert [int(line.split()[1]) for line in again if line.startswith("step ")][-1] == 30
    assert len(steps) < 45  # it did not begin anew
    assert any("spot saved" in line for line in lines)
    assert any("interrupted" in event["text"] for event in run.to_dict(fresh=True)["events"])


def test_a_job_without_capacity_says_so(on: AwsPlace) -> None:
    on.stage.faults.add(faults.no_capacity())
    run = jobs.start(job(on))
    shown: list[str] = []
    status = run.watch(shown.append)
    assert status.state == "failed"
    assert "CapacityError" in (status.reason or "")
    assert any("waiting for capacity" in line for line in shown)
