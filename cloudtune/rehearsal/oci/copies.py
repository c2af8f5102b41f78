"""Object Storage: copies, which the service makes in its own time, and the work requests that tell of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.messages import Refused, Request, Response, json_response
from cloudtune.rehearsal.oci import blobs
from cloudtune.rehearsal.oci.buckets import Buckets
from cloudtune.rehearsal.oci.lists import page_of
from cloudtune.rehearsal.oci.objects import checked_name, no_object, place
from cloudtune.rehearsal.oci.ocids import REGION
from cloudtune.rehearsal.oci.shelves import Condition, Object, fresh_tag
from cloudtune.rehearsal.oci.speech import moment
from cloudtune.rehearsal.oci.swagger import check_query, checked_body
from cloudtune.rehearsal.routes import Route
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

WORK = "oci.storage_work"
#: Seconds of the stage's clock that a copy takes to begin, and to end.
BEGIN_S, COPY_S = 1.0, 2.0
#: A fault of this kind, by the name of the object that is copied, lets a copy fail.
COPY_FAILS = "copy fails"


class Copies:
    """Copies of objects, and the work requests of Object Storage."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.buckets = cloud.part(Buckets)

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        work = "/workRequests/{workRequestId}"
        rows = (
            ("POST", "/n/{namespaceName}/b/{bucketName}/actions/copyObject", "copy_object", self.copy),
            ("GET", "/workRequests", "list_work_requests", self.find),
            ("GET", work, "get_work_request", self.get),
            ("GET", f"{work}/errors", "list_work_request_errors", self.find_errors),
            ("GET", f"{work}/logs", "list_work_request_logs", self.find_logs),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    def copy(self, request: Request) -> Response:
        """Accept a copy; the object that is there now is copied a little later."""
        shelf = self.buckets.shelf_for(request)
        given = checked_body(request, "CopyObjectDetails", of="object_storage")
        source = shelf.get(given["sourceObjectName"])
        if source is None:
            raise no_object(given["sourceObjectName"], request.params["bucketName"])
        Condition(match=given.get("sourceObjectIfMatchETag", "")).check(source)
        if given["destinationRegion"] != REGION:
            raise Refused(400, "InvalidParameter", f"destinationRegion: the rehearsed cloud has {REGION} alone")
        target = self.buckets.shelf(given["destinationNamespace"], given["destinationBucket"])
        checked_name(given["destinationObjectName"])
        condition = Condition(
            match=given.get("destinationObjectIfMatchETag", ""),
            none_match=given.get("destinationObjectIfNoneMatchETag", ""),
        )
        condition.check(target.get(given["destinationObjectName"]))
        identity = fresh_tag()
        data = {
            "operationType": "COPY_OBJECT",
            "status": "ACCEPTED",
            "id": identity,
            "compartmentId": self.buckets.resource(request).data["compartmentId"],
            "resources": _resources(request.params, given),
            "percentComplete": 0.0,
            "timeAccepted": moment(self.cloud.now_s()),
            "errors": [],
            "logs": [],
        }
        self.cloud.stage.store.add(WORK, identity, data)
        self.cloud.stage.control(f"copy {identity}", self._carry_out, identity, source, given, condition)
        return Response(status=202, headers=(("opc-work-request-id", identity),))

    def get(self, request: Request) -> Response:
        """Return a work request."""
        return json_response(_shown(self._found(request)))

    def find(self, request: Request) -> Response:
        """Return one page of the work requests of a compartment, the newest first."""
        check_query(request, ("limit", "page"), required=("compartmentId",))
        wanted = request.query["compartmentId"]
        things = self.cloud.stage.store.all(WORK, lambda one: bool(one.data["compartmentId"] == wanted))
        part, headers = page_of(request, things[::-1])
        return json_response([_shown(one) for one in part], headers=headers)

    def find_errors(self, request: Request) -> Response:
        """Return one page of what went wrong."""
        part, headers = page_of(request, self._found(request).data["errors"])
        return json_response(part, headers=headers)

    def find_logs(self, request: Request) -> Response:
        """Return one page of what was done."""
        part, headers = page_of(request, self._found(request).data["logs"])
        return json_response(part, headers=headers)

    def _found(self, request: Request) -> Resource:
        found = self.cloud.stage.store.get(WORK, request.params["workRequestId"])
        if found is None:
            message = f"The work request with ID '{request.params['workRequestId']}' was not found"
            raise Refused(404, "WorkRequestNotFound", message)
        return found

    def _carry_out(self, identity: str, source: Object, given: Mapping[str, Any], condition: Condition) -> None:
        """Lead one copy to its end: the controller."""
        stage = self.cloud.stage
        if not stage.sleep(BEGIN_S):
            return
        self._note(identity, "copying", status="IN_PROGRESS", timeStarted=moment(self.cloud.now_s()))
        if not stage.sleep(COPY_S):
            return
        try:
            self._copy(source, given, condition)
        except (Refused, FileNotFoundError) as error:
            failure = {"code": getattr(error, "code", "ObjectNotFound"), "message": str(error)}
            errors = [{**failure, "timestamp": moment(self.cloud.now_s())}]
            self._note(identity, "failed", status="FAILED", timeFinished=moment(self.cloud.now_s()), errors=errors)
        else:
            done = {"status": "COMPLETED", "percentComplete": 100.0, "timeFinished": moment(self.cloud.now_s())}
            self._note(identity, "copied", **done)

    def _copy(self, source: Object, given: Mapping[str, Any], condition: Condition) -> None:
        if self.cloud.stage.faults.event(COPY_FAILS, source.name):
            raise Refused(500, "InternalServerError", f"rehearsed fault: {COPY_FAILS}")
        target = self.buckets.shelf(given["destinationNamespace"], given["destinationBucket"])
        meta = given.get("destinationObjectMetadata")
        kept = {name: value for name, value in source.headers.items() if not name.startswith("opc-meta-")}
        made = Object(
            name=given["destinationObjectName"],
            blob=blobs.copied(source.blob, self.buckets.folder),
            time_s=self.cloud.now_s(),
            multipart_md5=source.multipart_md5,
            headers=source.headers if meta is None else {**kept, **{f"opc-meta-{key}": meta[key] for key in meta}},
            tier=given.get("destinationObjectStorageTier", source.tier),
        )
        place(target, made, condition)

    def _note(self, identity: str, words: str, **fields: Any) -> None:
        line = {"message": words, "timestamp": moment(self.cloud.now_s())}
        self.cloud.stage.store.update(WORK, identity, lambda data: {**fields, "logs": [*data["logs"], line]})


def _resources(params: Mapping[str, str], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    source = {
        "NAMESPACE": params["namespaceName"],
        "BUCKET": params["bucketName"],
        "OBJECT": given["sourceObjectName"],
        "REGION": REGION,
    }
    names = ("destinationNamespace", "destinationBucket", "destinationObjectName", "destinationRegion")
    target = dict(zip(source, (given[name] for name in names), strict=True))
    return [
        {"actionType": deed, "entityType": "object", "entityUri": _uri(place_), "metadata": place_}
        for deed, place_ in (("READ", source), ("WRITTEN", target))
    ]


def _uri(where: Mapping[str, str]) -> str:
    return f"/n/{where['NAMESPACE']}/b/{where['BUCKET']}/o/{where['OBJECT']}"


def _shown(thing: Resource) -> dict[str, Any]:
    return {key: value for key, value in thing.data.items() if key not in ("errors", "logs")}
