"""Data Science: jobs, their artifacts, and the shapes that run them."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune import shapes
from cloudtune.rehearsal.messages import Refused, Request, Response, file_response, json_response
from cloudtune.rehearsal.oci.job_limits import check_common, check_job, check_machine, check_mounts, has_network
from cloudtune.rehearsal.oci.lists import MOST_OF_SCIENCE, listed, page_of
from cloudtune.rehearsal.oci.ocids import check_ocid, new_ocid
from cloudtune.rehearsal.oci.signatures import check_content
from cloudtune.rehearsal.oci.speech import check_match, moment, not_found, nothing, reply
from cloudtune.rehearsal.oci.swagger import check_query, checked_body
from cloudtune.rehearsal.routes import Route
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

BASE = "/20190101"
JOB = "oci.job"
RUN = "oci.job_run"
#: Kinds of files that an artifact may be, by the ends of their names.
ARTIFACTS = (".py", ".sh", ".zip", ".tar", ".tar.gz", ".tgz")
ARTIFACT_BYTES = 4 << 30
STATES = ("ACTIVE", "CREATING", "DELETED", "DELETING", "FAILED", "UPDATING")
#: States of a run that is over.
OVER = ("SUCCEEDED", "FAILED", "CANCELED", "DELETED")
_SUMMARY = (
    "id",
    "timeCreated",
    "createdBy",
    "projectId",
    "compartmentId",
    "displayName",
    "lifecycleState",
    "freeformTags",
    "definedTags",
)
_FILTERS = ("projectId", "id", "displayName", "lifecycleState", "createdBy")
#: The series of a shape by a part of its name.
_SERIES = ((".GPU", "NVIDIA_GPU"), (".A1.", "ARM"), (".E", "AMD_ROME"), (".Standard2.", "INTEL_SKYLAKE"))
_FILENAME = re.compile(r"attachment\s*;\s*filename\s*=\s*\"?([^\";]+)\"?", re.IGNORECASE)


class Jobs:
    """Jobs: what is to be run, and on what."""

    unsigned_bodies: tuple[str, ...] = ("create_job_artifact",)

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.store = cloud.stage.store
        self._keeping = threading.Lock()

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        job, content = f"{BASE}/jobs/{{jobId}}", f"{BASE}/jobs/{{jobId}}/artifact/content"
        rows = (
            ("POST", f"{BASE}/jobs", "create_job", self.create),
            ("GET", f"{BASE}/jobs", "list_jobs", self.find),
            ("GET", job, "get_job", self.get),
            ("PUT", job, "update_job", self.update),
            ("DELETE", job, "delete_job", self.delete),
            ("POST", f"{job}/actions/changeCompartment", "change_job_compartment", self.move),
            ("POST", f"{job}/artifact", "create_job_artifact", self.create_artifact),
            ("HEAD", content, "head_job_artifact", self.get_artifact),
            ("GET", content, "get_job_artifact_content", self.get_artifact),
            ("GET", f"{BASE}/jobShapes", "list_job_shapes", self.list_shapes),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    def create(self, request: Request) -> Response:
        """Make a job; it can be run once it is ACTIVE."""
        details = checked_body(request, "CreateJobDetails", of="data_science")
        check_job(self.cloud, details)
        made = self.store.get(JOB, self.cloud.tokens.once(request, "create_job", lambda: self._make(details)))
        assert made is not None
        return reply(shown(made), of=made)

    def _make(self, details: Mapping[str, Any]) -> str:
        identity, now = new_ocid("datasciencejob"), moment(self.cloud.now_s())
        stamp = re.sub(r"\D", "", now)[:14]
        data = {"id": identity, "displayName": f"datasciencejob{stamp}", "lifecycleState": "CREATING", **details}
        self.store.add(JOB, identity, {**data, "timeCreated": now, "createdBy": self.cloud.caller.id})
        self._lead(identity, ("CREATING", self.cloud.timing.job_s), ("ACTIVE", 0.0))
        return identity

    def get(self, request: Request) -> Response:
        """Return a job; a deleted one for a while too."""
        job = self.job(request.params["jobId"])
        return reply(shown(job), of=job)

    def find(self, request: Request) -> Response:
        """Return jobs of a compartment."""
        jobs = (shown(job) for job in self.store.all(JOB))
        return listed(request, jobs, filters=_FILTERS, states=STATES, shown=_SUMMARY)

    def update(self, request: Request) -> Response:
        """Change what may be changed: name, tags, machine, mounts."""
        details = checked_body(request, "UpdateJobDetails", of="data_science")
        job = self.active(request.params["jobId"])
        check_match(request, job)
        check_common(details)
        after = {**job.data, **details}
        if "jobInfrastructureConfigurationDetails" in details:
            grouped = "jobNodeConfigurationDetails" in job.data
            check_machine(self.cloud, details["jobInfrastructureConfigurationDetails"], grouped=grouped)
        mounts = details.get("jobStorageMountConfigurationDetailsList") or ()
        check_mounts(self.cloud, mounts, own_network=has_network(after))
        changed = self.store.change(JOB, job.id, **details)
        assert changed is not None
        return reply(shown(changed), of=changed)

    def delete(self, request: Request) -> Response:
        """Delete a job, and its runs where the query says so."""
        check_query(request, ("deleteRelatedJobRuns",))
        job = self.active(request.params["jobId"])
        check_match(request, job)
        runs = self.store.all(RUN, lambda run: run.data["jobId"] == job.id and run.data["lifecycleState"] != "DELETED")
        if runs and request.query.get("deleteRelatedJobRuns", "false").lower() != "true":
            raise Refused(409, "IncorrectState", f"job {job.id} has runs: delete them too, with deleteRelatedJobRuns")
        if any(run.data["lifecycleState"] not in (*OVER, "NEEDS_ATTENTION") for run in runs):
            raise Refused(409, "IncorrectState", f"job {job.id} has runs that are not over: cancel them first")
        for run in runs:
            self.store.change(RUN, run.id, lifecycleState="DELETED")
        self._lead(job.id, ("DELETING", self.cloud.timing.deleting_s), ("DELETED", 0.0))
        return nothing()

    def _lead(self, identity: str, *steps: tuple[str, float]) -> None:
        def lead() -> None:
            self.cloud.stage.lead(JOB, identity, "lifecycleState", *steps)

        self.cloud.stage.control(identity, lead)

    def move(self, request: Request) -> Response:
        """Give a job to another compartment."""
        details = checked_body(request, "ChangeJobCompartmentDetails", of="data_science")
        job = self.active(request.params["jobId"])
        self.cloud.check_exists("compartmentId", details["compartmentId"], "compartment", "tenancy")
        self.store.change(JOB, job.id, compartmentId=details["compartmentId"])
        return nothing()

    def create_artifact(self, request: Request) -> Response:
        """Take the file that a job runs, once for all."""
        found = _FILENAME.search(request.header("content-disposition"))
        name = found[1].strip().rpartition("/")[2] if found else ""
        if not name.lower().endswith(ARTIFACTS):
            message = f"content-disposition: the file's name must end in one of {', '.join(ARTIFACTS)}"
            raise Refused(400, "InvalidParameter", message)
        job = self.active(request.params["jobId"])
        self.folder(job.id).mkdir(parents=True, exist_ok=True)
        arriving = self.folder(job.id) / f"arriving-{secrets.token_hex(8)}"
        try:
            with arriving.open("wb") as file:
                size = request.body.save(file)
            check_content(request)
            if not 0 < size <= ARTIFACT_BYTES:
                raise Refused(400, "InvalidParameter", "an artifact must have 1 byte to 4 GB")
            about, keep = f"{job.id} {name}", partial(self._keep, job.id, name, arriving)
            self.cloud.tokens.once(request, "create_job_artifact", keep, about=about)
        finally:
            arriving.unlink(missing_ok=True)
        return nothing()

    def _keep(self, identity: str, name: str, arrived: Path) -> str:
        with self._keeping:
            if self.artifact(identity) is not None:
                raise Refused(409, "Conflict", f"job {identity} has an artifact, which cannot be changed")
            arrived.replace(self.folder(identity) / name)
            self.store.change(JOB, identity, artifactName=name)
        return identity

    def get_artifact(self, request: Request) -> Response:
        """Return the file that a job runs, or a part of it."""
        job = self.job(request.params["jobId"])
        path = self.artifact(job.id)
        if path is None:
            raise not_found(f"artifact of {job.id}")
        return file_response(path, request, headers=(("content-disposition", f"attachment; filename={path.name}"),))

    def list_shapes(self, request: Request) -> Response:
        """Return the machines that there are."""
        check_query(request, ("limit", "page"), required=("compartmentId",))
        check_ocid("compartmentId", request.query["compartmentId"], "compartment", "tenancy")
        found = [_row(shapes.find(name, cloud="oci")) for name in shapes.names("oci")]
        rows, headers = page_of(request, found, most=MOST_OF_SCIENCE)
        return json_response(rows, headers=headers)

    def job(self, identity: str) -> Resource:
        """Return a job; Refused (404) where there is none."""
        job = self.store.get(JOB, identity)
        if job is None or job.data["compartmentId"] in self.cloud.absent:
            raise not_found(f"job {identity}")
        return job

    def active(self, identity: str) -> Resource:
        """Return a job that can be used; Refused (409) in any other state."""
        job = self.job(identity)
        state = job.data["lifecycleState"]
        if state == "DELETED":
            raise not_found(f"job {identity}")
        if state != "ACTIVE":
            raise Refused(409, "IncorrectState", f"job {identity} is {state}, not ACTIVE")
        return job

    def folder(self, identity: str) -> Path:
        """Return where the rehearsal keeps what is a job's."""
        return self.cloud.stage.folder / "jobs" / identity

    def artifact(self, identity: str) -> Path | None:
        """Return a job's artifact, None before it was uploaded."""
        job = self.store.get(JOB, identity)
        name = job.data.get("artifactName") if job else None
        return self.folder(identity) / name if name else None


def shown(job: Resource) -> dict[str, Any]:
    """Return a job as clients see it."""
    return {key: value for key, value in job.data.items() if key != "artifactName"}


def _row(shape: shapes.Shape) -> dict[str, Any]:
    series = next((series for mark, series in _SERIES if mark in shape.name), "GENERIC")
    return {
        "name": shape.name,
        "coreCount": int(shape.ocpus or shape.max_ocpus or 1),
        "memoryInGBs": int(shape.memory_gb or shape.max_memory_gb or 1),
        "shapeSeries": series,
    }
