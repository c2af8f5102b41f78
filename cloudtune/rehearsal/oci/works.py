"""Data Science: work requests, which tell of what the service does in its own time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.messages import Refused, Request, Response, json_response
from cloudtune.rehearsal.oci.lists import MOST_OF_SCIENCE, listed, page_of
from cloudtune.rehearsal.oci.ocids import new_ocid
from cloudtune.rehearsal.oci.speech import moment, not_found, nothing, reply
from cloudtune.rehearsal.routes import Route
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

BASE = "/20190101"
WORK = "oci.work_request"
OVER = ("SUCCEEDED", "FAILED", "CANCELED")
#: A fault of this kind, by the operation's type, lets what a work request tells of fail.
WORK_FAILS = "work fails"
_INSIDE = ("errors", "logs")
_SHOWN = (
    "id",
    "operationType",
    "status",
    "percentComplete",
    "resources",
    "timeAccepted",
    "timeStarted",
    "timeFinished",
)


class WorkFailed(Exception):
    """What a work request tells of cannot be done; the code and the words are those of its error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Works:
    """The work requests of Data Science."""

    unsigned_bodies: tuple[str, ...] = ()

    def __init__(self, cloud: OciCloud) -> None:
        self.cloud = cloud
        self.store = cloud.stage.store

    def routes(self) -> Iterable[Route]:
        """Return the operations."""
        work = f"{BASE}/workRequests/{{workRequestId}}"
        rows = (
            ("GET", f"{BASE}/workRequests", "list_work_requests", self.find),
            ("GET", work, "get_work_request", self.get),
            ("DELETE", work, "cancel_work_request", self.cancel),
            ("GET", f"{work}/errors", "list_work_request_errors", self.find_errors),
            ("GET", f"{work}/logs", "list_work_request_logs", self.find_logs),
        )
        return [Route(method=method, template=path, operation=name, handler=deed) for method, path, name, deed in rows]

    # --- for those who work

    def begin(
        self, operation: str, thing: Mapping[str, Any], kind: str, deed: Callable[[Work], None], *, then: Then = None
    ) -> str:
        """Accept a piece of work on a thing, which is done by a controller; return the work request's OCID.

        The deed raises WorkFailed where it cannot be done; ``then`` hears how it ended: None, or why not.
        """
        identity, now = new_ocid("datascienceworkrequest"), moment(self.cloud.now_s())
        path = f"{BASE}/{kind}s/{thing['id']}"
        resource = {"actionType": "IN_PROGRESS", "entityType": kind, "identifier": thing["id"], "entityUri": path}
        data = {
            "id": identity,
            "operationType": operation,
            "status": "ACCEPTED",
            "compartmentId": thing["compartmentId"],
            "percentComplete": 0.0,
            "resources": [resource],
            "timeAccepted": now,
            "errors": [],
            "logs": [],
        }
        self.store.add(WORK, identity, data)
        work = Work(self.cloud, identity)
        self.cloud.stage.control(f"{operation} {identity}", self._carry_out, work, operation, deed, then)
        return identity

    def _carry_out(self, work: Work, operation: str, deed: Callable[[Work], None], then: Then) -> None:
        why: WorkFailed | None = None
        if not work.wait(self.cloud.timing.accepted_s):
            return
        work.note(f"{operation} has begun", status="IN_PROGRESS", timeStarted=moment(self.cloud.now_s()))
        try:
            work.meet(operation)
            deed(work)
        except WorkFailed as failed:
            why = failed
        except Exception as error:
            # nobody must wait for ever because the stand-in itself has failed
            self._end(work, WorkFailed("InternalServerError", f"the stand-in failed: {error!r}"), then)
            raise
        if self.cloud.stage.stopping.is_set():
            return
        self._end(work, why, then)

    def _end(self, work: Work, why: WorkFailed | None, then: Then) -> None:
        if then is not None:
            then(why)
        work.end(why)

    # --- operations

    def find(self, request: Request) -> Response:
        """Return work requests of a compartment, the newest first."""
        works = (_shown(work) for work in self.store.all(WORK))
        rows = ({**work, "resourceId": work["resources"][0]["identifier"]} for work in works)
        names = (*_SHOWN, "compartmentId")
        filters, sorts = ("id", "resourceId", "operationType", "status"), ("timeAccepted", "operationType", "status")
        return listed(request, rows, filters=filters, shown=names, sorts=sorts)

    def get(self, request: Request) -> Response:
        """Return a work request."""
        work = self._found(request)
        return reply(_shown(work), of=work)

    def cancel(self, request: Request) -> Response:
        """Cancel a work request that has not begun."""
        work = self._found(request)
        accepted = self.store.change(WORK, work.id, when=lambda data: data["status"] == "ACCEPTED", status="CANCELED")
        if accepted is None:
            raise Refused(409, "IncorrectState", f"work request {work.id} is {work.data['status']}")
        return nothing(status=202)

    def find_errors(self, request: Request) -> Response:
        """Return what went wrong, the newest first."""
        return _page(request, self._found(request).data["errors"])

    def find_logs(self, request: Request) -> Response:
        """Return what was done, the newest first."""
        return _page(request, self._found(request).data["logs"])

    def _found(self, request: Request) -> Resource:
        identity = request.params["workRequestId"]
        work = self.store.get(WORK, identity)
        if work is None:
            raise not_found(f"work request {identity}")
        return work


class Work:
    """One work request, for its controller."""

    def __init__(self, cloud: OciCloud, identity: str) -> None:
        self.cloud, self.id = cloud, identity

    def wait(self, seconds: float) -> bool:
        """Wait by the stage's clock; False if the rehearsal ends, or the work was cancelled."""
        return self.cloud.stage.sleep(seconds) and not self.cancelled

    def meet(self, operation: str) -> None:
        """Raise WorkFailed where a fault of the rehearsal's plan says so."""
        if self.cloud.stage.faults.event(WORK_FAILS, operation):
            raise WorkFailed("InternalServerError", f"rehearsed fault: {WORK_FAILS}")

    @property
    def cancelled(self) -> bool:
        """Whether it is not to be done any more."""
        found = self.cloud.stage.store.get(WORK, self.id)
        return found is None or found.data["status"] == "CANCELED"

    def note(self, message: str, **fields: Any) -> None:
        """Write a line of what was done, and set fields: ``percentComplete``."""
        line = {"message": message, "timestamp": moment(self.cloud.now_s())}

        def change(data: dict[str, Any]) -> dict[str, Any] | None:
            return None if data["status"] in OVER else {**fields, "logs": [line, *data["logs"]]}

        self.cloud.stage.store.update(WORK, self.id, change)

    def end(self, why: WorkFailed | None) -> None:
        """Say that it is done, or why it cannot be."""
        now = moment(self.cloud.now_s())
        if why is None:
            self.note("it is done", status="SUCCEEDED", percentComplete=100.0, timeFinished=now)
        else:
            errors = [{"code": why.code, "message": why.message, "timestamp": now}]
            self.note("it has failed", status="FAILED", timeFinished=now, errors=errors)


Then = Callable[[WorkFailed | None], None] | None


def _page(request: Request, rows: list[dict[str, Any]]) -> Response:
    part, headers = page_of(request, rows, most=MOST_OF_SCIENCE)
    return json_response(part, headers=headers)


def _shown(work: Resource) -> dict[str, Any]:
    return {key: value for key, value in work.data.items() if key not in _INSIDE}
