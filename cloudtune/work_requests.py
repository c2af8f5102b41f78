"""Work requests of OCI Data Science: what the service does in its own time, followed with its progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudtune.errors import CloudtuneError, NoCapacity, ServiceError
from cloudtune.pauses import Pauses, Say
from cloudtune.plan import Call
from cloudtune.submit import Client

SERVICE = "oci.data_science"
OVER = ("SUCCEEDED", "FAILED", "CANCELED")
_FULL = ("outofhostcapacity", "out of host capacity", "outofcapacity", "limitexceeded", "quotaexceeded")


def follow(
    client: Client, work: str, what: str, say: Say, *, region: str | None, patience_s: float, later: str
) -> CloudtuneError | None:
    """Wait for a work request, telling how far it is; ``later`` is what to do if that takes too long.

    Returns:
        None once it has succeeded; else why it has failed, in the service's own words: a ServiceError, or a NoCapacity
        where the service has no such machine. An error that is raised means that nobody knows how it ends.
    """
    pauses, told = Pauses(client, patience_s), ""
    while True:
        found = client.read(_call("get_work_request", region, workRequestId=work))
        status = str(found["status"])
        line = f"{what}: {status.lower().replace('_', ' ')}, {found.get('percentComplete') or 0:.0f} %"
        if line != told:
            say(line)
            told = line
        if status in OVER:
            break
        if pauses.over:
            hint = f"it may still end well: {later}"
            raise _failed(found, f"not done after {patience_s:.0f} s", definite=False, hint=hint)
        pauses.wait()
    if status == "SUCCEEDED":
        return None
    why = _why(client, work, region) or status.lower()
    if any(word in why.lower() for word in _FULL):
        hint = "try another shape, ask for a higher limit, or try again later"
        return NoCapacity(f"OCI has no such machine free: {why}", hint=hint)
    return _failed(found, why)


def newest(
    client: Client, resource: str, operation: str, *, compartment: str, region: str | None
) -> Mapping[str, Any] | None:
    """Return the last work request of an operation on a resource; None if there is none."""
    asked = {"compartmentId": compartment, "resourceId": resource, "operationType": operation, "pages": 100}
    rows = client.read(_call("list_work_requests", region, **asked)).get("items", [])
    return max(rows, key=lambda row: str(row.get("timeAccepted")), default=None)


def _failed(work: Mapping[str, Any], why: str, *, definite: bool = True, hint: str | None = None) -> ServiceError:
    operation = str(work.get("operationType") or "work_request").lower()
    return ServiceError(why, service=SERVICE, operation=operation, definite=definite, hint=hint)


def _why(client: Client, work: str, region: str | None) -> str:
    """Return what went wrong, in the service's own words."""
    try:
        rows = client.read(_call("list_work_request_errors", region, workRequestId=work)).get("items", [])
    except CloudtuneError:  # that it failed is known
        return ""
    return "; ".join(f"{row.get('code')}: {row.get('message')}" for row in rows[:3])


def _call(operation: str, region: str | None, **parameters: Any) -> Call:
    place = {"region": region} if region else {}
    return Call(service=SERVICE, operation=operation, parameters={**place, **parameters})
