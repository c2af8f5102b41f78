"""Data Science: the model catalog: models, where they came from, and what is noted about them.

Limits of what is noted are those of Oracle ADS 2.16.1 (``ads/model/model_metadata.py``): 32,000 bytes in all, 255
characters a value or description.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.messages import Refused, Request, Response
from cloudtune.rehearsal.oci.job_limits import check_common, refused
from cloudtune.rehearsal.oci.lists import listed
from cloudtune.rehearsal.oci.ocids import kind_of, new_ocid
from cloudtune.rehearsal.oci.speech import check_match, moment, not_found, nothing, reply
from cloudtune.rehearsal.oci.swagger import checked_body
from cloudtune.rehearsal.oci.version_sets import MODEL, VersionSets
from cloudtune.rehearsal.oci.works import BASE
from cloudtune.rehearsal.routes import Route
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

DEPLOYMENT = "oci.model_deployment"
METADATA_BYTES, VALUE_CHARACTERS = 32_000, 255
_STATES = ("ACTIVE", "DELETED", "FAILED", "INACTIVE")
_CATEGORIES = (
    "Performance",
    "Training Profile",
    "Training and Validation Datasets",
    "Training Environment",
    "Reports",
    "Readme",
    "Other",
)
#: The keys that Oracle ADS uses.
_DEFINED = ("UseCaseType", "Framework", "FrameworkVersion", "Algorithm", "Hyperparameters", "ArtifactTestResults")
#: What the stand-in alone knows of a model.
_INSIDE = ("provenance", "artifact", "references")
_SUMMARY = (
    "id",
    "compartmentId",
    "projectId",
    "displayName",
    "createdBy",
    "timeCreated",
    "lifecycleState",
    "modelVersionSetId",
    "modelVersionSetName",
    "versionId",
    "versionLabel",
    "category",
    "isModelByReference",
    "freeformTags",
    "definedTags",
)
_FILTERS = ("modelVersionSetName", "versionLabel", "category", "id", "projectId", "displayName", "createdBy")


class Models:
    """The models of the catalog; their artifacts are for :mod:`cloudtune.rehearsal.oci.model_artifacts`."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.store = cloud.stage.store
        self.sets = cloud.part(VersionSets)
        self._numbering = threading.Lock()

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        model = f"{BASE}/models/{{modelId}}"
        rows = (
            ("POST", f"{BASE}/models", "create_model", self.create),
            ("GET", f"{BASE}/models", "list_models", self.find),
            ("GET", model, "get_model", self.get),
            ("PUT", model, "update_model", self.update),
            ("DELETE", model, "delete_model", self.delete),
            ("POST", f"{model}/actions/activate", "activate_model", self.activate),
            ("POST", f"{model}/actions/deactivate", "deactivate_model", self.deactivate),
            ("POST", f"{model}/actions/changeCompartment", "change_model_compartment", self.move),
            ("POST", f"{model}/provenance", "create_model_provenance", self.create_provenance),
            ("GET", f"{model}/provenance", "get_model_provenance", self.get_provenance),
            ("PUT", f"{model}/provenance", "update_model_provenance", self.update_provenance),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    def create(self, request: Request) -> Response:
        """Make a model, which has no artifact yet."""
        details = checked_body(request, "CreateModelDetails", of="data_science")
        check_common(details)
        _check_metadata(details)
        self.cloud.check_exists("compartmentId", details["compartmentId"], "compartment", "tenancy")
        self.cloud.check_exists("projectId", details["projectId"], "datascienceproject")
        made = self.model(self.cloud.tokens.once(request, "create_model", lambda: self._make(details)))
        return reply(shown(made), of=made)

    def _make(self, details: Mapping[str, Any]) -> str:
        identity, now = new_ocid("datasciencemodel"), moment(self.cloud.now_s())
        stamp = re.sub(r"\D", "", now)[:14]
        data = {
            "id": identity,
            "displayName": f"datasciencemodel{stamp}",
            "lifecycleState": "ACTIVE",
            "category": "USER",
            "isModelByReference": False,
            "createdBy": self.cloud.caller.id,
            "timeCreated": now,
            **details,
        }
        with self._numbering:
            self.store.add(MODEL, identity, {**data, **self._version(details)})
        return identity

    def _version(self, details: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a model is in its version set."""
        if "modelVersionSetId" not in details:
            if "versionLabel" in details:
                raise refused("versionLabel needs a modelVersionSetId")
            return {}
        found = self.sets.set(details["modelVersionSetId"])
        others = self.store.all(MODEL, lambda one: one.data.get("modelVersionSetId") == found.id)
        label = details.get("versionLabel")
        alive = [one.data for one in others if one.data["lifecycleState"] != "DELETED"]
        if label is not None and any(one.get("versionLabel") == label for one in alive):
            raise Refused(409, "Conflict", f"model version set {found.data['name']} has a version {label} already")
        return {"modelVersionSetName": found.data["name"], "versionId": len(others) + 1}

    def find(self, request: Request) -> Response:
        """Return models of a compartment."""
        self.cloud.check_listed(request)
        models = (shown(model) for model in self.store.all(MODEL))
        filters, sorts = (*_FILTERS, "lifecycleState"), ("timeCreated", "displayName", "lifecycleState")
        return listed(request, models, filters=filters, states=_STATES, shown=_SUMMARY, sorts=sorts)

    def get(self, request: Request) -> Response:
        """Return a model; a deleted one for a while too."""
        model = self.model(request.params["modelId"])
        return reply(shown(model), of=model)

    def update(self, request: Request) -> Response:
        """Change names, tags and what is noted."""
        details = checked_body(request, "UpdateModelDetails", of="data_science")
        model = self.active(request.params["modelId"])
        check_match(request, model)
        check_common(details)
        _check_metadata({**model.data, **details})
        changed = self.store.change(MODEL, model.id, **details)
        assert changed is not None
        return reply(shown(changed), of=changed)

    def delete(self, request: Request) -> Response:
        """Delete a model that no deployment uses."""
        model = self.alive(request.params["modelId"])
        check_match(request, model)
        users = self.store.all(DEPLOYMENT, lambda one: one.data["lifecycleState"] not in ("DELETED", "FAILED"))
        if any(model_of(one.data) == model.id for one in users):
            raise Refused(409, "IncorrectState", f"model {model.id} is deployed: delete its deployments first")
        self.store.change(MODEL, model.id, lifecycleState="DELETED")
        return nothing()

    def activate(self, request: Request) -> Response:
        """Let a model be used again."""
        return self._switched(request, "ACTIVE")

    def deactivate(self, request: Request) -> Response:
        """Let a model not be used."""
        return self._switched(request, "INACTIVE")

    def _switched(self, request: Request, state: str) -> Response:
        model = self.alive(request.params["modelId"])
        check_match(request, model)
        changed = self.store.change(MODEL, model.id, lifecycleState=state)
        assert changed is not None
        return reply(shown(changed), of=changed)

    def move(self, request: Request) -> Response:
        """Give a model to another compartment."""
        details = checked_body(request, "ChangeModelCompartmentDetails", of="data_science")
        model = self.active(request.params["modelId"])
        self.cloud.check_exists("compartmentId", details["compartmentId"], "compartment", "tenancy")
        self.store.change(MODEL, model.id, compartmentId=details["compartmentId"])
        return nothing()

    def create_provenance(self, request: Request) -> Response:
        """Note where a model came from, once."""
        details = checked_body(request, "CreateModelProvenanceDetails", of="data_science")
        model = self.active(request.params["modelId"])
        _check_provenance(details)

        def make() -> str:
            if (
                self.store.change(MODEL, model.id, when=lambda data: "provenance" not in data, provenance=details)
                is None
            ):
                raise Refused(409, "Conflict", f"model {model.id} has a provenance already: update it")
            return model.id

        self.cloud.tokens.once(request, "create_model_provenance", make, about=model.id)
        return self.get_provenance(request)

    def get_provenance(self, request: Request) -> Response:
        """Return where a model came from."""
        model = self.model(request.params["modelId"])
        if "provenance" not in model.data:
            raise not_found(f"provenance of {model.id}")
        return reply(model.data["provenance"], of=model)

    def update_provenance(self, request: Request) -> Response:
        """Note anew where a model came from."""
        details = checked_body(request, "UpdateModelProvenanceDetails", of="data_science")
        model = self.active(request.params["modelId"])
        check_match(request, model)
        _check_provenance(details)
        self.store.change(MODEL, model.id, provenance={**model.data.get("provenance", {}), **details})
        return self.get_provenance(request)

    def model(self, identity: str) -> Resource:
        """Return a model; Refused (404) where there is none."""
        found = self.store.get(MODEL, identity)
        if found is None or found.data["compartmentId"] in self.cloud.absent:
            raise not_found(f"model {identity}")
        return found

    def alive(self, identity: str) -> Resource:
        """Return a model that is not deleted."""
        found = self.model(identity)
        if found.data["lifecycleState"] == "DELETED":
            raise not_found(f"model {identity}")
        return found

    def active(self, identity: str) -> Resource:
        """Return a model that can be used; Refused (409) in any other state."""
        found = self.alive(identity)
        if found.data["lifecycleState"] != "ACTIVE":
            raise Refused(409, "IncorrectState", f"model {identity} is {found.data['lifecycleState']}, not ACTIVE")
        return found


def shown(model: Resource) -> dict[str, Any]:
    """Return a model as clients see it."""
    return {key: value for key, value in model.data.items() if key not in _INSIDE}


def model_of(deployment: Mapping[str, Any]) -> str:
    """Return the model that a deployment serves."""
    found: str = deployment["modelDeploymentConfigurationDetails"]["modelConfigurationDetails"]["modelId"]
    return found


def _check_metadata(details: Mapping[str, Any]) -> None:
    custom, defined = (details.get(f"{kind}MetadataList") or [] for kind in ("custom", "defined"))
    for one in (*custom, *defined):
        for field in ("value", "description"):
            if len(one.get(field) or "") > VALUE_CHARACTERS:
                raise refused(f"metadata {one.get('key')}: {field} has more than {VALUE_CHARACTERS} characters")
    keys = [one.get("key") for one in custom]
    if len(set(keys)) < len(keys) or None in keys:
        raise refused("customMetadataList: each needs a key of its own")
    for one in custom:
        if one.get("category") is not None and one["category"] not in _CATEGORIES:
            raise refused(f"metadata {one['key']}: category must be one of {', '.join(_CATEGORIES)}")
    if any(one.get("key") not in _DEFINED for one in defined):
        raise refused(f"definedMetadataList: keys are {', '.join(_DEFINED)}")
    if len(json.dumps([custom, defined]).encode()) > METADATA_BYTES:
        raise refused(f"metadata has more than {METADATA_BYTES} bytes")


def _check_provenance(details: Mapping[str, Any]) -> None:
    training = details.get("trainingId")
    if training is not None and kind_of(training) not in ("datasciencejobrun", "datasciencenotebooksession"):
        raise refused("trainingId must be the OCID of a job run or a notebook session")
