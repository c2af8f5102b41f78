"""Data Science: model version sets, which hold the versions of one model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.messages import Refused, Request, Response
from cloudtune.rehearsal.oci.job_limits import check_common, refused
from cloudtune.rehearsal.oci.lists import listed
from cloudtune.rehearsal.oci.ocids import new_ocid
from cloudtune.rehearsal.oci.speech import check_match, moment, not_found, nothing, reply
from cloudtune.rehearsal.oci.swagger import check_query, checked_body
from cloudtune.rehearsal.oci.works import BASE
from cloudtune.rehearsal.routes import Route
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

SET = "oci.model_version_set"
MODEL = "oci.model"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,254}")
_STATES = ("ACTIVE", "DELETING", "DELETED", "FAILED")


class VersionSets:
    """Model version sets."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.store = cloud.stage.store

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        one = f"{BASE}/modelVersionSets/{{modelVersionSetId}}"
        rows = (
            ("POST", f"{BASE}/modelVersionSets", "create_model_version_set", self.create),
            ("GET", f"{BASE}/modelVersionSets", "list_model_version_sets", self.find),
            ("GET", one, "get_model_version_set", self.get),
            ("PUT", one, "update_model_version_set", self.update),
            ("DELETE", one, "delete_model_version_set", self.delete),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    def create(self, request: Request) -> Response:
        """Make a set, whose name is its own in the compartment."""
        details = checked_body(request, "CreateModelVersionSetDetails", of="data_science")
        check_common(details)
        if not _NAME.fullmatch(details["name"]):
            raise refused("name must be letters, digits, '-', '_', '.' and ':', 255 at most, the first no sign")
        self.cloud.check_exists("compartmentId", details["compartmentId"], "compartment", "tenancy")
        self.cloud.check_exists("projectId", details["projectId"], "datascienceproject")
        identity = self.cloud.tokens.once(request, "create_model_version_set", lambda: self._make(details))
        made = self.set(identity)
        return reply(made.data, of=made)

    def _make(self, details: Mapping[str, Any]) -> str:
        same = {name: details[name] for name in ("name", "compartmentId")}
        if self.store.all(SET, lambda one: same.items() <= one.data.items() and one.data["lifecycleState"] == "ACTIVE"):
            raise Refused(409, "Conflict", f"there is a model version set {details['name']} already")
        identity, now = new_ocid("datasciencemodelversionset"), moment(self.cloud.now_s())
        data = {"id": identity, "lifecycleState": "ACTIVE", "category": "USER", **details}
        by = {"createdBy": self.cloud.caller.id, "timeCreated": now, "timeUpdated": now}
        self.store.add(SET, identity, {**data, **by})
        return identity

    def find(self, request: Request) -> Response:
        """Return sets of a compartment."""
        sets = (one.data for one in self.store.all(SET))
        filters = ("id", "projectId", "name", "createdBy", "lifecycleState")
        return listed(request, sets, filters=filters, states=_STATES, sorts=("timeCreated", "name", "lifecycleState"))

    def get(self, request: Request) -> Response:
        """Return a set."""
        found = self.set(request.params["modelVersionSetId"])
        return reply(found.data, of=found)

    def update(self, request: Request) -> Response:
        """Change description and tags."""
        details = checked_body(request, "UpdateModelVersionSetDetails", of="data_science")
        check_common(details)
        found = self.set(request.params["modelVersionSetId"])
        check_match(request, found)
        changed = self.store.change(SET, found.id, **details, timeUpdated=moment(self.cloud.now_s()))
        assert changed is not None
        return reply(changed.data, of=changed)

    def delete(self, request: Request) -> Response:
        """Delete a set, with its models where the query says so."""
        check_query(request, ("isDeleteRelatedModels",))
        found = self.set(request.params["modelVersionSetId"])
        check_match(request, found)
        inside = self.models(found.id)
        if inside and request.query.get("isDeleteRelatedModels", "false").lower() != "true":
            raise Refused(409, "IncorrectState", f"model version set {found.id} has models")
        for model in inside:
            self.store.change(MODEL, model.id, lifecycleState="DELETED")
        self.store.change(SET, found.id, lifecycleState="DELETED")
        return nothing()

    def set(self, identity: str) -> Resource:
        """Return a set; Refused (404) where there is none."""
        found = self.store.get(SET, identity)
        if found is None or found.data["lifecycleState"] == "DELETED":
            raise not_found(f"model version set {identity}")
        return found

    def models(self, identity: str) -> tuple[Resource, ...]:
        """Return the models of a set that are not deleted."""
        return self.store.all(
            MODEL,
            lambda one: one.data.get("modelVersionSetId") == identity and one.data["lifecycleState"] != "DELETED",
        )
