"""How AWS's services speak: errors in each protocol's own form, request ids, pages of lists."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, TypeVar
from xml.sax.saxutils import escape

from cloudtune.rehearsal.messages import Refused, Request, Response, json_response

JSON = "application/x-amz-json-1.1"
#: What the services call a session that has ended, by how they speak; a fault of a rehearsal's plan says it too.
_EXPIRED = "The security token included in the request is expired"

T = TypeVar("T")


def reply(data: Mapping[str, Any] | None) -> Response:
    """Return an answer of a service that speaks JSON; None for one without a body."""
    headers = (("x-amzn-requestid", str(uuid.uuid4())), ("content-type", JSON))
    if data is None:
        return Response(headers=headers)
    plain = json_response(data)
    return Response(headers=headers, body=plain.body)


def invalid(message: str) -> Refused:
    """Return the refusal of a request that cannot be carried out as it is."""
    return Refused(400, "ValidationException", message)


def page(
    rows: list[T],
    given: Mapping[str, Any],
    *,
    usual: int,
    names: tuple[str, str] = ("MaxResults", "NextToken"),
    code: str = "ValidationException",
) -> tuple[list[T], dict[str, str]]:
    """Return the rows of the page that was asked for, and the field that leads to the next one where there is one.

    ``usual`` is how many rows a page has unless the first of the parameters in ``names`` says so; ``code`` is the
    refusal of a token that was never given.
    """
    most, token = names
    text = str(given.get(token, "0"))
    if not text.isdecimal():
        raise Refused(400, code, "The token that you have provided is not valid.")
    start = int(text)
    end = start + int(given.get(most, usual))
    return rows[start:end], {token: str(end)} if end < len(rows) else {}


def denied(who: str, action: str) -> Refused:
    """Return the refusal for want of a right, such as ``s3:PutObject``."""
    why = f"because no identity-based policy allows the {action} action"
    message = f"User: {who} is not authorized to perform: {action} on resource: * {why}"
    if action.startswith(("s3:", "iam:", "sts:")):
        return Refused(403, "AccessDenied", message)
    return Refused(400, "AccessDeniedException", message)


def refuse(request: Request, why: Refused) -> Response:
    """Put an error into the words of the service that the request is for."""
    code, status, message = why.code, why.status, why.message
    speaks_json = bool(request.header("x-amz-target"))
    if code == "Expired":
        code, status, message = "ExpiredTokenException" if speaks_json else "ExpiredToken", 400, _EXPIRED
    request_id = str(uuid.uuid4())
    if speaks_json:
        headers = (("x-amzn-requestid", request_id), ("content-type", JSON), *why.headers)
        # services of the older kind spell it with a capital, and clients read both
        said = {"__type": code, "message": message, "Message": message}
        return Response(status=status, headers=headers, body=json_response(said).body)
    service = signed_for(request)[1]
    if service == "s3":
        if request.method == "HEAD":
            return Response(status=status, headers=(("x-amz-request-id", request_id), *why.headers))
        body = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
        return _xml(body, status, (("x-amz-request-id", request_id), *why.headers))
    if service and request.header("content-type").startswith("application/x-www-form-urlencoded"):
        inner = f"<Type>Sender</Type><Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
        body = f"<ErrorResponse><Error>{inner}</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        return _xml(body, status, why.headers)
    headers = (("x-amzn-requestid", request_id), ("x-amzn-errortype", code), *why.headers)
    return json_response({"message": message}, status=status, headers=headers)


def signed_for(request: Request) -> tuple[str, str]:
    """Return the region and the service that a request is signed for, both empty where it is not signed."""
    scope = request.header("authorization").partition("Credential=")[2].partition(",")[0]
    parts = (scope or request.query.get("X-Amz-Credential", "")).strip().split("/")
    return (parts[-3], parts[-2]) if len(parts) >= 5 else ("", "")


def _xml(body: str, status: int, headers: tuple[tuple[str, str], ...]) -> Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'
    return Response(status=status, headers=(("content-type", "application/xml"), *headers), body=text.encode())
