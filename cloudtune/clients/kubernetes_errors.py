"""What a cluster refuses, and cuts off, as errors of cloudtune: sorted by who can mend it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from cloudtune import rights
from cloudtune.clients.failing import failed
from cloudtune.clients.kubernetes_auth import Door, urllib3
from cloudtune.errors import CloudtuneError, NoCapacity, NotAllowed, RunNotFound, UsageError
from cloudtune.plan import Call

#: Where the rights that a call needs are granted; an administrator applies it.
POLICY = "infrastructure/eks"
_BUSY = {429, 500, 502, 503, 504}
_QUOTA = re.compile(r"exceeded quota")
_CANNOT = re.compile(r'cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"')
#: Whom a cluster takes for somebody who has signed in as nobody.
_NOBODY = 'User "system:anonymous"'
#: A value in the message of a server may be a piece of what was sent: no more than its beginning is shown.
_MOST_WORDS = 1000
_RUNS = {"Job", "JobSet", "Pod", "PyTorchJob", "TrainJob"}


class Refusal(Exception):
    """An answer that is an error: its status, its Status object, and how long to wait before another try."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.status = status
        self.request_id = headers.get("audit-id")
        self.object = _status(body)
        self.reason = str(self.object.get("reason") or "")
        self.said = " ".join(str(self.object.get("message") or body[:200].decode(errors="replace")).split())
        after = headers.get("retry-after", "")
        details = self.object.get("details") or {}
        seconds = after if after.isdecimal() else str(details.get("retryAfterSeconds") or "")
        self.after_s = float(seconds) if seconds.isdecimal() else None
        super().__init__(f"{status} {self.reason}: {self.said}"[:_MOST_WORDS])

    @property
    def is_missing(self) -> bool:
        """Whether there is no such object, or no such kind."""
        return self.status == 404

    @property
    def is_unserved(self) -> bool:
        """Whether the cluster does not know the kind at all."""
        return self.status == 404 and not (self.object.get("details") or {}).get("name")

    @property
    def is_passing(self) -> bool:
        """Whether it may go well a little later; a node that does not answer is not asked again at once."""
        return self.status in _BUSY and not self.is_of_node

    @property
    def is_of_node(self) -> bool:
        """Whether it is the node of a pod that cannot be reached, and not the cluster."""
        return self.status >= 500 and "/containerLogs/" in self.said


def _status(body: bytes) -> Mapping[str, Any]:
    try:
        data = json.loads(body)
    except ValueError:
        return {}
    return data if isinstance(data, dict) and data.get("kind") == "Status" else {}


def told(error: Exception, call: Call, door: Door | None) -> CloudtuneError:
    """Return the error to raise for a refusal, or for a connection that failed."""
    if isinstance(error, CloudtuneError):
        return error
    if isinstance(error, Refusal):
        return _refused(error, call, door)
    where = door.url if door is not None else "the cluster"
    words = " ".join(str(_cause(error)).split())[:500] or type(error).__name__
    if isinstance(_cause(error), urllib3.exceptions.SSLError):
        hint = "the certificate is not of the authority that the kubeconfig names: is a proxy in between?"
        return failed(f"{where} is not trusted: {words}", call, definite=True, hint=hint)
    if isinstance(_cause(error), (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)):
        hint = "check the network, the VPN, and the address: kubectl cluster-info"
        unreached = failed(f"{where} cannot be reached: {words}", call, definite=True, hint=hint)
        unreached.passing = True
        return unreached
    # the request may have been carried out: only its reply is known to be lost
    return failed(f"the connection failed: {words}", call, definite=False, hint="run it again")


def _cause(error: Exception) -> Exception:
    reason = getattr(error, "reason", None)
    return _cause(reason) if isinstance(reason, Exception) else error


def _refused(error: Refusal, call: Call, door: Door | None) -> CloudtuneError:
    said = error.said[:_MOST_WORDS]
    what, where = _subject(call), f"{call.service}.{call.operation}"
    if error.status == 401 or (error.status == 403 and _NOBODY in said):
        words = "the cluster does not know you: your token has expired, or is of another cluster"
        refused = NotAllowed(f"{where}: {words}", hint=door.sign_in if door is not None else None)
        refused.passing = True
        return refused
    if error.status == 403 and _QUOTA.search(said):
        hint = "ask for less, wait until something ends, or ask your administrator for a larger ResourceQuota"
        return NoCapacity(f"{where} {what}: {said}", hint=hint)
    if error.status == 403:
        return NotAllowed(f"{where} {what}: {said}", policy=POLICY, hint=granting(said))
    if error.is_unserved:
        kind, api = call.parameters.get("kind"), call.parameters.get("apiVersion")
        group = str(api).partition("/")[0] if "/" in str(api) else ""
        hint = f"install the operator that has it: {POLICY}" if group else "is it a Kubernetes cluster at all?"
        return UsageError(f"{where}: the cluster serves no {kind} of {api}", hint=hint)
    if error.status == 404 and call.parameters.get("kind") in _RUNS and call.operation != "create":
        hint = "check its namespace, its name, and the context"
        return RunNotFound(f"the cluster has no {what}", hint=hint)
    if error.status == 404:
        mended = "make it, or name another: namespace: in the spec" if "namespaces" in said else "check its name"
        return UsageError(f"{where} {what}: {said}", hint=mended)
    if error.status in (400, 413, 415, 422):
        return UsageError(f"{where}: the cluster refuses {what}: {_causes(error)}", hint=_MENDED)
    busy = error.is_passing
    return failed(
        f"{error.reason or error.status}: {said}",
        call,
        definite=not busy,
        request_id=error.request_id,
        hint="wait a little and run it again" if busy else None,
    )


_MENDED = "change the keys of the spec that lead to these fields, or look at overrides: and podSpec:"


def granting(said: str) -> str:
    """Return who grants what a refusal names, and by which rule where it is one that cloudtune knows to need."""
    found = _CANNOT.search(said)
    known = rights.allowing(**found.groupdict()) if found is not None else ()
    if not known:
        return f"your administrator grants it; {POLICY}/rights has what jobs need: kubectl auth can-i --list"
    rule = f"feature {known[0].feature}, {known[0].statement()}"
    return f"your administrator grants it: kubectl apply -k {POLICY}/rights ({rule})"


def _causes(error: Refusal) -> str:
    causes = (error.object.get("details") or {}).get("causes") or ()
    words = "; ".join(f"{one.get('field')}: {one.get('message')}" for one in causes if one.get("field"))
    return (words or error.said)[:_MOST_WORDS]


def _subject(call: Call) -> str:
    """Return what a call is about, as users call it."""
    given = call.parameters
    meta = given.get("metadata") or {}
    name = given.get("name") or meta.get("name") or ""
    namespace = given.get("namespace") or meta.get("namespace") or ""
    kind = "Pod" if call.operation == "read_log" else given.get("kind") or ""
    return " ".join(word for word in (str(kind), "/".join(part for part in (namespace, name) if part)) if word)
