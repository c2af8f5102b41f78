"""The API server of a rehearsed cluster: what it answers to each request."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from cloudtune.rehearsal.faults import Faults
from cloudtune.rehearsal.kubernetes import discovery, speech
from cloudtune.rehearsal.kubernetes.access import Access
from cloudtune.rehearsal.kubernetes.container_logs import ContainerLogs
from cloudtune.rehearsal.kubernetes.forms import body_of, match_of, shown, versioned
from cloudtune.rehearsal.kubernetes.kinds import Kinds
from cloudtune.rehearsal.kubernetes.objects import Object, Objects
from cloudtune.rehearsal.kubernetes.pod_logs import read_log
from cloudtune.rehearsal.kubernetes.tables import as_metadata, as_table, wants_metadata, wants_table
from cloudtune.rehearsal.kubernetes.targets import Target, target_of
from cloudtune.rehearsal.kubernetes.validation import Validation
from cloudtune.rehearsal.kubernetes.watches import Watch
from cloudtune.rehearsal.kubernetes.writes import Writes
from cloudtune.rehearsal.messages import Request, Response, json_response
from cloudtune.rehearsal.routes import Route, Service

SERVICE = "kubernetes"
#: A fault of this kind, by the operation that meets it, lets all changes so far be forgotten: watches must list anew.
HISTORY_CUT = "history cut"
#: A fault of this kind, by the operation that meets it, ends all tokens that were seen so far.
TOKENS_END = "tokens end"


class _Cluster(Protocol):
    """What the API server needs of a cluster."""

    kinds: Kinds
    objects: Objects
    access: Access
    logs: ContainerLogs
    validation: Validation


class ApiServer:
    """The API server; ``service`` is what a stage serves."""

    def __init__(self, cluster: _Cluster, faults: Faults) -> None:
        self.cluster = cluster
        self._faults = faults
        writes = Writes(cluster.objects, cluster.validation)
        self._deeds: Mapping[str, Callable[[Target, Request], Response]] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": writes.create,
            "update": writes.update,
            "patch": writes.patch,
            "delete": writes.delete,
            "deletecollection": writes.delete_all,
        }
        self.service = Service(SERVICE, (), refuse=speech.refuse, choose=self._choose)

    def _choose(self, request: Request, _: Mapping[str, Route]) -> Route | None:
        path = request.path.rstrip("/") or "/"
        if request.method == "GET":
            told = self._told(path, request)
            if told is not None:
                return _route(request, "discover", partial(self._discover, told))
        words = path.split("/")
        api, plural = "/".join(words[2:-1]), words[-1]
        if request.method == "POST" and plural in {row[1] for row in discovery.REVIEWS.get(api, ())}:
            return _route(request, "review_rights", partial(self._review, plural))
        target = target_of(request, self.cluster.kinds)
        if target is None:
            return _route(request, "unknown", _not_there)
        return _route(request, target.operation, partial(self._answer, target))

    def _discover(self, told: dict[str, Any] | Response, request: Request) -> Response:
        if request.path.startswith(("/api", "/openapi")):  # the rest is for everybody
            self.cluster.access.admit(request)
        return json_response(told) if isinstance(told, dict) else told

    def _told(self, path: str, request: Request) -> dict[str, Any] | Response | None:
        """Return what the server says of itself at a path, None where that is no such path."""
        kinds, words = self.cluster.kinds, path.split("/")[1:]
        if path in ("/healthz", "/livez", "/readyz"):
            return Response(headers=(("content-type", "text/plain"),), body=b"ok")
        if path == "/version":
            return discovery.version()
        if path == "/api":
            return discovery.core_versions(request.header("host"))
        if path == "/apis":
            return discovery.groups(kinds)
        if path == "/openapi/v3":
            return discovery.schema_index(kinds)
        if words[:2] == ["openapi", "v3"]:
            return discovery.schema("/".join(words[2:]), kinds)
        if words[0] == "apis" and len(words) == 2:
            return discovery.group(words[1], kinds)
        if (words[0] == "apis" and len(words) == 3) or (words[0] == "api" and len(words) == 2):
            return discovery.resources("/".join(words[1:]), kinds)
        return None

    def _review(self, plural: str, request: Request) -> Response:
        user = self.cluster.access.admit(request)
        given = body_of(request)
        return json_response(self.cluster.access.review(user, plural, given, self.cluster.kinds), status=201)

    def _answer(self, target: Target, request: Request) -> Response:
        if self._faults.event(TOKENS_END, target.operation):
            self.cluster.access.end_tokens()
        user = self.cluster.access.admit(request)
        self.cluster.access.check(user, target)
        if self._faults.event(HISTORY_CUT, target.operation):
            self.cluster.objects.forget_changes()
        if not _is_served(target):
            raise speech.Denied(404, "NotFound", _NOT_FOUND)
        return self._deeds[target.verb](target, request)

    def _get(self, target: Target, request: Request) -> Response:
        thing = self.cluster.objects.get(target.kind.kind, target.namespace, target.name)
        if thing is None:
            raise speech.not_found(target.kind, target.name)
        if target.part == "log":
            return read_log(request, thing, self.cluster.objects, self.cluster.logs)
        if wants_metadata(request):
            return json_response(as_metadata(thing))
        return shown(target, request, thing)

    def _list(self, target: Target, request: Request) -> Response:
        objects, match = self.cluster.objects, match_of(target, request)
        start, version = _continued(request.query.get("continue", ""))
        if version is not None and version < objects.oldest:
            message = "The provided continue parameter is too old to display a consistent list result."
            raise speech.Denied(410, "Expired", message)
        now, found = objects.listed(target.kind.kind, target.namespace, where=match)
        left = sorted((thing for thing in found if _place(thing) > start), key=_place)
        limit = int(request.query["limit"]) if request.query.get("limit", "").isdecimal() else 0
        page = left[:limit] if limit else left
        meta: dict[str, Any] = {"resourceVersion": str(version or now)}
        if len(page) < len(left):
            meta["continue"] = _token(_place(page[-1]), version or now)
            meta["remainingItemCount"] = len(left) - len(page)
        if wants_table(request):
            return json_response(as_table(target.kind, page, request, meta=meta))
        items = [versioned(target, thing) for thing in page]
        if not target.kind.operator:  # lists of built-in kinds do not repeat what their items are
            items = [{key: value for key, value in one.items() if key not in ("apiVersion", "kind")} for one in items]
        answer = {"kind": f"{target.kind.kind}List", "apiVersion": target.api_version, "metadata": meta, "items": items}
        return json_response(answer)

    def _watch(self, target: Target, request: Request) -> Response:
        def form(thing: Object) -> Object:
            shown = versioned(target, thing)
            return as_table(target.kind, [shown], request, meta={}) if wants_table(request) else shown

        watch = Watch(self.cluster.objects, target, request, match_of(target, request), form)
        return Response(headers=(("content-type", "application/json"),), body=watch)


def _is_served(target: Target) -> bool:
    """Whether there is such a part of the kind, for what is to be done with it."""
    if not target.part:
        return True
    if target.part == "status":
        return target.kind.status and target.verb in ("get", "patch", "update")
    return target.kind.kind == "Pod" and (target.part, target.verb) in (("log", "get"), ("eviction", "create"))


_NOT_FOUND = "the server could not find the requested resource"


def _not_there(_: Request) -> Response:
    raise speech.Denied(404, "NotFound", _NOT_FOUND)


def _route(request: Request, operation: str, handler: Callable[[Request], Response]) -> Route:
    return Route(method=request.method, template=request.raw_path, operation=operation, handler=handler)


def _place(thing: Object) -> tuple[str, str]:
    """Return where an object stands in lists."""
    return thing["metadata"].get("namespace", ""), thing["metadata"]["name"]


def _token(place: tuple[str, str], version: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([*place, version]).encode()).decode()


def _continued(token: str) -> tuple[tuple[str, str], int | None]:
    """Return after which object a page begins, and the version of its list; None for the first page."""
    if not token:
        return ("", ""), None
    try:
        namespace, name, version = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        raise speech.bad_request("continue key is not valid") from None
    return (str(namespace), str(name)), int(version)
