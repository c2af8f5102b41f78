"""Work requests of OCI Data Science: what the service does in its own time, followed with its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from cloudtune.errors import CloudtuneError, NoCapacity, ServiceError
from cloudtune.plan import Call
from cloudtune.submit import Client

SERVICE = "oci.data_science"
OVER = ("SUCCEEDED", "FAILED", "CANCELED")
#: Seconds between two looks grow up to so many times the first.
_SLOWER = 10.0
_FULL = ("outofhostcapacity", "out of host capacity", "outofcapacity", "limitexceeded", "quotaexceeded")
Say = Callable[[str], object]


class Pauses:
    """Waits between two looks at one thing, each a little longer than the last, for so many seconds in all."""

    def __init__(self, client: Client, patience_s: float) -> None:
        self._first_s: float = getattr(client, "look_s", (1.0, 3.0))[0]
        self._next_s, self._until_s = self._first_s, time.monotonic() + patience_s

    @property
    def over(self) -> bool:
        """Whether it was waited for long enough."""
        return time.monotonic() > self._until_s

    def wait(self) -> None:
        """Wait until the next look."""
        time.sleep(self._next_s)
        self._next_s = min(self._next_s * 1.3, self._first_s * _SLOWER)


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
