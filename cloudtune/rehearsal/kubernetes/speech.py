"""How an API server words what it refuses: Status objects with a reason, details and causes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from cloudtune.rehearsal.kubernetes.kinds import Kind
from cloudtune.rehearsal.messages import Headers, Refused, Request, Response, json_response

#: Reasons of statuses that the kernel refuses with words of its own.
_REASONS: Mapping[int, str] = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@attrs.frozen
class Cause:
    """One thing that is wrong with an object: at which field, what it is called, and the words for it."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class Denied(Refused):
    """A refusal with the details of a Status."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(status, code, message, headers=headers)
        self.details = dict(details or {})


def status_of(why: Refused) -> dict[str, Any]:
    """Return the Status object of a refusal."""
    details = why.details if isinstance(why, Denied) else {}
    words = why.message
    if why.status == 401:  # whatever is wrong with a token, the server says no more
        words = "Unauthorized"
    out: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": words,
        "reason": why.code if isinstance(why, Denied) else _REASONS.get(why.status, why.code),
        "code": why.status,
    }
    return {**out, "details": details} if details else out


def refuse(_: Request, why: Refused) -> Response:
    """Put a refusal into the words of an API server."""
    return json_response(status_of(why), status=why.status, headers=why.headers)


def bad_request(message: str) -> Denied:
    """Return the refusal of what cannot be understood."""
    return Denied(400, "BadRequest", message)


def not_found(kind: Kind, name: str) -> Denied:
    """Return the refusal to find something."""
    return Denied(404, "NotFound", f'{kind.key} "{name}" not found', details=_about(kind.plural, kind.group, name))


def already_exists(kind: Kind, name: str) -> Denied:
    """Return the refusal to make what is there."""
    return Denied(
        409, "AlreadyExists", f'{kind.key} "{name}" already exists', details=_about(kind.plural, kind.group, name)
    )


def conflict(kind: Kind, name: str, words: str = "") -> Denied:
    """Return the refusal to change what another has changed meanwhile."""
    words = words or ("the object has been modified; please apply your changes to the latest version and try again")
    message = f'Operation cannot be fulfilled on {kind.key} "{name}": {words}'
    return Denied(409, "Conflict", message, details=_about(kind.plural, kind.group, name))


def forbidden(kind: Kind, name: str, words: str) -> Denied:
    """Return the refusal of what the caller may not do, or nobody may."""
    subject = f'{kind.key} "{name}"' if name else kind.key
    return Denied(403, "Forbidden", f"{subject} is forbidden: {words}", details=_about(kind.plural, kind.group, name))


def invalid(kind: Kind, name: str, causes: Iterable[Cause]) -> Denied:
    """Return the refusal of an object with all that is wrong with it."""
    causes = tuple(causes)
    words = ", ".join(str(cause) for cause in causes)
    full = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    told = f"[{words}]" if len(causes) > 1 else words
    rows = [{"reason": one.reason, "message": one.message, "field": one.field} for one in causes]
    details = {**_about(kind.kind, kind.group, name), "causes": rows}
    return Denied(422, "Invalid", f'{full} "{name}" is invalid: {told}', details=details)


def expired(version: int, oldest: int) -> Denied:
    """Return the refusal to tell changes that are no longer kept."""
    return Denied(410, "Expired", f"too old resource version: {version} ({oldest})")


def _about(kind: str, group: str, name: str) -> dict[str, Any]:
    known = {"name": name, "group": group, "kind": kind}
    return {key: value for key, value in known.items() if value}
