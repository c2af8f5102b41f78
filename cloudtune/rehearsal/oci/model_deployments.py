"""Data Science: model deployments: models that answer, on nodes of this machine, at the service's own paths."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cloudtune import shapes
from cloudtune.errors import CloudtuneError
from cloudtune.rehearsal.messages import Refused, Request, Response, json_response
from cloudtune.rehearsal.oci.deployment_limits import check_configuration, check_deployment
from cloudtune.rehearsal.oci.job_limits import check_common
from cloudtune.rehearsal.oci.lists import MOST_OF_SCIENCE, listed, page_of
from cloudtune.rehearsal.oci.model_artifacts import Artifacts
from cloudtune.rehearsal.oci.models import DEPLOYMENT, Models, model_of
from cloudtune.rehearsal.oci.ocids import new_ocid
from cloudtune.rehearsal.oci.serving import Serving
from cloudtune.rehearsal.oci.speech import check_match, moment, not_found, nothing, reply
from cloudtune.rehearsal.oci.swagger import check_query, checked_body
from cloudtune.rehearsal.oci.works import BASE, Work, WorkFailed, Works
from cloudtune.rehearsal.routes import Route
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

NO_CAPACITY = "no capacity"
STATES = ("CREATING", "ACTIVE", "DELETING", "FAILED", "INACTIVE", "UPDATING", "DELETED", "NEEDS_ATTENTION")
#: Images that the service itself keeps, below ``dsmc://``: family, name, tag, what they are for.
CONTAINERS = (
    ("odsc-vllm-serving", "odsc-vllm-serving", "0.11.0", "INFERENCE"),
    ("odsc-vllm-serving", "odsc-vllm-serving", "0.9.1", "INFERENCE"),
    ("odsc-tgi-serving", "odsc-text-generation-inference", "3.2.1", "INFERENCE"),
    ("odsc-llm-fine-tuning", "odsc-llm-fine-tuning", "3.3.53", "FINE_TUNE"),
)
_FILTERS = ("id", "projectId", "displayName", "createdBy")
_SERVED = "the model deployment answers"


class Deployments:
    """Model deployments."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.store = cloud.stage.store
        self.works = cloud.part(Works)
        #: What images run that name no entrypoint, by their names: for whoever stages a rehearsal.
        self.entrypoints: dict[str, tuple[str, ...]] = {}
        self._serving: dict[str, Serving] = {}
        self._lock = threading.Lock()

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        one = f"{BASE}/modelDeployments/{{modelDeploymentId}}"
        rows = (
            ("POST", f"{BASE}/modelDeployments", "create_model_deployment", self.create),
            ("GET", f"{BASE}/modelDeployments", "list_model_deployments", self.find),
            ("GET", one, "get_model_deployment", self.get),
            ("PUT", one, "update_model_deployment", self.update),
            ("DELETE", one, "delete_model_deployment", self.delete),
            ("POST", f"{one}/actions/activate", "activate_model_deployment", self.activate),
            ("POST", f"{one}/actions/deactivate", "deactivate_model_deployment", self.deactivate),
            ("GET", f"{BASE}/modelDeploymentShapes", "list_model_deployment_shapes", self.list_shapes),
            ("GET", f"{BASE}/containers", "list_containers", self.list_containers),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    def create(self, request: Request) -> Response:
        """Make a deployment; it answers once it is ACTIVE."""
        details = checked_body(request, "CreateModelDeploymentDetails", of="data_science")
        check_deployment(self.cloud, details)
        work = self.cloud.tokens.once(request, "create_model_deployment", lambda: self._make(details))
        made = next(one for one in self.store.all(DEPLOYMENT) if one.data["work"] == work)
        answer = reply(shown(made), of=made, status=202)
        return Response(status=202, headers=(*answer.headers, ("opc-work-request-id", work)), body=answer.body)

    def _make(self, details: Mapping[str, Any]) -> str:
        identity, now = new_ocid("datasciencemodeldeployment"), moment(self.cloud.now_s())
        stamp = re.sub(r"\D", "", now)[:14]
        data = {
            "id": identity,
            "displayName": f"modeldeployment{stamp}",
            "lifecycleState": "CREATING",
            "createdBy": self.cloud.caller.id,
            "timeCreated": now,
            "modelDeploymentUrl": f"{self.cloud.url}/{identity}",
            "work": "",
            **details,
        }
        self.store.add(DEPLOYMENT, identity, data)
        work = self._begin("CREATE", identity, self._bring_up, "ACTIVE")
        self.store.change(DEPLOYMENT, identity, work=work)
        return work

    def find(self, request: Request) -> Response:
        """Return deployments of a compartment."""
        self.cloud.check_listed(request)
        found = (shown(one) for one in self.store.all(DEPLOYMENT))
        return listed(request, found, filters=(*_FILTERS, "lifecycleState"), states=STATES)

    def get(self, request: Request) -> Response:
        """Return a deployment; a deleted one for a while too."""
        one = self.deployment(request.params["modelDeploymentId"])
        return reply(shown(one), of=one)

    def update(self, request: Request) -> Response:
        """Change names and tags at once, what serves in the service's own time."""
        details = checked_body(request, "UpdateModelDeploymentDetails", of="data_science")
        one = self._in(request, "ACTIVE", "INACTIVE", "NEEDS_ATTENTION")
        check_common(details)
        new = details.pop("modelDeploymentConfigurationDetails", None)
        if new is not None:
            details["modelDeploymentConfigurationDetails"] = _merged(
                one.data["modelDeploymentConfigurationDetails"], new
            )
            check_configuration(self.cloud, details["modelDeploymentConfigurationDetails"])
        self.store.change(DEPLOYMENT, one.id, **details)
        if new is None or one.data["lifecycleState"] == "INACTIVE":
            work = self._begin("UPDATE", one.id, lambda _, __: None, one.data["lifecycleState"])
        else:
            work = self._begin("UPDATE", one.id, self._replace, "ACTIVE", meanwhile="UPDATING")
        return _accepted(work)

    def delete(self, request: Request) -> Response:
        """Take a deployment down for good."""
        one = self._in(request, "ACTIVE", "INACTIVE", "FAILED", "NEEDS_ATTENTION")
        check_match(request, one)
        return _accepted(self._begin("DELETE", one.id, self._take_down, "DELETED", meanwhile="DELETING"))

    def activate(self, request: Request) -> Response:
        """Let a deployment answer again."""
        one = self._in(request, "INACTIVE")
        return _accepted(self._begin("ACTIVATE", one.id, self._bring_up, "ACTIVE", meanwhile="UPDATING"))

    def deactivate(self, request: Request) -> Response:
        """Let a deployment rest; its machines go."""
        one = self._in(request, "ACTIVE", "NEEDS_ATTENTION")
        return _accepted(self._begin("DEACTIVATE", one.id, self._take_down, "INACTIVE", meanwhile="UPDATING"))

    def list_shapes(self, request: Request) -> Response:
        """Return the machines that there are for deployments."""
        check_query(request, ("limit", "page"), required=("compartmentId",))
        found = (shapes.find(name, cloud="oci") for name in shapes.names("oci"))
        rows = [
            {
                "name": shape.name,
                "coreCount": int(shape.ocpus or shape.max_ocpus or 1),
                "memoryInGBs": int(shape.memory_gb or shape.max_memory_gb or 1),
                "shapeSeries": "NVIDIA_GPU" if shape.accelerators else "GENERIC",
            }
            for shape in found
        ]
        part, headers = page_of(request, rows, most=MOST_OF_SCIENCE)
        return json_response(part, headers=headers)

    def list_containers(self, request: Request) -> Response:
        """Return the images that the service keeps."""
        known = ("isLatest", "displayName", "containerName", "targetWorkload", "usageQueryParam")
        check_query(request, (*known, "limit", "page", "sortBy", "sortOrder"))
        rows, seen = [], set[str]()
        for family, name, tag, usage in CONTAINERS:
            rows.append(
                {
                    "containerName": name,
                    "displayName": family,
                    "familyName": family,
                    "isLatest": family not in seen,
                    "tag": tag,
                    "targetWorkloads": ["MODEL_DEPLOYMENT" if usage == "INFERENCE" else "JOB_RUN"],
                    "usages": [usage],
                    "lifecycleState": "ACTIVE",
                }
            )
            seen.add(family)
        if "isLatest" in request.query:
            rows = [row for row in rows if str(row["isLatest"]).lower() == request.query["isLatest"].lower()]
        part, headers = page_of(request, rows, most=MOST_OF_SCIENCE)
        return json_response(part, headers=headers)

    # --- what goes on

    def deployment(self, identity: str) -> Resource:
        """Return a deployment; Refused (404) where there is none."""
        found = self.store.get(DEPLOYMENT, identity)
        if found is None or found.data["compartmentId"] in self.cloud.absent:
            raise not_found(f"model deployment {identity}")
        return found

    def serving(self, identity: str) -> Serving:
        """Return what serves a deployment that is ACTIVE; Refused (404) for any other."""
        with self._lock:
            found = self._serving.get(identity)
        if found is None or self.deployment(identity).data["lifecycleState"] != "ACTIVE":
            raise not_found(f"model deployment {identity}, or it is not ACTIVE")
        return found

    def _in(self, request: Request, *states: str) -> Resource:
        one = self.deployment(request.params["modelDeploymentId"])
        state = one.data["lifecycleState"]
        if state == "DELETED":
            raise not_found(f"model deployment {one.id}")
        if state not in states:
            raise Refused(409, "IncorrectState", f"model deployment {one.id} is {state}, not {' or '.join(states)}")
        return one

    def _begin(
        self,
        verb: str,
        identity: str,
        deed: Callable[[Work, str], None],
        after: str,
        *,
        meanwhile: str | None = None,
    ) -> str:
        """Begin to change a deployment; ``after`` is its state once that is done."""
        if meanwhile is not None:
            self.store.change(DEPLOYMENT, identity, lifecycleState=meanwhile)

        def then(why: WorkFailed | None) -> None:
            if why is None:
                self.store.change(DEPLOYMENT, identity, lifecycleState=after, lifecycleDetails="")
            else:
                self._stop(identity)
                self.store.change(DEPLOYMENT, identity, lifecycleState="FAILED", lifecycleDetails=why.message)

        operation = f"MODEL_DEPLOYMENT_{verb}"
        thing = self.deployment(identity).data
        return self.works.begin(operation, thing, "modelDeployment", lambda work: deed(work, identity), then=then)

    def _bring_up(self, work: Work, identity: str) -> None:
        """Get machines and the model, start the servers, and wait until they are healthy."""
        data = self.deployment(identity).data
        model = data["modelDeploymentConfigurationDetails"]["modelConfigurationDetails"]
        if not work.wait(self.cloud.timing.provisioning_s):
            return
        if self.cloud.stage.faults.event(NO_CAPACITY, model["instanceConfiguration"]["instanceShapeName"]):
            raise WorkFailed("OutOfHostCapacity", "Out of host capacity.")
        work.note("machines are there", percentComplete=30.0)
        folder = self.cloud.stage.folder / "deployments" / identity / f"model-{new_ocid('x')[-12:]}"
        self.cloud.part(Artifacts).unpack(self.cloud.part(Models).model(model_of(data)), folder)
        work.note("the model is there", percentComplete=60.0)
        serving = Serving(self.cloud, data, folder, self.entrypoints)
        with self._lock:
            self._serving[identity] = serving
        try:
            serving.start()
        except CloudtuneError as error:
            raise WorkFailed("InternalServerError", f"a node could not be started: {error}") from error
        work.note(_SERVED, percentComplete=90.0)

    def _replace(self, work: Work, identity: str) -> None:
        with self._lock:
            old = self._serving.get(identity)
        self._bring_up(work, identity)
        if old is not None:
            old.stop()

    def _take_down(self, work: Work, identity: str) -> None:
        work.wait(self.cloud.timing.deleting_s)
        self._stop(identity)

    def _stop(self, identity: str) -> None:
        with self._lock:
            found = self._serving.pop(identity, None)
        if found is not None:
            with contextlib.suppress(CloudtuneError):
                found.stop()


def shown(one: Resource) -> dict[str, Any]:
    """Return a deployment as clients see it."""
    return {key: value for key, value in one.data.items() if key != "work"}


def _accepted(work: str) -> Response:
    return nothing(status=202, headers=(("opc-work-request-id", work),))


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return details with what an update says over them."""
    both = dict(old)
    for key, value in new.items():
        both[key] = _merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both
