"""What replies of SageMaker mean: where a training job lives, its state, and who of it failed first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from cloudtune.backends import farewells
from cloudtune.backends.aws_surroundings import account_of
from cloudtune.node.farewell import WORD
from cloudtune.plan import Call, Plan
from cloudtune.states import Event, Failure, Handle, Status

SERVICE, LOGS = "aws.sagemaker", "aws.logs"
#: Where SageMaker writes what its training jobs say; streams are called JOB/algo-N-EPOCH.
GROUP = "/aws/sagemaker/TrainingJobs"
#: Kinds of runs: with the agent, without it, and found by their name or ARN.
AGENT_JOB, CONTAINER_JOB, FOREIGN_JOB = "trainingJob", "containerJob", "foreignJob"
OVER = frozenset({"Completed", "Failed", "Stopped", "Deleting"})
#: Secondary statuses of a job whose containers do not run (yet, or for a while).
_STARTING = frozenset(
    {
        *("Starting", "LaunchingMLInstances", "PreparingTrainingStack", "Pending", "Updating"),
        *("Downloading", "DownloadingTrainingImage", "Interrupted", "Restarting"),
    }
)
#: Secondary statuses of a job that was stopped by the service itself, with what to do about it.
_TIMES = {
    "MaxRuntimeExceeded": "the time limit was reached: raise maxRuntimeInSeconds",
    "MaxWaitTimeExceeded": "spot capacity did not come in time: raise maxWaitTimeInSeconds, or train without useSpot",
}
#: What a job does in each secondary status, in words.
WORDS = {
    "Starting": "starting",
    "LaunchingMLInstances": "launching instances",
    "PreparingTrainingStack": "preparing the instances",
    "Pending": "waiting for capacity",
    "Downloading": "downloading the input channels",
    "DownloadingTrainingImage": "downloading the image",
    "Training": "training",
    "Uploading": "uploading outputs",
    "Interrupted": "interrupted: the spot capacity was taken away",
    "Restarting": "restarting after a fault of the service",
    "Updating": "updating",
    "Stopping": "stopping",
    "Stopped": "stopped",
    "Completed": "completed",
    "Failed": "failed",
    "MaxRuntimeExceeded": "stopped: its time is over",
    "MaxWaitTimeExceeded": "stopped: it has waited too long",
}

#: Pages of last lines that are fetched as one; the services' others, between two looks.
_PAGES = 50
_ARN = re.compile(r"arn:aws[\w-]*:sagemaker:([a-z0-9-]+):\d{12}:training-job/([A-Za-z0-9](?:-*[A-Za-z0-9]){0,62})")
_NAME = re.compile(r"[A-Za-z0-9](?:-*[A-Za-z0-9]){0,62}")
_EXIT_CODE = re.compile(r"exit code:? (\d+)", re.IGNORECASE)
#: The console's host and the domain of services by the beginning of a region, where they are not those of most.
_CONSOLES = {"cn-": "amazonaws.cn", "us-gov-": "amazonaws-us-gov.com"}


def handle_of(plan: Plan, job: Mapping[str, Any]) -> Handle:
    """Return where the training job of a plan lives, from the reply to its creation; KeyError if that names none."""
    found = _ARN.fullmatch(str(job["TrainingJobArn"]))
    if found is None:
        raise KeyError("TrainingJobArn")
    has_agent = any(file.path == "agent.pyz" for step in plan.steps for file in step.files)
    kind = AGENT_JOB if has_agent else CONTAINER_JOB
    return Handle(backend="sagemaker", scope=found[1], kind=kind, id=found[2])


def recognised(text: str) -> Handle | None:
    """Return the handle of a training job's ARN."""
    found = _ARN.fullmatch(text)
    return Handle(backend="sagemaker", scope=found[1], kind=FOREIGN_JOB, id=found[2]) if found else None


def supposed(text: str) -> tuple[Handle, ...]:
    """Return the handle of what may be a training job's name, in the user's own region: a hyphen is in most of them."""
    if "-" not in text or not _NAME.fullmatch(text):
        return ()
    return (Handle(backend="sagemaker", kind=FOREIGN_JOB, id=text),)


def call(service: str, operation: str, handle: Handle, **parameters: Any) -> Call:
    """Return a call in the job's region."""
    return Call(service=service, operation=operation, parameters=parameters, region=handle.scope or None)


def describe(handle: Handle, **parameters: Any) -> Call:
    """Return the call that asks for all of a job."""
    return call(SERVICE, "describe_training_job", handle, TrainingJobName=handle.id, **parameters)


def whereabouts(handle: Handle, plan: Mapping[str, Any]) -> Call | None:
    """Return the call that tells in whose account one is, None where the plan does not name the job's."""
    return call("aws.sts", "get_caller_identity", handle) if _account(plan) else None


def hides(plan: Mapping[str, Any], who: Mapping[str, Any]) -> str | None:
    """Return why a job may be there though an account does not have it: it is in another one."""
    account = _account(plan)
    if account is None or who.get("Account") == account:
        return None
    return f"it was submitted to account {account}, and you are in {who.get('Account')}"


def _account(plan: Mapping[str, Any]) -> str | None:
    made = next((step for step in plan.get("steps") or () if step["operation"] == "create_training_job"), None)
    return account_of((made or {"parameters": {}})["parameters"].get("RoleArn"))


def status_of(handle: Handle, job: Mapping[str, Any]) -> Status:
    """Return what a training job's statuses mean."""
    state = state_of(job)
    code = exit_code(job)
    where = str((job.get("ModelArtifacts") or {}).get("S3ModelArtifacts") or "").rstrip("/")
    return Status(
        state=state,
        name=job.get("TrainingJobName"),
        reason=reason_of(job) if state != "succeeded" else None,
        failure=Failure(exit_code=code) if state == "failed" and code is not None else None,
        events=tuple(_events(job)),
        links=dict(_links(handle, job)),
        # of a job that was submitted here it is known where its outputs are, which may be another place
        outputs=(where,) if where and handle.kind == FOREIGN_JOB else (),
    )


def state_of(job: Mapping[str, Any]) -> str:
    """Return a job's state."""
    status, secondary = str(job.get("TrainingJobStatus")), str(job.get("SecondaryStatus"))
    if status == "InProgress":
        return "starting" if secondary in _STARTING else "running"
    if status == "Stopped":
        return "failed" if secondary in _TIMES else "cancelled"
    return {"Completed": "succeeded", "Failed": "failed", "Stopping": "stopping", "Deleting": "lost"}.get(
        status, "running"
    )


def reason_of(job: Mapping[str, Any]) -> str | None:
    """Return why a job is as it is: its failure in the service's words, else what it does."""
    secondary = str(job.get("SecondaryStatus") or "")
    if job.get("FailureReason"):
        return str(job["FailureReason"]).strip()
    if secondary in _TIMES:
        return _TIMES[secondary]
    steps = transitions(job)
    return words(steps[-1]) if steps else WORDS.get(secondary)


def exit_code(job: Mapping[str, Any]) -> int | None:
    """Return the exit code that the service names, None if it names none."""
    found = _EXIT_CODE.findall(str(job.get("FailureReason") or ""))
    return int(found[-1]) if found else None  # the last is the service's own, of the container


def transitions(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the steps that a job has come through, oldest first."""
    return list(job.get("SecondaryStatusTransitions") or ())


def words(step: Mapping[str, Any]) -> str:
    """Return one of these steps in words."""
    status, said = str(step.get("Status")), str(step.get("StatusMessage") or "").strip().rstrip(".")
    plain = WORDS.get(status, status)
    # where the message says more than the status does
    return f"{plain} ({said})" if said and status in {"Starting", "Pending", "Restarting", "Interrupted"} else plain


def bill(job: Mapping[str, Any]) -> str | None:
    """Return what a job has taken and what is paid for, None if it never had machines."""
    trained, billed = job.get("TrainingTimeInSeconds"), job.get("BillableTimeInSeconds")
    if billed is None:
        return None
    count = int((job.get("ResourceConfig") or {}).get("InstanceCount") or 1)
    each = f" on each of {count} instances" if count > 1 else ""
    saved = ""
    if job.get("EnableManagedSpotTraining") and trained:
        saved = f" of {trained} s trained (spot saved {100 - round(100 * billed / trained)} %)"
    return f"{billed} s billed{saved}{each}"


def moment(text: str | None) -> float | None:
    """Return a time of the service in seconds since the epoch."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None


def began(job: Mapping[str, Any]) -> float | None:
    """Return when the containers of a job first started, None if they have not."""
    for step in transitions(job):
        if step.get("Status") == "Training":
            return moment(step.get("StartTime"))
    return None


def hosts(job: Mapping[str, Any]) -> dict[str, int]:
    """Return the nodes' numbers by the names of their hosts, which are sorted as text: algo-10 before algo-2."""
    machines = job.get("ResourceConfig") or {}
    groups = machines.get("InstanceGroups") or [machines]
    count = sum(int(group.get("InstanceCount") or 0) for group in groups)
    return {name: rank for rank, name in enumerate(sorted(f"algo-{number + 1}" for number in range(count)))}


def _events(job: Mapping[str, Any]) -> Iterator[Event]:
    created = moment(job.get("CreationTime"))
    if created is not None:
        yield Event(time=created, text="created")
    for step in transitions(job):
        time_s = moment(step.get("StartTime"))
        if time_s is not None:
            yield Event(time=time_s, text=words(step))
    ended, paid = moment(job.get("TrainingEndTime")), bill(job)
    if ended is not None and paid is not None:
        yield Event(time=ended, text=paid)


def _links(handle: Handle, job: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found = _ARN.fullmatch(str(job.get("TrainingJobArn") or ""))
    region = found[1] if found else handle.scope
    if not region:
        return
    domain = next((name for start, name in _CONSOLES.items() if region.startswith(start)), None)
    console = f"https://{region}.console.aws.amazon.com" if domain is None else f"https://console.{domain}"
    yield "console", f"{console}/sagemaker/home?region={region}#/jobs/{handle.id}"
    group, streams = (quote(quote(text, safe=""), safe="").replace("%", "$") for text in (GROUP, f"{handle.id}/"))
    place = f"logsV2:log-groups/log-group/{group}$3FlogStreamNameFilter$3D{streams}"
    yield "log", f"{console}/cloudwatch/home?region={region}#{place}"


# --- who failed first


def explain(handle: Handle, replies: Sequence[Mapping[str, Any]]) -> Call | None:
    """Return the next call that helps to say who failed first, the job's own reply being the first; None for none."""
    job = replies[0]
    start = began(job)
    if handle.kind == CONTAINER_JOB or start is None:
        return None
    complete = farewells.are_complete(_texts(replies))
    finished = moment(job.get("TrainingEndTime")) or float(job["readAt"])
    since_s = float(replies[-1]["readAt"]) - finished
    last = replies[-1].get("nextToken") if len(replies) > 1 else None
    # a page may be without lines though others follow: the service has searched a part of the streams by then
    if complete or (len(replies) > 1 and not last and since_s >= farewells.PATIENCE_S):
        return None
    return call(
        LOGS,
        "filter_log_events",
        handle,
        logGroupName=GROUP,
        logStreamNamePrefix=f"{handle.id}/",
        startTime=int(start * 1000),
        filterPattern=f'"{WORD}"',
        pages=_PAGES,
        absent=True,
        **({"nextToken": last} if last else {}),
    )


def explained(status: Status, replies: Sequence[Mapping[str, Any]]) -> Status:
    """Return the status with what the agents' last lines say: who failed first, and why."""
    return farewells.explained(status, farewells.told(_texts(replies)))


def _texts(replies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for reply in replies[1:]:
        yield from (str(entry.get("message") or "") for entry in reply.get("events") or ())
