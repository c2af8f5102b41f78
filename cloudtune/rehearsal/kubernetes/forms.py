"""What comes with a request and goes with an answer: bodies, selectors, the forms of objects."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml

from cloudtune.rehearsal.kubernetes import protobuf, speech
from cloudtune.rehearsal.kubernetes.objects import Object
from cloudtune.rehearsal.kubernetes.selectors import Match, by_fields, by_labels
from cloudtune.rehearsal.kubernetes.tables import as_table, wants_table
from cloudtune.rehearsal.kubernetes.targets import Target
from cloudtune.rehearsal.messages import Request, Response, json_response


def parsed(request: Request) -> Any:
    """Return a body of JSON or YAML, or an object in protobuf, as values."""
    text, told = request.body.read(), request.header("content-type")
    try:
        if told.startswith(protobuf.CONTENT_TYPE):
            return protobuf.object_of(text)
        return yaml.safe_load(text) if "yaml" in told else json.loads(text)
    except LookupError as error:
        words = f"a rehearsed cluster takes no {error.args[0]} in protobuf: write it to a file, and kubectl apply -f it"
        raise speech.Denied(415, "UnsupportedMediaType", words) from error
    except (ValueError, yaml.YAMLError) as error:
        raise speech.bad_request(f"the object provided is unrecognized (must be of type object): {error}") from error


def body_of(request: Request) -> dict[str, Any]:
    """Return the object that a request brings."""
    given = parsed(request)
    if not isinstance(given, dict):
        raise speech.bad_request("the object provided is unrecognized (must be of type object)")
    return given


def must_be(target: Target, given: Object) -> None:
    """Raise Refused (400) where a body is of another kind than the path, or none."""
    api, kind = given.get("apiVersion", ""), given.get("kind", "")
    if kind != target.kind.kind:
        told = f"{target.api_version}, Kind={target.kind.kind}"
        raise speech.bad_request(f"{kind} in version {api} cannot be handled as a {told}" if kind else _UNTOLD)
    if api != target.api_version:
        words = f"the API version in the data ({api}) does not match the expected API version ({target.api_version})"
        raise speech.bad_request(words)


_UNTOLD = "Object 'Kind' is missing"


def match_of(target: Target, request: Request) -> Match:
    """Return which objects a request is about: by its selectors, and the name in its path."""
    labels = by_labels(request.query.get("labelSelector", ""))
    fields = by_fields(request.query.get("fieldSelector", ""), target.kind.kind)
    return lambda thing: labels(thing) and fields(thing)


def is_dry(request: Request) -> bool:
    """Whether nothing is to be kept of what a request does; Refused (400) for another word than ``All``."""
    values = [value for name, value in request.queries if name == "dryRun" and value]
    if any(value != "All" for value in values):
        raise speech.Denied(422, "Invalid", f'dryRun: Unsupported value: "{values[0]}": supported values: "All"')
    return bool(values)


def versioned(target: Target, thing: Object) -> Object:
    """Return an object in the version in which it was asked for."""
    return {**thing, "apiVersion": target.api_version}


def shown(
    target: Target, request: Request, thing: Object, *, status: int = 200, warnings: Iterable[str] = ()
) -> Response:
    """Return the answer that is an object, in the form that the client asked for."""
    data: Any = versioned(target, thing)
    if wants_table(request):
        data = as_table(target.kind, [data], request, meta={"resourceVersion": thing["metadata"]["resourceVersion"]})
    told = [("warning", f'299 - "{one}"'.replace("\n", " ")) for one in dict.fromkeys(warnings)]
    return json_response(data, status=status, headers=told)
