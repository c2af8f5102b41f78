"""What Oracle Cloud refuses, and cuts off, as errors of cloudtune: sorted by who can mend it."""

from __future__ import annotations

import re
from typing import Any

from cloudtune import rights
from cloudtune.clients.failing import failed
from cloudtune.clients.oci_auth import sdk as oci
from cloudtune.errors import CloudtuneError, NoCapacity, NotAllowed, RunNotFound, ServiceError
from cloudtune.plan import Call

#: Where the rights that a call needs are granted; an administrator applies it.
POLICY = "infrastructure/oci"
#: What the service says of a request whose token it knows from another one, or from something that is gone.
_WORN = "InvalidatedRetryToken"
_FULL = ("LimitExceeded", "QuotaExceeded", "OutOfCapacity", "OutOfHostCapacity")
#: What the service says of a request that it has not carried out.
_REFUSED = range(400, 500)


def told(error: Exception, call: Call, *, kind: str, doubtful: bool = False) -> CloudtuneError:
    """Return the error to raise for one of the SDK's; ``kind`` is how the user signed in.

    ``doubtful``: the same request was sent before, and may have been carried out.
    """
    if isinstance(error, oci.exceptions.ServiceError):
        refused = _refused(error, call, kind)
        if doubtful and error.status == 401:  # it was not looked at: that says nothing of the one before
            return failed(f"{refused.message} ({refused.hint})", call, definite=False, hint="run it again")
        return refused
    if isinstance(error, oci.exceptions.ConnectTimeout):
        hint = "check the network, and the region's name"
        unreached = failed("cannot be reached", call, definite=not doubtful, hint=hint)
        unreached.passing = True
        return unreached
    if isinstance(error, oci.exceptions.RequestException):
        reason = _cause(_words(error).partition("Request Endpoint")[0]) or type(error).__name__
        # the request may have been carried out: only its reply is known to be lost
        return failed(f"the connection failed: {reason[:300]}", call, definite=False, hint="run it again")
    return failed(_words(error)[:500] or type(error).__name__, call, definite=False)


def _refused(error: Any, call: Call, kind: str) -> CloudtuneError:
    status, code, said = int(error.status), str(error.code), _words(error.message)
    request = f" (request {error.request_id})" if error.request_id else ""
    where = f"{call.service}.{call.operation}"
    if status == 401:
        again = "oci session authenticate" if kind == "session" else "oci setup config, or check the key's fingerprint"
        refused = NotAllowed(f"{where}: OCI does not know you: {said}{request}", hint=f"sign in: {again}")
        refused.passing = kind == "session"
        return refused
    if status == 404 and call.operation in {"get_job_run", "cancel_job_run"}:
        run = call.parameters.get("jobRunId")
        return RunNotFound(f"OCI has no job run {run}, or you may not see it", hint="check its OCID, and your profile")
    if status in {403, 404}:
        hint = _rights(said, call)
        return NotAllowed(f"{where}: {said or code}{request}", policy=POLICY, hint=hint, hidden=status == 404)
    if code in _FULL or "out of host capacity" in said.lower():
        hint = "try another shape or availability domain, ask for a higher limit, or try again later"
        return NoCapacity(f"{where}: {said or code}{request}", hint=hint)
    return ServiceError(
        f"{code}: {said}" if said else code,
        service=call.service,
        operation=call.operation,
        request_id=error.request_id,
        definite=code == _WORN or (status in _REFUSED and status not in {408, 409, 429}),
        hint=_hint(status, code),
    )


def _hint(status: int, code: str) -> str | None:
    if code == _WORN:
        return "what was begun there cannot be continued: submit it as a new run"
    return "wait a little and run it again" if status == 429 or status >= 500 else None


def _rights(said: str, call: Call) -> str:
    facts = {"compartment": call.parameters.get("compartmentId"), "bucket": call.parameters.get("bucketName")}
    needed = [right.statement(facts) for right in rights.needed_for(call.service, call.operation, who="users")]
    tail = f"your administrator grants it with the policies of {POLICY}" + (f": {'; '.join(needed)}" if needed else "")
    return tail if said else f"it does not exist, or you have no right to it; {tail}"


def _cause(said: str) -> str:
    """Return what went wrong below the layers that each wrap the words of the next one."""
    inner = re.sub(r".*\(Caused by \w+\(", "", said.replace("\\", ""))
    inner = re.sub(r"^[\"']*(?:<[^>]*>|\w+\(host=[^)]*\)): ", "", inner).strip(" ,").lstrip("(\"'")
    while inner.endswith((")", '"', "'")) and (
        inner.count(")") > inner.count("(") or (inner[-1] != ")" and inner.count(inner[-1]) % 2)
    ):
        inner = inner[:-1]  # closes what stood before
    return inner


def _words(value: object) -> str:
    return " ".join(str(value or "").split())
