"""Data Science: runs of jobs. What leads a run through its states is in :mod:`cloudtune.rehearsal.oci.run_control`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.logs import Log
from cloudtune.rehearsal.messages import Refused, Request, Response
from cloudtune.rehearsal.oci import job_limits
from cloudtune.rehearsal.oci.jobs import BASE, RUN, Jobs
from cloudtune.rehearsal.oci.lists import listed
from cloudtune.rehearsal.oci.ocids import new_ocid
from cloudtune.rehearsal.oci.run_control import Control
from cloudtune.rehearsal.oci.speech import check_match, moment, not_found, nothing, reply
from cloudtune.rehearsal.oci.swagger import checked_body
from cloudtune.rehearsal.routes import Route
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

STATES = (
    "ACCEPTED",
    "IN_PROGRESS",
    "FAILED",
    "SUCCEEDED",
    "CANCELING",
    "CANCELED",
    "DELETED",
    "NEEDS_ATTENTION",
)
_CAN_BE_CANCELED = ("ACCEPTED", "IN_PROGRESS", "NEEDS_ATTENTION")
_CAN_BE_DELETED = ("SUCCEEDED", "FAILED", "CANCELED", "NEEDS_ATTENTION")
_SUMMARY = (
    "id",
    "timeAccepted",
    "timeStarted",
    "timeFinished",
    "createdBy",
    "projectId",
    "compartmentId",
    "jobId",
    "displayName",
    "lifecycleState",
    "lifecycleDetails",
    "freeformTags",
    "definedTags",
)
_FILTERS = ("id", "jobId", "createdBy", "displayName", "lifecycleState")
_FROM_THE_JOB = (
    "jobInfrastructureConfigurationDetails",
    "jobStorageMountConfigurationDetailsList",
)


class JobRuns:
    """Runs of jobs; ``said`` holds what the nodes of each have written, whatever Logging made of it."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.store = cloud.stage.store
        self.said: dict[str, Log] = {}

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        run = f"{BASE}/jobRuns/{{jobRunId}}"
        rows = (
            ("POST", f"{BASE}/jobRuns", "create_job_run", self.create),
            ("GET", f"{BASE}/jobRuns", "list_job_runs", self.find),
            ("GET", run, "get_job_run", self.get),
            ("PUT", run, "update_job_run", self.update),
            ("DELETE", run, "delete_job_run", self.delete),
            ("POST", f"{run}/actions/cancelJobRun", "cancel_job_run", self.cancel),
            ("POST", f"{run}/actions/changeCompartment", "change_job_run_compartment", self.move),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    def create(self, request: Request) -> Response:
        """Begin a run."""
        details = checked_body(request, "CreateJobRunDetails", of="data_science")
        made = self.store.get(RUN, self.cloud.tokens.once(request, "create_job_run", lambda: self._make(details)))
        assert made is not None
        return reply(made.data, of=made)

    def _make(self, details: Mapping[str, Any]) -> str:
        job = self.cloud.part(Jobs).active(details["jobId"])
        self._check(job, details)
        identity, now = new_ocid("datasciencejobrun"), moment(self.cloud.now_s())
        stamp = re.sub(r"\D", "", now)[:14]
        shown = {key: job.data[key] for key in _FROM_THE_JOB if key in job.data}
        data = {"id": identity, "displayName": f"datasciencejobrun{stamp}", **shown, **details}
        data |= {"lifecycleState": "ACCEPTED", "lifecycleDetails": "Job run accepted."}
        data |= {"timeAccepted": now, "createdBy": self.cloud.caller.id}
        self.store.add(RUN, identity, data)
        self.said[identity] = Log()
        control = Control(self.cloud, identity, job.data, details, hear=self.said[identity].append)
        self.cloud.stage.control(identity, control.lead)
        return identity

    def _check(self, job: Resource, details: Mapping[str, Any]) -> None:
        """Refuse a run that cannot be."""
        cloud, grouped = self.cloud, "jobNodeConfigurationDetails" in job.data
        job_limits.check_common(details)
        cloud.check_exists("compartmentId", details["compartmentId"], "compartment", "tenancy")
        cloud.check_exists("projectId", details["projectId"], "datascienceproject")
        container = details.get("jobEnvironmentConfigurationOverrideDetails") or _container(job.data)
        if cloud.part(Jobs).artifact(job.id) is None and container is None:
            raise Refused(409, "IncorrectState", f"job {job.id} has no artifact: upload one first")
        configuration = details.get("jobConfigurationOverrideDetails")
        machine = details.get("jobInfrastructureConfigurationOverrideDetails")
        if grouped and any(each and "EMPTY" not in each.values() for each in (configuration, machine)):
            raise job_limits.refused("the nodes of this job are overridden in jobNodeConfigurationOverrideDetails")
        if configuration:
            job_limits.check_configuration(configuration)
        if machine:
            job_limits.check_machine(cloud, machine, grouped=False)
        job_limits.check_container(details.get("jobEnvironmentConfigurationOverrideDetails"))
        job_limits.check_logs(details.get("jobLogConfigurationOverrideDetails"))
        mounts = details.get("jobStorageMountConfigurationOverrideDetailsList") or ()
        job_limits.check_mounts(cloud, mounts, own_network=job_limits.has_network(job.data))
        node = details.get("jobNodeConfigurationOverrideDetails")
        if node:
            self._check_groups(job, node)

    def _check_groups(self, job: Resource, node: Mapping[str, Any]) -> None:
        own = job.data.get("jobNodeConfigurationDetails")
        known = {group["name"] for group in own["jobNodeGroupConfigurationDetailsList"]} if own else set()
        job_limits.check_minutes(node.get("maximumRuntimeInMinutes"))
        for group in node.get("jobNodeGroupConfigurationDetailsList") or ():
            if group["name"] not in known:
                raise job_limits.refused(f"the job has no group {group['name']}")
            if group.get("jobConfigurationDetails"):
                job_limits.check_configuration(group["jobConfigurationDetails"])
            if group.get("jobInfrastructureConfigurationDetails"):
                machine = group["jobInfrastructureConfigurationDetails"]
                job_limits.check_machine(self.cloud, machine, grouped=True)

    def get(self, request: Request) -> Response:
        """Return a run; a deleted one for a while too."""
        run = self.run(request)
        return reply(run.data, of=run)

    def find(self, request: Request) -> Response:
        """Return runs of a compartment."""
        self.cloud.check_listed(request)
        runs = (run.data for run in self.store.all(RUN))
        return listed(request, runs, filters=_FILTERS, states=STATES, shown=_SUMMARY)

    def update(self, request: Request) -> Response:
        """Change what may be changed: name and tags."""
        details = checked_body(request, "UpdateJobRunDetails", of="data_science")
        run = self.run(request)
        check_match(request, run)
        job_limits.check_common(details)
        changed = self.store.change(RUN, run.id, **details)
        assert changed is not None
        return reply(changed.data, of=changed)

    def cancel(self, request: Request) -> Response:
        """End a run; it takes a while."""
        run = self.run(request)
        check_match(request, run)
        fields = {"lifecycleState": "CANCELING", "lifecycleDetails": "Job run is being canceled."}
        if self.store.change(RUN, run.id, when=_in(_CAN_BE_CANCELED), **fields) is None:
            raise Refused(409, "IncorrectState", f"a run that is {run.data['lifecycleState']} cannot be canceled")
        return nothing()

    def delete(self, request: Request) -> Response:
        """Delete a run, which must be over."""
        run = self.run(request)
        check_match(request, run)
        if self.store.change(RUN, run.id, when=_in(_CAN_BE_DELETED), lifecycleState="DELETED") is None:
            raise Refused(409, "IncorrectState", f"a run that is {run.data['lifecycleState']} cannot be deleted")
        return nothing()

    def move(self, request: Request) -> Response:
        """Give a run to another compartment."""
        details = checked_body(request, "ChangeJobRunCompartmentDetails", of="data_science")
        run = self.run(request)
        self.cloud.check_exists("compartmentId", details["compartmentId"], "compartment", "tenancy")
        self.store.change(RUN, run.id, compartmentId=details["compartmentId"])
        return nothing()

    def run(self, request: Request) -> Resource:
        """Return the run that a request names; Refused (404) where there is none."""
        identity = request.params["jobRunId"]
        run = self.store.get(RUN, identity)
        if run is None or run.data["compartmentId"] in self.cloud.absent:
            raise not_found(f"job run {identity}")
        return run


def _in(states: tuple[str, ...]) -> Any:
    return lambda data: data["lifecycleState"] in states


def _container(job: Mapping[str, Any]) -> Any:
    """Return a container of a job, wherever it says so."""
    node = job.get("jobNodeConfigurationDetails") or {}
    groups = node.get("jobNodeGroupConfigurationDetailsList") or ()
    found = [each.get("jobEnvironmentConfigurationDetails") for each in (job, *groups)]
    return next((each for each in found if each), None)
