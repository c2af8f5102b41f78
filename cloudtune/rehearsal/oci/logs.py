"""Logging: groups of logs, and logs. What is in them is for :mod:`cloudtune.rehearsal.oci.log_search`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.messages import Refused, Request, Response
from cloudtune.rehearsal.oci.lists import MOST, listed
from cloudtune.rehearsal.oci.ocids import kind_of, new_ocid
from cloudtune.rehearsal.oci.speech import check_match, moment, not_found, nothing, reply
from cloudtune.rehearsal.oci.swagger import checked_body
from cloudtune.rehearsal.routes import Route
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

BASE = "/20200531"
GROUP = "oci.log_group"
LOG = "oci.log"
_WORK = "oci.logging.work_request"
_LOG_STATES = ("CREATING", "ACTIVE", "UPDATING", "INACTIVE", "DELETING", "FAILED")


class Logs:
    """Log groups and logs; what is changed about them is done by the time of the answer, work request or not.

    A group or log that is named by a well-formed OCID and not ``absent`` exists as soon as somebody asks for it: who
    rehearses has made them before.
    """

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.store = cloud.stage.store
        self._placeless: set[str] = set()  # groups that somebody has named, but no run

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        group = f"{BASE}/logGroups/{{logGroupId}}"
        rows = (
            ("POST", f"{BASE}/logGroups", "create_log_group", self.create_group),
            ("GET", f"{BASE}/logGroups", "list_log_groups", self.find_groups),
            ("GET", group, "get_log_group", self.get_group),
            ("DELETE", group, "delete_log_group", self.delete_group),
            ("POST", f"{group}/logs", "create_log", self.create_log),
            ("GET", f"{group}/logs", "list_logs", self.find_logs),
            ("GET", f"{group}/logs/{{logId}}", "get_log", self.get_log),
            ("DELETE", f"{group}/logs/{{logId}}", "delete_log", self.delete_log),
            ("GET", f"{BASE}/workRequests/{{workRequestId}}", "get_work_request", self.get_work_request),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    def create_group(self, request: Request) -> Response:
        """Make a group."""
        details = checked_body(request, "CreateLogGroupDetails", of="logging")
        self.cloud.check_exists("compartmentId", details["compartmentId"], "compartment", "tenancy")

        def make() -> str:
            if self.store.all(GROUP, lambda group: _same(group, details, "compartmentId")):
                raise Refused(409, "Conflict", f"there is a log group {details['displayName']} already")
            return self.add_group(details)

        return self._done("CREATE_LOG_GROUP", self.cloud.tokens.once(request, "create_log_group", make))

    def add_group(self, details: Mapping[str, Any], *, identity: str | None = None) -> str:
        """Add a group; return its OCID."""
        return self._add(GROUP, identity or new_ocid("loggroup"), details)

    def find_groups(self, request: Request) -> Response:
        """Return groups of a compartment."""
        groups = (group.data for group in self.store.all(GROUP))
        filters = ("displayName", "isCompartmentIdInSubtree")
        return listed(request, groups, filters=filters, most=MOST, late=True)

    def get_group(self, request: Request) -> Response:
        """Return a group."""
        group = self.group(request.params["logGroupId"])
        return reply(group.data, of=group)

    def delete_group(self, request: Request) -> Response:
        """Delete a group, which must be empty."""
        group = self.group(request.params["logGroupId"])
        check_match(request, group)
        if self.store.all(LOG, lambda log: log.data["logGroupId"] == group.id):
            raise Refused(409, "IncorrectState", f"log group {group.id} has logs")
        self.store.remove(GROUP, group.id)
        self.cloud.absent.add(group.id)
        return self._done("DELETE_LOG_GROUP", group.id)

    def create_log(self, request: Request) -> Response:
        """Make a log in a group."""
        details = checked_body(request, "CreateLogDetails", of="logging")
        group = self.group(request.params["logGroupId"])

        def make() -> str:
            if self.store.all(LOG, lambda log: _same(log, {**details, "logGroupId": group.id}, "logGroupId")):
                raise Refused(409, "Conflict", f"there is a log {details['displayName']} in the group already")
            return self.add_log(group.id, details)

        return self._done("CREATE_LOG", self.cloud.tokens.once(request, "create_log", make, about=group.id))

    def add_log(self, group_id: str, details: Mapping[str, Any], *, identity: str | None = None) -> str:
        """Add a log to a group; return its OCID."""
        group = self.group(group_id)
        fields = {"logGroupId": group.id, "isEnabled": True, "retentionDuration": 30, "logType": "CUSTOM", **details}
        fields["compartmentId"] = group.data["compartmentId"]
        return self._add(LOG, identity or new_ocid("log"), fields)

    def find_logs(self, request: Request) -> Response:
        """Return the logs of a group."""
        group = self.group(request.params["logGroupId"])
        logs = (log.data for log in self.store.all(LOG, lambda log: log.data["logGroupId"] == group.id))
        filters = ("logType", "sourceService", "sourceResource", "displayName", "lifecycleState")
        return listed(request, logs, required=(), filters=filters, states=_LOG_STATES, most=MOST, late=True)

    def get_log(self, request: Request) -> Response:
        """Return a log."""
        log = self.log(request.params["logGroupId"], request.params["logId"])
        return reply(log.data, of=log)

    def delete_log(self, request: Request) -> Response:
        """Delete a log."""
        log = self.log(request.params["logGroupId"], request.params["logId"])
        check_match(request, log)
        self.store.remove(LOG, log.id)
        self.cloud.absent.add(log.id)
        return self._done("DELETE_LOG", log.id)

    def get_work_request(self, request: Request) -> Response:
        """Return how a change is getting on: it is done."""
        work = self.store.get(_WORK, request.params["workRequestId"])
        if work is None:
            raise not_found(f"work request {request.params['workRequestId']}")
        return reply(work.data, of=work)

    def group(self, identity: str, *, compartment: str | None = None) -> Resource:
        """Return a group; Refused (404) where there is none.

        A group that is known by its name alone is in the compartment of the first run that writes to it.
        """
        found = self.store.get(GROUP, identity)
        if found is None and kind_of(identity) == "loggroup" and identity not in self.cloud.absent:
            with contextlib.suppress(KeyError):  # somebody else was faster
                details = {"displayName": identity[-12:], "compartmentId": self.cloud.principals.tenancy}
                self.add_group(details, identity=identity)
                self._placeless.add(identity)
            found = self.store.get(GROUP, identity)
        if found is not None and compartment is not None and identity in self._placeless:
            self._placeless.discard(identity)
            found = self.store.change(GROUP, identity, compartmentId=compartment)
            for log in self.store.all(LOG, lambda log: log.data["logGroupId"] == identity):
                self.store.change(LOG, log.id, compartmentId=compartment)
        if found is None:
            raise not_found(f"log group {identity}")
        return found

    def log(self, group_id: str, identity: str) -> Resource:
        """Return a log of a group; Refused (404) where there is none."""
        group = self.group(group_id)
        found = self.store.get(LOG, identity)
        if found is None and kind_of(identity) == "log" and identity not in self.cloud.absent:
            with contextlib.suppress(KeyError):
                self.add_log(group.id, {"displayName": identity[-12:]}, identity=identity)
            found = self.store.get(LOG, identity)
        if found is None or found.data["logGroupId"] != group.id:
            raise not_found(f"log {identity} in {group_id}")
        return found

    def _add(self, kind: str, identity: str, details: Mapping[str, Any]) -> str:
        now = moment(self.cloud.now_s())
        tenancy = self.cloud.principals.tenancy
        data = {"id": identity, "lifecycleState": "ACTIVE", "tenancyId": tenancy, "timeCreated": now, **details}
        self.store.add(kind, identity, {**data, "timeLastModified": now})
        return identity

    def _done(self, operation: str, identity: str) -> Response:
        work, now = new_ocid("logworkrequest"), moment(self.cloud.now_s())
        resource = {"actionType": "RELATED", "entityType": "logging", "identifier": identity, "entityUri": "/"}
        times = {"timeAccepted": now, "timeStarted": now, "timeFinished": now}
        data = {"id": work, "operationType": operation, "status": "SUCCEEDED", "percentComplete": 100.0, **times}
        compartment = self.cloud.principals.tenancy
        self.store.add(_WORK, work, {**data, "compartmentId": compartment, "resources": [resource]})
        return nothing(status=202, headers=(("opc-work-request-id", work),))


def _same(thing: Resource, details: Mapping[str, Any], place: str) -> bool:
    return bool(thing.data["displayName"] == details["displayName"] and thing.data[place] == details[place])
