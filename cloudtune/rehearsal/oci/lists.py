"""List operations: filters, order and pages, as the services have them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cloudtune.rehearsal.messages import Refused, Request, Response, json_response
from cloudtune.rehearsal.oci.swagger import check_query

#: Things on a page where the client does not say, and at most; Data Science gives no more than it gives unasked.
PAGE = 100
MOST = 1000
MOST_OF_SCIENCE = 100
_ORDER = ("limit", "page", "sortBy", "sortOrder")


def listed(
    request: Request,
    things: Iterable[Mapping[str, Any]],
    *,
    required: Sequence[str] = ("compartmentId",),
    filters: Sequence[str] = (),
    states: Sequence[str] = (),
    shown: Sequence[str] = (),
    sorts: Sequence[str] = ("timeCreated", "displayName"),
    most: int = MOST_OF_SCIENCE,
    late: bool = False,
) -> Response:
    """Return one page of the things that the query asks for; ``shown`` are the fields of a summary, () for all.

    ``filters`` are the parameters that a thing's field of the same name must equal; ``states`` are the values that
    lifecycleState may have, ``sorts`` those of sortBy, the usual one first. A service that filters ``late`` does so
    when a page has been fetched: there may be nothing on one that others follow.
    """
    check_query(request, (*filters, *_ORDER), required=required)
    state = request.query.get("lifecycleState")
    if state is not None and states and state not in states:
        raise Refused(400, "InvalidParameter", f"lifecycleState must be one of {', '.join(states)}")
    early = {name: request.query[name] for name in required if name in request.query}
    wanted = {name: request.query[name] for name in filters if name in request.query}
    found = [thing for thing in things if _has(thing, early) and (late or _has(thing, wanted))]
    part, headers = page_of(request, _ordered(request, found, sorts), most=most)
    part = [thing for thing in part if _has(thing, wanted)]
    rows = [
        {key: value for key, value in thing.items() if value is not None and key in (shown or thing)} for thing in part
    ]
    return json_response(rows, headers=headers)


def _has(thing: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    return all(thing.get(name) == value for name, value in wanted.items())


def _ordered(request: Request, things: list[Mapping[str, Any]], sorts: Sequence[str]) -> list[Mapping[str, Any]]:
    """Sort by time, the newest first, unless the query says otherwise; names go up."""
    by = request.query.get("sortBy", sorts[0])
    if by not in sorts:
        raise Refused(400, "InvalidParameter", f"sortBy must be one of {', '.join(sorts)}")
    order = request.query.get("sortOrder", "DESC" if by.lower().startswith("time") else "ASC")
    if order not in ("ASC", "DESC"):
        raise Refused(400, "InvalidParameter", "sortOrder must be one of ASC, DESC")
    accepted = "timeAccepted" if any("timeAccepted" in thing for thing in things) else "timeCreated"
    key = {"timeCreated": accepted, "TIMECREATED": "timeCreated", "NAME": "name"}.get(by, by)
    return sorted(things, key=lambda thing: str(thing.get(key) or ""), reverse=order == "DESC")


def page_of(
    request: Request, things: Sequence[Any], *, most: int = MOST, usual: int = PAGE, about: str = ""
) -> tuple[Sequence[Any], list[tuple[str, str]]]:
    """Return the page that the query asks for, and the header that names the next one.

    A page's name holds where it begins, and a digest of what was asked: it is good for the same question alone.
    """
    start, end = page_asked_for(request, most=most, usual=usual, about=about)
    headers = []
    if end < len(things):
        name = base64.urlsafe_b64encode(json.dumps([end, _digest(request, about)]).encode()).decode()
        headers.append(("opc-next-page", name))
    return things[start:end], headers


def page_asked_for(request: Request, *, most: int = MOST, usual: int = PAGE, about: str = "") -> tuple[int, int]:
    """Return where the page that the query asks for begins and ends, if there is as much."""
    limit, start = _number(request, "limit", usual, most), 0
    if "page" in request.query:
        try:
            named = json.loads(base64.urlsafe_b64decode(request.query["page"]))
            start, asked = int(named[0]), named[1]
        except (ValueError, TypeError, LookupError):
            raise Refused(400, "InvalidParameter", "page: no page is called that") from None
        if asked != _digest(request, about):
            raise Refused(400, "InvalidParameter", "page: it belongs to another question")
    return start, start + limit


def _digest(request: Request, about: str) -> str:
    asked = sorted((name, value) for name, value in request.queries if name not in ("page", "limit"))
    return hashlib.sha256(json.dumps([request.path, asked, about]).encode()).hexdigest()[:16]


def _number(request: Request, name: str, usual: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return usual
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise Refused(400, "InvalidParameter", f"{name} must be a number from 1 to {most}")
    return int(text)
