"""How all services of Oracle Cloud speak: errors, request ids, times and entity tags."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from cloudtune.rehearsal.messages import Refused, Request, Response, json_response
from cloudtune.rehearsal.state import Resource

#: What a service says whether something does not exist or is not the caller's to see.
NOT_FOUND = "Authorization failed or requested resource not found."
#: The kernel's own words, in the services'.
_CODES = {"InvalidJSON": "CannotParseRequest", "PayloadTooLarge": "RequestEntityTooLarge"}
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d(?::\d\d)?)(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_NOT_KNOWN = "The required information to complete authentication was not provided or was incorrect."


def refuse(request: Request, why: Refused) -> Response:
    """Put an error into the services' words."""
    code, message = _CODES.get(why.code, why.code), why.message
    if why.status == 401:
        code, message = "NotAuthenticated", _NOT_KNOWN if why.code == "Expired" else f"{_NOT_KNOWN} {message}"
    answer = json_response({"code": code, "message": message}, status=why.status, headers=why.headers)
    return with_request_id(request, answer)


def not_found(what: str) -> Refused:
    """Return the refusal of something that is not there; ``what`` helps who reads the test's output."""
    return Refused(404, "NotAuthorizedOrNotFound", f"{NOT_FOUND} ({what})")


def with_request_id(request: Request, answer: Response) -> Response:
    """Return an answer that says which request it is for: the client's own id with the service's behind it."""
    given = request.header("opc-request-id")
    own = f"{secrets.token_hex(16).upper()}/{secrets.token_hex(16).upper()}"
    ours = f"{given}/{own}" if given else own
    return attrs.evolve(answer, headers=(*answer.headers, ("opc-request-id", ours)))


def reply(data: Mapping[str, Any], *, of: Resource | None = None, status: int = 200) -> Response:
    """Return an answer with one thing in it, null fields left out; ``of`` gives the entity tag."""
    headers = [("etag", etag(of))] if of is not None else []
    return json_response(
        {key: value for key, value in data.items() if value is not None}, status=status, headers=headers
    )


def nothing(*, status: int = 204, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Return an answer without a body."""
    return Response(status=status, headers=tuple(headers))


def etag(thing: Resource) -> str:
    """Return the tag of one state of a thing."""
    return hashlib.sha256(f"{thing.id} {thing.version}".encode()).hexdigest()[:32]


def check_match(request: Request, thing: Resource) -> None:
    """Refuse a change that was meant for another state of the thing."""
    wanted = request.header("if-match")
    if wanted and wanted not in ("*", etag(thing)):
        raise Refused(412, "NoEtagMatch", "the resource has changed since this etag was given")


def moment(time_s: float) -> str:
    """Return a time as the services write it."""
    stamp = dt.datetime.fromtimestamp(time_s, dt.timezone.utc)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp.microsecond // 1000:03d}Z"


def read_moment(field: str, text: str) -> float:
    """Return a time that a client wrote as seconds since 1970; times without a zone are refused."""
    found = _MOMENT.fullmatch(text)
    zone = found[3].upper().replace("Z", "+00:00") if found else ""
    try:
        stamp = dt.datetime.fromisoformat(f"{found[1]}{zone}") if found else None
    except ValueError:
        stamp = None
    if found is None or stamp is None:
        raise Refused(400, "InvalidParameter", f"{field}: {text!r} is not a time as RFC 3339 writes it")
    return stamp.timestamp() + float(f"0{found[2] or ''}")
