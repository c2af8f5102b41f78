"""What DescribeTrainingJob's replies mean, and how names and ARNs of jobs are recognised."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtune.backends import sagemaker_logs, sagemaker_runs
from cloudtune.backends.sagemaker import SageMakerBackend
from cloudtune.states import Handle

ARN = "arn:aws:sagemaker:eu-west-1:123456789012:training-job/tune-abcdefgh"
HANDLE = Handle(backend="sagemaker", scope="eu-west-1", kind=sagemaker_runs.AGENT_JOB, id="tune-abcdefgh")
BACKEND = SageMakerBackend()


def reply(status: str, secondary: str, **more: Any) -> dict[str, Any]:
    """Return what the service says of a job that has come through three steps."""
    steps = [
        {"Status": "Starting", "StartTime": "2026-11-21T07:00:00+00:00", "StatusMessage": "Starting the training job"},
        {"Status": "Training", "StartTime": "2026-11-21T07:01:00+00:00", "StatusMessage": "In progress."},
        {"Status": secondary, "StartTime": "2026-11-21T07:02:00+00:00", "StatusMessage": ""},
    ]
    names = {"TrainingJobName": "tune-abcdefgh", "TrainingJobArn": ARN}
    times = {"CreationTime": "2026-11-21T07:00:00+00:00"}
    states = {"TrainingJobStatus": status, "SecondaryStatus": secondary, "SecondaryStatusTransitions": steps}
    return {**names, **times, **states, "ResourceConfig": {"InstanceCount": 11}, **more}


@pytest.mark.parametrize(
    ("status", "secondary", "state", "words"),
    [
        ("InProgress", "Pending", "starting", "waiting for capacity"),
        ("InProgress", "DownloadingTrainingImage", "starting", "downloading the image"),
        ("InProgress", "Training", "running", "training"),
        ("InProgress", "Interrupted", "starting", "spot capacity was taken away"),
        ("InProgress", "Restarting", "starting", "restarting"),
        ("InProgress", "Uploading", "running", "uploading"),
        ("InProgress", "SomethingNew", "running", "SomethingNew"),
        ("Stopping", "Stopping", "stopping", "stopping"),
        ("Stopped", "Stopped", "cancelled", "stopped"),
        ("Stopped", "MaxRuntimeExceeded", "failed", "raise maxRuntimeInSeconds"),
        ("Stopped", "MaxWaitTimeExceeded", "failed", "raise maxWaitTimeInSeconds"),
        ("Deleting", "Completed", "lost", "completed"),
    ],
)
def test_statuses_are_states_and_words(status: str, secondary: str, state: str, words: str) -> None:
    found = BACKEND.status(HANDLE, reply(status, secondary))
    assert found.state == state
    assert words in (found.reason or "")
    assert found.events[-1].text


def test_a_failure_has_the_containers_exit_code_and_the_bill() -> None:
    why = "AlgorithmError: rank 3 failed (exit code 9); the command ended with exit code 1, exit code: 1"
    spot = {"EnableManagedSpotTraining": True, "TrainingTimeInSeconds": 100, "BillableTimeInSeconds": 30}
    ended = {"TrainingEndTime": "2026-11-21T07:03:00+00:00", **spot}
    found = BACKEND.status(HANDLE, reply("Failed", "Failed", FailureReason=why, **ended))
    assert (found.state, found.reason) == ("failed", why)
    assert found.failure is not None
    assert found.failure.exit_code == 1
    assert found.events[-1].text == "30 s billed of 100 s trained (spot saved 70 %) on each of 11 instances"
    assert BACKEND.status(HANDLE, reply("Failed", "Failed", FailureReason="CapacityError: none")).failure is None


def test_outputs_of_a_job_of_somebody_else_are_where_the_service_says() -> None:
    done = reply("Completed", "Completed", ModelArtifacts={"S3ModelArtifacts": "s3://b/out/j/output/model/"})
    foreign = BACKEND.recognise(ARN)
    assert foreign is not None
    assert BACKEND.status(foreign, done).outputs == ("s3://b/out/j/output/model",)
    assert BACKEND.status(HANDLE, done).outputs == ()


def test_links_lead_to_the_consoles_of_the_region() -> None:
    links = BACKEND.status(HANDLE, reply("InProgress", "Training")).links
    assert links["console"].startswith(
        "https://eu-west-1.console.aws.amazon.com/sagemaker/home?region=eu-west-1#/jobs/"
    )
    assert "$252Faws$252Fsagemaker$252FTrainingJobs" in links["log"]
    china = reply(
        "InProgress", "Training", TrainingJobArn=ARN.replace("aws:", "aws-cn:").replace("eu-west", "cn-north")
    )
    assert "https://console.amazonaws.cn/" in BACKEND.status(HANDLE, china).links["console"]


def test_names_and_arns_are_recognised() -> None:
    found = BACKEND.recognise(ARN)
    assert found is not None
    assert (found.scope, found.kind, found.id) == ("eu-west-1", sagemaker_runs.FOREIGN_JOB, "tune-abcdefgh")
    assert BACKEND.recognise("tune-abcdefgh") is None
    assert BACKEND.suppose("tune-abcdefgh") == (Handle(backend="sagemaker", kind=found.kind, id=found.id),)
    for text in ("abcdefgh", "no such thing", "a--b-", f"{'a' * 63}-b", "ocid1.datasciencejobrun.oc1..x"):
        assert BACKEND.suppose(text) == (), text


def test_hosts_are_in_the_order_of_their_names() -> None:
    ranks = sagemaker_runs.hosts(reply("InProgress", "Training"))
    assert [ranks[name] for name in ("algo-1", "algo-10", "algo-11", "algo-2")] == [0, 1, 2, 3]


def test_a_page_without_lines_is_no_end() -> None:
    """The service may have searched a part of the streams only: its token is given back."""
    look = {**reply("InProgress", "Training"), "readAt": 1795244760.0}
    call = BACKEND.logs(HANDLE, None)
    _, cursor = BACKEND.lines(HANDLE, {**look, "cursor": call.parameters["cursor"]})
    call = BACKEND.logs(HANDLE, cursor)
    assert (call.region, call.parameters["logStreamNamePrefix"]) == ("eu-west-1", "tune-abcdefgh/")
    page = {"events": [], "nextToken": "more", "readAt": 1795244761.0, "cursor": cursor}
    lines, cursor = BACKEND.lines(HANDLE, page)
    assert (lines, (cursor or {})["caughtUp"]) == ((), False)
    assert BACKEND.logs(HANDLE, cursor).parameters["nextToken"] == "more"
    _, cursor = BACKEND.lines(HANDLE, {"absent": True, "readAt": 1795244762.0, "cursor": cursor})
    assert "nextToken" not in sagemaker_logs.next_call(HANDLE, {**(cursor or {}), "next": "search"}).parameters


def test_last_lines_are_read_to_the_last_page() -> None:
    """Of a run that ended long ago, too: a page without lines may be followed by others."""
    failed = {**reply("Failed", "Failed"), "TrainingEndTime": "2026-11-21T07:05:00+00:00", "readAt": 1795330000.0}
    first = BACKEND.explain(HANDLE, [failed])
    assert first is not None
    assert "nextToken" not in first.parameters
    page = {"events": [], "nextToken": "more", "readAt": 1795330001.0}
    following = BACKEND.explain(HANDLE, [failed, page])
    assert following is not None
    assert following.parameters["nextToken"] == "more"
    assert BACKEND.explain(HANDLE, [failed, page, {"events": [], "readAt": 1795330002.0}]) is None
