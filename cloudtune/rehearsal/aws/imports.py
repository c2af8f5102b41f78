"""Bedrock's Custom Model Import: jobs that look at the files in S3, and the models that they make."""

from __future__ import annotations

import hashlib
import json
import secrets
import string
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.aws.import_limits import ARCHITECTURES, REGIONS, Prefix, Unimportable, check_files
from cloudtune.rehearsal.aws.speech import invalid, page
from cloudtune.rehearsal.aws.training_limits import bucket_and_key
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import Asked, AwsCloud, Deed

JOB, MODEL = "aws.import_job", "aws.imported_model"
#: A fault of this kind, by the name of the imported model, lets its import fail.
IMPORT_FAILS = "import fails"
_INTERNAL = "An internal error occurred during the import."
_LETTERS = string.ascii_lowercase + string.digits
_JOB_FIELDS = ("jobArn", "jobName", "status", "lastModifiedTime", "creationTime", "endTime")
_MODEL_FIELDS = ("modelArn", "modelName", "creationTime", "instructSupported", "modelArchitecture")
_SHOWN = ("jobName", "importedModelName", "roleArn", "modelDataSource", "vpcConfig")


class Imports:
    """The operations of import jobs and imported models."""

    def __init__(self, cloud: AwsCloud) -> None:
        self.cloud = cloud
        self.store = cloud.stage.store
        self._creating = threading.Lock()
        self.operations: Mapping[str, Deed] = {
            "CreateModelImportJob": self.create,
            "GetModelImportJob": self.get_job,
            "ListModelImportJobs": self.list_jobs,
            "GetImportedModel": self.get_model,
            "ListImportedModels": self.list_models,
            "DeleteImportedModel": self.delete_model,
            "ListTagsForResource": self.list_tags,
        }

    def create(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Begin an import; a second request with the same token is the same job."""
        if asked.region not in REGIONS:
            raise invalid(f"Custom Model Import is not available in {asked.region}.")
        digest = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
        with self._creating:
            token = given.get("clientRequestToken")
            for job in self._all(JOB, asked) if token else ():
                if job.data["token"] == token:
                    if job.data["digest"] != digest:
                        message = "The client request token was used before, with other parameters."
                        raise Refused(400, "ConflictException", message)
                    return {"jobArn": job.id}
            self._check(given, asked)
            return {"jobArn": self._make(given, asked, digest)}

    def _make(self, given: Mapping[str, Any], asked: Asked, digest: str) -> str:
        arn = self._arn(asked.region, "model-import-job")
        now = self._now()
        shown = {key: given[key] for key in _SHOWN if key in given}
        times = {"creationTime": now, "lastModifiedTime": now}
        data = {
            "shown": {**shown, **times, "jobArn": arn, "status": "InProgress"},
            "token": given.get("clientRequestToken"),
            "digest": digest,
            "region": asked.region,
            "tags": [dict(tag) for tag in given.get("jobTags", ())],
            "modelTags": [dict(tag) for tag in given.get("importedModelTags", ())],
        }
        self.store.add(JOB, arn, data)
        self.cloud.stage.control(f"import {given['jobName']}", self._lead, arn)
        return arn

    def get_job(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a job by its name or ARN."""
        shown: dict[str, Any] = self._found(JOB, asked, given["jobIdentifier"], "jobName").data["shown"]
        return shown

    def list_jobs(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a page of jobs."""
        status, part = given.get("statusEquals"), given.get("nameContains", "")
        rows = [job.data["shown"] for job in self._all(JOB, asked)]
        rows = [row for row in rows if part in row["jobName"] and status in {None, row["status"]}]
        keys = (*_JOB_FIELDS, "importedModelArn", "importedModelName")
        return _page("modelImportJobSummaries", rows, keys, given)

    def get_model(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a model by its name or ARN."""
        shown: dict[str, Any] = self.model(asked, given["modelIdentifier"]).data["shown"]
        return shown

    def list_models(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a page of models."""
        part = given.get("nameContains", "")
        rows = [one.data["shown"] for one in self._all(MODEL, asked)]
        return _page("modelSummaries", [row for row in rows if part in row["modelName"]], _MODEL_FIELDS, given)

    def delete_model(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Delete a model."""
        self.store.remove(MODEL, self.model(asked, given["modelIdentifier"]).id)
        return {}

    def list_tags(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return the tags of a job or a model."""
        arn = given["resourceARN"]
        found = self.store.get(MODEL, arn) or self.store.get(JOB, arn)
        if found is None:
            raise _missing(arn)
        return {"tags": found.data["tags"]}

    # --- for the parts that serve

    def model(self, asked: Asked, named: str) -> Resource:
        """Return an imported model by its name or ARN; Refused where there is none."""
        return self._found(MODEL, asked, named, "modelName")

    # --- what goes on

    def _check(self, given: Mapping[str, Any], asked: Asked) -> None:
        if given["roleArn"] in self.cloud.absent:
            raise invalid(
                f"Amazon Bedrock could not assume the role {given['roleArn']}. Check that it exists, and that "
                "bedrock.amazonaws.com is a trusted principal of it."
            )
        jobs = [job.data["shown"] for job in self._all(JOB, asked)]
        if any(job["jobName"] == given["jobName"] for job in jobs):
            raise Refused(400, "ConflictException", f"A model import job {given['jobName']} exists already.")
        name = given["importedModelName"]
        taken = {one.data["shown"]["modelName"] for one in self._all(MODEL, asked)}
        taken |= {job["importedModelName"] for job in jobs if job["status"] == "InProgress"}
        if name in taken:
            raise invalid(f"The imported model name {name} is already in use.")

    def _lead(self, arn: str) -> None:
        job = self.store.get(JOB, arn)
        assert job is not None
        if not self.cloud.stage.sleep(self.cloud.timing.importing_s):
            return
        try:
            done = {"status": "Completed", "importedModelArn": self._import(job)}
        except Unimportable as why:
            done = {"status": "Failed", "failureMessage": str(why)}
        except Exception:
            # the stand-in's own fault, which the rehearsal tells as ours to mend; untold, its user would wait for ever
            self._end(arn, {"status": "Failed", "failureMessage": _INTERNAL})
            raise
        self._end(arn, done)

    def _import(self, job: Resource) -> str:
        """Make the model of a job; return its ARN."""
        shown, region = job.data["shown"], job.data["region"]
        model = self._arn(region, "imported-model")
        config = self._fetch(shown, model)
        architecture, converses = ARCHITECTURES[config["architectures"][0]]
        self.store.add(
            MODEL,
            model,
            {
                "shown": {
                    "modelArn": model,
                    "modelName": shown["importedModelName"],
                    "jobName": shown["jobName"],
                    "jobArn": job.id,
                    "modelDataSource": shown["modelDataSource"],
                    "creationTime": self._now(),
                    "modelArchitecture": architecture,
                    "instructSupported": converses,
                    "customModelUnits": {"customModelUnitsPerModelCopy": 1, "customModelUnitsVersion": "v1.0"},
                },
                "region": region,
                "tags": job.data["modelTags"],
            },
        )
        return model

    def _fetch(self, shown: Mapping[str, Any], model: str) -> dict[str, Any]:
        """Copy the model's files to where they will be served from; return its config."""
        if self.cloud.stage.faults.event(IMPORT_FAILS, shown["importedModelName"]):
            raise Unimportable(f"{_INTERNAL} (rehearsed fault)")
        files = Prefix(self.cloud, *bucket_and_key(shown["modelDataSource"]["s3DataSource"]["s3Uri"]))
        config = check_files(files)
        folder = self.folder(model)
        folder.mkdir(parents=True)
        for name in files.objects:
            if name:
                data = files.read(name)
                try:
                    (folder / name).write_bytes(data)
                except OSError as why:
                    raise Unimportable(f"{name} could not be read: {why.strerror}.") from why
        return config

    def folder(self, model: str) -> Path:
        """Return where the files of an imported model lie on this machine."""
        return self.cloud.stage.folder / "imported-models" / model.rpartition("/")[2]

    def _end(self, arn: str, fields: Mapping[str, Any]) -> None:
        """Write down how a job ended."""
        now = self._now()
        times = {"endTime": now, "lastModifiedTime": now}
        self.store.update(JOB, arn, lambda data: {"shown": {**data["shown"], **times, **fields}})

    def _all(self, kind: str, asked: Asked) -> tuple[Resource, ...]:
        return self.store.all(kind, lambda one: one.data["region"] == asked.region)

    def _found(self, kind: str, asked: Asked, named: str, key: str) -> Resource:
        for one in self._all(kind, asked):
            if named in (one.id, one.data["shown"][key]):
                return one
        raise _missing(named)

    def _arn(self, region: str, kind: str) -> str:
        identity = "".join(secrets.choice(_LETTERS) for _ in range(12))
        return f"arn:aws:bedrock:{region}:{self.cloud.account}:{kind}/{identity}"

    def _now(self) -> str:
        return f"{datetime.fromtimestamp(self.cloud.now_s(), timezone.utc):%Y-%m-%dT%H:%M:%S.%fZ}"


def _missing(named: str) -> Refused:
    return Refused(404, "ResourceNotFoundException", f"Could not find the resource {named}.")


def _page(field: str, rows: list[dict[str, Any]], keys: Iterable[str], given: Mapping[str, Any]) -> dict[str, Any]:
    rows = sorted(
        rows, key=lambda row: str(row["creationTime"]), reverse=given.get("sortOrder", "Descending") == "Descending"
    )
    rows, more = page(rows, given, usual=10, names=("maxResults", "nextToken"))
    return {field: [{key: row[key] for key in keys if key in row} for row in rows], **more}
