"""Requests and replies of services that have parameters in paths, queries and headers, as well as in the body."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from cloudtune.rehearsal.aws.models import model_of, path_parameters
from cloudtune.rehearsal.messages import Request, Response, json_response

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import Asked


def is_rest(service: str) -> bool:
    """Whether a service's operations are told by method and path."""
    return str(model_of(service)["metadata"]["protocol"]).startswith("rest")


def parameters_of(request: Request, asked: Asked) -> dict[str, Any]:
    """Return a request's parameters by their names in the model; ValueError for a body that is not JSON."""
    model = model_of(asked.service)
    shapes = model["shapes"]
    shape = shapes[model["operations"][asked.operation]["input"]["shape"]]
    in_path = path_parameters(asked.service, asked.operation, request.raw_path)
    payload = shape.get("payload")
    whole = payload is not None and shapes[shape["members"][payload]["shape"]]["type"] == "blob"
    found: dict[str, Any] = {} if whole else dict(json.loads(asked.body or b"{}"))
    if whole:
        found[str(payload)] = base64.b64encode(asked.body or b"").decode()
    for name, member in shape["members"].items():
        place, key, kind = member.get("location"), member.get("locationName", name), shapes[member["shape"]]["type"]
        if place == "uri":
            found[name] = unquote(in_path[key])
        elif place == "querystring" and key in request.query:
            found[name] = _typed(request.query[key], kind)
        elif place == "header" and request.header(key):
            found[name] = _typed(request.header(key), kind)
    return found


def plain_reply(operation: Mapping[str, Any], data: Mapping[str, Any] | None) -> Response:
    """Return an answer whose fields are all in the body."""
    headers = (("x-amzn-requestid", str(uuid.uuid4())),)
    return json_response(data or {}, status=operation["http"].get("responseCode", 200), headers=headers)


def _typed(text: str, kind: str) -> Any:
    if kind in {"integer", "long"} and text.lstrip("-").isdecimal():
        return int(text)
    if kind == "boolean":
        return text == "true"
    return text
