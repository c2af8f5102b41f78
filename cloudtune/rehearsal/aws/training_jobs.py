"""SageMaker training jobs: what clients ask about them; what leads one is its controller."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.aws.speech import invalid, page
from cloudtune.rehearsal.aws.training_control import Control
from cloudtune.rehearsal.aws.training_limits import check_request
from cloudtune.rehearsal.aws.training_states import JOB, OVER, moved
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import Asked, AwsCloud, Deed

#: Fields of a request that DescribeTrainingJob does not give back.
_UNTOLD = ("Tags", "SessionChainingConfig")
_SUMMARY = ("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingEndTime", "LastModifiedTime")
_ORDER = {"CreationTime": "CreationTime", "Name": "TrainingJobName", "Status": "TrainingJobStatus"}


class TrainingJobs:
    """The operations of training jobs and their tags."""

    def __init__(self, cloud: AwsCloud) -> None:
        self.cloud = cloud
        self.store = cloud.stage.store
        self._creating = threading.Lock()
        self.operations: Mapping[str, Deed] = {
            "CreateTrainingJob": self.create,
            "DescribeTrainingJob": self.describe,
            "ListTrainingJobs": self.find,
            "StopTrainingJob": self.stop,
            "UpdateTrainingJob": self.update,
            "DeleteTrainingJob": self.delete,
            "AddTags": self.add_tags,
            "ListTags": self.list_tags,
            "DeleteTags": self.delete_tags,
        }

    def create(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Make a job; it begins at once."""
        name = given["TrainingJobName"]
        arn = f"arn:aws:sagemaker:{asked.region}:{self.cloud.account}:training-job/{name}"
        with self._creating:
            if self.store.get(JOB, arn) is not None:
                message = (
                    "Training job names must be unique within an AWS account and region, and a training job with this "
                    f"name already exists ({arn})"
                )
                raise Refused(400, "ResourceInUse", message)
            check_request(self.cloud, given, running=self._running())
            now = self.cloud.now_s()
            told = {key: value for key, value in given.items() if key not in _UNTOLD}
            self.store.add(
                JOB,
                arn,
                {
                    "shown": {
                        **_with_defaults(told),
                        "TrainingJobArn": arn,
                        "TrainingJobStatus": "InProgress",
                        "SecondaryStatus": "Starting",
                        "SecondaryStatusTransitions": [
                            {"Status": "Starting", "StartTime": now, "StatusMessage": "Starting the training job"}
                        ],
                        "CreationTime": now,
                        "LastModifiedTime": now,
                    },
                    "region": asked.region,
                    "tags": {tag["Key"]: tag["Value"] for tag in given.get("Tags", ())},
                },
            )
        control = Control(self.cloud, arn, dict(given), region=asked.region)
        self.cloud.stage.control(f"training job {name}", control.lead)
        return {"TrainingJobArn": arn}

    def describe(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return all of a job."""
        shown: dict[str, Any] = self.job(given, asked).data["shown"]
        return shown

    def find(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a page of jobs, the newest first; a status is looked for among those of the page alone."""
        jobs = [job.data["shown"] for job in self.store.all(JOB, lambda job: job.data["region"] == asked.region)]
        part = given.get("NameContains", "").lower()
        bounds = (
            ("CreationTime", given.get("CreationTimeAfter"), given.get("CreationTimeBefore")),
            ("LastModifiedTime", given.get("LastModifiedTimeAfter"), given.get("LastModifiedTimeBefore")),
        )
        jobs = [job for job in jobs if part in job["TrainingJobName"].lower()]
        for field, after, before in bounds:
            jobs = [job for job in jobs if (after or 0) <= job[field] <= (before or float("inf"))]
        key = _ORDER[given.get("SortBy", "CreationTime")]
        jobs.sort(key=lambda job: job[key], reverse=given.get("SortOrder", "Descending") == "Descending")
        jobs, more = page(jobs, given, usual=10)
        status, pool = given.get("StatusEquals"), given.get("WarmPoolStatusEquals")
        jobs = [job for job in jobs if status is None or job["TrainingJobStatus"] == status]
        jobs = [job for job in jobs if pool is None or job.get("WarmPoolStatus", {}).get("Status") == pool]
        keys = (*_SUMMARY, "TrainingJobStatus", "SecondaryStatus", "WarmPoolStatus")
        return {"TrainingJobSummaries": [{name: job[name] for name in keys if name in job} for job in jobs], **more}

    def stop(self, given: Mapping[str, Any], asked: Asked) -> None:
        """Let a job end early; it takes a while."""
        job = self.job(given, asked)

        def stopping(data: dict[str, Any]) -> dict[str, Any] | None:
            if data["shown"]["TrainingJobStatus"] != "InProgress":
                return None
            return {"shown": moved(data["shown"], "Stopping", "Stopping the training job", self.cloud.now_s())}

        if self.store.update(JOB, job.id, stopping) is None:
            status = self.job(given, asked).data["shown"]["TrainingJobStatus"]
            raise invalid(f"The request was rejected because the training job is in status {status}.")

    def update(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Change how long a job's machines are kept."""
        job = self.job(given, asked)
        period = given.get("ResourceConfig", {}).get("KeepAlivePeriodInSeconds")

        def kept(data: dict[str, Any]) -> dict[str, Any] | None:
            shown = data["shown"]
            if shown.get("WarmPoolStatus", {}).get("Status") not in {"InUse", "Available"}:
                return None
            resources = {**shown["ResourceConfig"], "KeepAlivePeriodInSeconds": period}
            return {"shown": {**shown, "ResourceConfig": resources, "LastModifiedTime": self.cloud.now_s()}}

        if period is not None and self.store.update(JOB, job.id, kept) is None:
            raise invalid("The training job has no warm pool whose KeepAlivePeriodInSeconds could be changed.")
        return {"TrainingJobArn": job.id}

    def delete(self, given: Mapping[str, Any], asked: Asked) -> None:
        """Forget a job that is over; its name can be taken again."""
        job = self.job(given, asked)
        status = job.data["shown"]["TrainingJobStatus"]
        pool = job.data["shown"].get("WarmPoolStatus", {}).get("Status")
        if status not in OVER or pool == "Available":
            what = "retains a warm pool" if status in OVER else f"is in status {status}"
            raise Refused(400, "ResourceInUse", f"Training job {job.id} cannot be deleted: it {what}.")
        self.store.remove(JOB, job.id)

    def add_tags(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Tag a job."""
        tags = {tag["Key"]: tag["Value"] for tag in given["Tags"]}
        changed = self.store.update(JOB, given["ResourceArn"], lambda data: {"tags": {**data["tags"], **tags}})
        return {"Tags": _tags(_there(changed).data["tags"])}

    def list_tags(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a job's tags."""
        return {"Tags": _tags(_there(self.store.get(JOB, given["ResourceArn"])).data["tags"])}

    def delete_tags(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Take tags from a job."""
        gone = set(given["TagKeys"])

        def without(data: dict[str, Any]) -> dict[str, Any]:
            return {"tags": {key: value for key, value in data["tags"].items() if key not in gone}}

        _there(self.store.update(JOB, given["ResourceArn"], without))
        return {}

    def job(self, given: Mapping[str, Any], asked: Asked) -> Resource:
        """Return the job of a name; Refused where there is none."""
        arn = f"arn:aws:sagemaker:{asked.region}:{self.cloud.account}:training-job/{given['TrainingJobName']}"
        return _there(self.store.get(JOB, arn))

    def _running(self) -> Counter[str]:
        """Return how many instances of each type are in use."""
        running: Counter[str] = Counter()
        for job in self.store.all(JOB):
            shown = job.data["shown"]
            if shown["TrainingJobStatus"] not in OVER:
                running[shown["ResourceConfig"]["InstanceType"]] += shown["ResourceConfig"]["InstanceCount"]
        return running


def _there(found: Resource | None) -> Resource:
    if found is None:
        raise invalid("Requested resource not found.")
    return found


def _with_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was asked for with what the service adds."""
    flags = ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining")
    channels = [
        {"CompressionType": "None", "RecordWrapperType": "None", **one} for one in given.get("InputDataConfig", ())
    ]
    algorithm = {"EnableSageMakerMetricsTimeSeries": False, **given["AlgorithmSpecification"]}
    output = {"KmsKeyId": "", "CompressionType": "GZIP", **given["OutputDataConfig"]}
    stopping = {"MaxRuntimeInSeconds": 24 * 3600, **given["StoppingCondition"]}
    made = {**dict.fromkeys(flags, False), **given, "AlgorithmSpecification": algorithm}
    made |= {"OutputDataConfig": output, "StoppingCondition": stopping}
    return {**made, **({"InputDataConfig": channels} if channels else {})}


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
