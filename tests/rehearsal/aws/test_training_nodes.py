"""The nodes of rehearsed training jobs: what they see, what comes of what they leave, how jobs end."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtune.rehearsal.aws.cloud import Timing
from cloudtune.rehearsal.aws.training_files import Checkpoints
from cloudtune.rehearsal.faults import event, no_capacity, node_dies
from tests.aws_place import AwsPlace, aws_place, until

pytestmark = pytest.mark.usefixtures("namespaces")
LOGS = "/aws/sagemaker/TrainingJobs"
QUICK = Timing(interrupted_s=4, sync_s=20)


def channel(place: AwsPlace, name: str, prefix: str, **more: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{place.bucket}/{prefix}", **more}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def begin(place: AwsPlace, name: str, script: str, program: str = "sh", **changes: Any) -> None:
    """Begin a job that runs a script, which comes by a channel: arguments are short."""
    put(place, **{f"scripts/{name}": script})
    inputs = [channel(place, "script", f"scripts/{name}"), *changes.pop("InputDataConfig", ())]
    request = place.job(name, program, f"/opt/ml/input/data/script/{name}", InputDataConfig=inputs, **changes)
    place.sdk("sagemaker").create_training_job(**request)


def run(place: AwsPlace, name: str, script: str, **changes: Any) -> dict[str, Any]:
    begin(place, name, script, **changes)
    return place.over(name)


def steps(job: dict[str, Any]) -> list[str]:
    return [step["Status"] for step in job["SecondaryStatusTransitions"]]


def put(place: AwsPlace, **objects: str) -> None:
    for key, text in objects.items():
        place.sdk("s3").put_object(Bucket=place.bucket, Key=key, Body=text.encode())


def got(place: AwsPlace, key: str) -> bytes:
    return bytes(place.sdk("s3").get_object(Bucket=place.bucket, Key=key)["Body"].read())


def keys(place: AwsPlace, prefix: str) -> list[str]:
    found = place.sdk("s3").list_objects_v2(Bucket=place.bucket, Prefix=prefix)
    return [each["Key"].removeprefix(prefix) for each in found.get("Contents", ())]


def said(place: AwsPlace, job: str, host: str, count: int) -> list[str]:
    """Return a host's lines, once so many of them have come."""
    client = place.sdk("logs")

    def lines_of(stream: str) -> Iterator[str]:
        token: dict[str, str] = {}
        while True:
            page = client.get_log_events(logGroupName=LOGS, logStreamName=stream, startFromHead=True, **token)
            yield from (line["message"] for line in page["events"])
            if page["nextForwardToken"] == token.get("nextToken"):
                return
            token = {"nextToken": page["nextForwardToken"]}

    def look() -> list[str]:
        try:
            found = client.describe_log_streams(logGroupName=LOGS, logStreamNamePrefix=f"{job}/{host}-")
        except client.exceptions.ResourceNotFoundException:
            return []
        lines = [line for stream in found["logStreams"] for line in lines_of(stream["logStreamName"])]
        return lines if len(lines) >= count else []

    return list(until(look))


def test_nodes_see_their_channels_their_names_and_each_other(place: AwsPlace) -> None:
    put(place, **{f"data/{number}.txt": str(number) for number in range(5)}, **{"one/file.json": "[1]"})
    script = """
    cat /opt/ml/input/data/all/*.txt; echo; ls /opt/ml/input/data/part; cat /opt/ml/input/data/single/file.json; echo
    cat /opt/ml/input/config/resourceconfig.json; echo; cat /opt/ml/input/config/hyperparameters.json; echo
    getent hosts algo-2 | wc -l; hostname; echo $SPACED
    """
    shards = channel(place, "part", "data", S3DataDistributionType="ShardedByS3Key")
    inputs = [channel(place, "all", "data/"), shards, channel(place, "single", "one/file.json")]
    changes = {"InputDataConfig": inputs, "Environment": {"SPACED": "a  b"}, "HyperParameters": {"lr": "1e-4"}}
    assert run(place, "see", script, nodes=2, **changes)["TrainingJobStatus"] == "Completed"
    first, second = said(place, "see", "algo-1", 12), said(place, "see", "algo-2", 11)
    assert first[0].startswith("rehearsed: substituted: image img:1")
    assert first[2:7] == ["01234", "0.txt", "2.txt", "4.txt", "[1]"]
    assert second[2:6] == ["01234", "1.txt", "3.txt", "[1]"]
    config = json.loads(second[6])
    assert (config["current_host"], config["hosts"]) == ("algo-2", ["algo-1", "algo-2"])
    assert config["current_instance_type"] == "ml.g5.12xlarge"
    assert second[7:] == ['{"lr": "1e-4"}', "1", "algo-2", "a  b" if second[-1] == "a  b" else "a b"]


def test_hosts_are_in_the_order_of_their_letters(place: AwsPlace) -> None:
    script = "tr -d '\\n' < /opt/ml/input/config/resourceconfig.json > /opt/ml/model/$CURRENT_HOST"
    loose = {"OutputDataConfig": {"S3OutputPath": f"s3://{place.bucket}/out", "CompressionType": "NONE"}}
    assert run(place, "many", script, nodes=11, **loose)["TrainingJobStatus"] == "Completed"
    config = json.loads(got(place, "out/many/output/model/algo-2"))
    assert config["hosts"] == ["algo-1", "algo-10", "algo-11", *(f"algo-{number}" for number in range(2, 10))]


def test_what_nodes_leave_is_sent_as_one_archive_or_as_it_is(place: AwsPlace) -> None:
    script = "echo $CURRENT_HOST > /opt/ml/model/$CURRENT_HOST; mkdir /opt/ml/output/data/d; echo 1 > /opt/ml/output/data/d/x"
    job = run(place, "packed", script, nodes=2)
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{place.bucket}/out/packed/output/model.tar.gz"
    with tarfile.open(fileobj=io.BytesIO(got(place, "out/packed/output/model.tar.gz"))) as archive:
        assert archive.getnames() == ["algo-1", "algo-2"]
    loose = {"OutputDataConfig": {"S3OutputPath": f"s3://{place.bucket}/out/", "CompressionType": "NONE"}}
    job = run(place, "loose", script, nodes=2, **loose)
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{place.bucket}/out/loose/output/model/"
    assert keys(place, "out/loose/output/") == ["data/d/x", "model/algo-1", "model/algo-2"]
    assert job["BillableTimeInSeconds"] == job["TrainingTimeInSeconds"] >= 1
    assert steps(job) == [
        *("Starting", "Pending", "Downloading", "DownloadingTrainingImage", "Training", "Uploading", "Completed"),
    ]


def test_the_first_failure_is_the_reason_and_its_file_is_cut(place: AwsPlace) -> None:
    script = """
    if [ $CURRENT_HOST = algo-2 ]; then printf 'boom %.0s' $(seq 400) > /opt/ml/output/failure; exit 3; fi
    trap 'exit 9' TERM; sleep 60 & wait
    """
    job = run(place, "bad", script, nodes=2)
    assert (job["TrainingJobStatus"], steps(job)[-2:]) == ("Failed", ["Uploading", "Failed"])
    assert job["FailureReason"].startswith("AlgorithmError: boom boom")
    assert job["FailureReason"].endswith(", exit code: 3")
    assert len(job["FailureReason"]) == 1024
    assert "ModelArtifacts" not in job
    assert run(place, "mute", "exit 7")["FailureReason"] == "AlgorithmError: , exit code: 7"


def test_a_stopped_job_gets_its_term_and_keeps_what_it_saved(place: AwsPlace) -> None:
    script = "trap 'echo saved > /opt/ml/model/m; exit 0' TERM; echo ready; sleep 60 & wait"
    begin(place, "long", script)
    said(place, "long", "algo-1", 3)
    place.sdk("sagemaker").stop_training_job(TrainingJobName="long")
    job = place.over("long")
    assert (job["TrainingJobStatus"], steps(job)[-2:]) == ("Stopped", ["Stopping", "Stopped"])
    with tarfile.open(fileobj=io.BytesIO(got(place, "out/long/output/model.tar.gz"))) as archive:
        assert archive.getnames() == ["m"]


def test_time_limits_end_a_job_as_stopped(place: AwsPlace) -> None:
    job = run(place, "limited", "exec sleep 60", StoppingCondition={"MaxRuntimeInSeconds": 60})
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert "ModelArtifacts" in job
    assert "FailureReason" not in job


def test_a_spot_job_goes_on_from_its_checkpoints(tmp_path: Path) -> None:
    script = """
    trap 'over=yes' TERM
    for step in $(seq 1 6); do
      [ -e /opt/ml/checkpoints/$step ] && continue
      [ $over ] && exit 1
      echo step $step; echo $step > /opt/ml/checkpoints/$step; sleep 0.05
    done; ls /opt/ml/checkpoints | tr '\\n' ' ' > /opt/ml/model/steps
    """
    with aws_place(tmp_path, faults=[event("interrupted", "spot", after_lines=3)], timing=QUICK) as place:
        spot = {
            "EnableManagedSpotTraining": True,
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
            "CheckpointConfig": {"S3Uri": f"s3://{place.bucket}/ck/", "LocalPath": "/opt/ml/checkpoints"},
        }
        job = run(place, "spot", script, **spot)
        assert job["TrainingJobStatus"] == "Completed"
        assert steps(job)[4:8] == ["Training", "Interrupted", "Starting", "Pending"]
        assert keys(place, "ck/") == [str(step) for step in range(1, 7)]
        lines = [line for line in said(place, "spot", "algo-1", 10) if line.startswith("step")]
        assert lines == [f"step {step}" for step in range(1, 7)]
        with tarfile.open(fileobj=io.BytesIO(got(place, "out/spot/output/model.tar.gz"))) as archive:
            text = archive.extractfile("steps")
            assert text is not None
            assert text.read().split() == [b"1", b"2", b"3", b"4", b"5", b"6"]
        streams = place.sdk("logs").describe_log_streams(logGroupName=LOGS)["logStreams"]
        assert len(streams) == 2
        assert job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"]
        assert place.stage.faults.left() == ()


def test_machines_that_are_not_there_and_machines_that_die(tmp_path: Path) -> None:
    faults = [
        no_capacity("ml.p5.48xlarge"),
        no_capacity("ml.g6.xlarge", numbers=()),
        node_dies("algo-2", after_lines=1),
    ]
    with aws_place(tmp_path, faults=faults, timing=QUICK) as place:

        def on(kind: str, count: int = 1) -> dict[str, Any]:
            return {"ResourceConfig": {"InstanceType": kind, "InstanceCount": count, "VolumeSizeInGB": 1}}

        assert run(place, "none", "true", **on("ml.p5.48xlarge"))["FailureReason"].startswith("CapacityError: Unable")
        spot = {
            "EnableManagedSpotTraining": True,
            "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90},
        }
        job = run(place, "never", "true", **on("ml.g6.xlarge"), **spot)
        assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
        job = run(
            place,
            "again",
            "echo hello; [ $CURRENT_HOST = algo-1 ] || sleep 2",
            **on("ml.g5.xlarge", 2),
            RetryStrategy={"MaximumRetryAttempts": 1},
        )
        assert job["TrainingJobStatus"] == "Completed"
        assert steps(job).count("Restarting") == 1


def test_a_role_gives_nodes_keys_and_s3fs_finds_the_stand_in(place: AwsPlace) -> None:
    code = f"""
import json, urllib.request, os
import s3fs
files = s3fs.S3FileSystem()
files.pipe("{place.bucket}/from/node.txt", b"written")
print(files.ls("{place.bucket}/from"))
import botocore.session
print(botocore.session.Session().create_client("sts").get_caller_identity()["Arn"])
"""
    job = run(place, "role", code, program=sys.executable)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    lines = said(place, "role", "algo-1", 4)
    assert lines[2:] == [
        f"['{place.bucket}/from/node.txt']",
        f"arn:aws:sts::{place.cloud.account}:assumed-role/training/SageMaker",
    ]
    assert got(place, "from/node.txt") == b"written"


def test_machines_are_kept_for_as_long_as_was_asked(place: AwsPlace) -> None:
    resources = {**place.job("x", "true")["ResourceConfig"], "KeepAlivePeriodInSeconds": 3600}
    client = place.sdk("sagemaker")
    run(place, "warm", "true", ResourceConfig=resources)

    def pool() -> str:
        job = client.describe_training_job(TrainingJobName="warm")
        return str(job.get("WarmPoolStatus", {}).get("Status"))

    until(lambda: pool() == "Available")
    client.update_training_job(TrainingJobName="warm", ResourceConfig={"KeepAlivePeriodInSeconds": 0})
    until(lambda: pool() == "Terminated")


def described(place: AwsPlace, name: str) -> dict[str, Any]:
    return dict(place.sdk("sagemaker").describe_training_job(TrainingJobName=name))


def test_channels_that_cannot_be_filled_fail_their_jobs(place: AwsPlace) -> None:
    put(place, **{"plain/x.txt": "plain", "clash/a": "file", "clash/a/b": "below it", "cut": "[", "loose": '[{}, "x"]'})
    manifests = {"S3DataType": "ManifestFile"}
    cases = {
        "gzip": ({**channel(place, "c", "plain"), "CompressionType": "Gzip"}, "cannot be decompressed"),
        "clash": (channel(place, "c", "clash/"), "a previously downloaded file/folder clashes with it"),
        "cut": (channel(place, "c", "cut", **manifests), "is not a manifest"),
        "loose": (channel(place, "c", "loose", **manifests), "is not a manifest"),
        "folder": (channel(place, "c", "plain", **manifests), "does not exist"),
    }
    for name, (one, words) in cases.items():
        job = run(place, name, "true", InputDataConfig=[one])
        assert (job["TrainingJobStatus"], steps(job)[-2:]) == ("Failed", ["Downloading", "Failed"])
        assert job["FailureReason"].startswith("ClientError: Data download failed:")
        assert words in job["FailureReason"]


def checkpointed(place: AwsPlace) -> dict[str, Any]:
    """Return what a job that writes a checkpoint is asked for, of a bucket that is made."""
    place.cloud.make_bucket("rehearsed-checkpoints")
    return {"CheckpointConfig": {"S3Uri": "s3://rehearsed-checkpoints/ck"}}


SAVES = "echo 1 > /opt/ml/checkpoints/1; exec sleep 60"


def test_a_bucket_that_goes_away_fails_the_job(place: AwsPlace, controllers: list[Callable[[], None]]) -> None:
    begin(place, "gone", SAVES, **checkpointed(place))
    place.sdk("s3").delete_bucket(Bucket="rehearsed-checkpoints")
    (lead,) = controllers
    lead()
    job = described(place, "gone")
    assert (job["TrainingJobStatus"], steps(job)[-2:]) == ("Failed", ["Training", "Failed"])
    assert job["FailureReason"].startswith("ClientError: Checkpoint upload failed:The specified bucket does not exist")


def test_what_fails_in_the_stand_in_itself_ends_job_and_nodes(
    place: AwsPlace, controllers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Checkpoints, "send", broken)
    begin(place, "broken", SAVES, **checkpointed(place))
    (lead,) = controllers
    with pytest.raises(RuntimeError, match="broken"):
        lead()
    job = described(place, "broken")
    assert (job["TrainingJobStatus"], job["FailureReason"][:20]) == ("Failed", "InternalServerError:")
    assert [node.end is not None for node in lead.func.__self__._running] == [True]


def test_a_folder_of_checkpoints_may_go_while_it_is_looked_through(
    place: AwsPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("going", "kept"):
        (tmp_path / "ck" / name).mkdir(parents=True)
        (tmp_path / "ck" / name / "x").write_text(name)
    scandir = os.scandir

    def late(path: Any) -> Any:
        if Path(path).name == "going":
            Path(path, "x").unlink()
            Path(path).rmdir()
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", late)
        Checkpoints(place.cloud.borrowed, f"s3://{place.bucket}/ck").send([tmp_path / "ck"])
    assert keys(place, "ck/") == ["kept/x"]


def test_a_stop_as_the_nodes_end_is_told_until_the_job_has_stopped(
    place: AwsPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, seen = place.stage.store.update, []

    def stopped_first(kind: str, identity: str, deed: Callable[[dict[str, Any]], Any]) -> Any:
        before = place.stage.store.get(kind, identity)
        after = deed(before.data) if before is not None else None
        if not seen and after and after.get("shown", {}).get("SecondaryStatus") == "Uploading":
            seen.append(after)
            place.sdk("sagemaker").stop_training_job(TrainingJobName="late")
        return update(kind, identity, deed)

    monkeypatch.setattr(place.stage.store, "update", stopped_first)
    job = run(place, "late", "true")
    assert (len(seen), job["TrainingJobStatus"], steps(job)[-2:]) == (1, "Stopped", ["Stopping", "Stopped"])
