"""What changes objects through an API server: create, update, patch, delete, evict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudtune.rehearsal.kubernetes import patches, speech
from cloudtune.rehearsal.kubernetes.forms import body_of, is_dry, match_of, must_be, parsed, shown
from cloudtune.rehearsal.kubernetes.objects import Edit, Object, Objects, Propagation, moment
from cloudtune.rehearsal.kubernetes.targets import Target
from cloudtune.rehearsal.kubernetes.validation import Validation
from cloudtune.rehearsal.messages import Request, Response, json_response

_WAYS = (patches.JSON, patches.MERGE, patches.STRATEGIC, patches.APPLY)
_POLICIES: Mapping[str, Propagation] = {
    "Background": "Background",
    "Foreground": "Foreground",
    "Orphan": "Orphan",
}


class Writes:
    """The writing half of an API server."""

    def __init__(self, objects: Objects, validation: Validation) -> None:
        self._objects = objects
        self._validation = validation

    def create(self, target: Target, request: Request) -> Response:
        """Make an object, or evict a pod."""
        given = body_of(request)
        if target.part == "eviction":
            return self._evict(target, given, request)
        must_be(target, given)
        self._place(target, given)
        warnings = self._only_known(target, request, given)
        made = self._objects.create(given, dry=is_dry(request))
        return shown(target, request, made, status=201, warnings=warnings)

    def update(self, target: Target, request: Request) -> Response:
        """Replace an object, or its status."""
        given = body_of(request)
        must_be(target, given)
        meta = given.get("metadata") or {}
        if meta.get("name") != target.name:
            words = f"the name of the object ({meta.get('name')}) does not match the name on the URL ({target.name})"
            raise speech.bad_request(words)
        if target.kind.operator and not meta.get("resourceVersion"):
            words = "Invalid value: 0x0: must be specified for an update"
            cause = speech.Cause("metadata.resourceVersion", "FieldValueInvalid", words)
            raise speech.invalid(target.kind, target.name, [cause])
        warnings = self._only_known(target, request, given)

        def edit(thing: Object) -> None:
            _must_be_latest(target, given, thing)
            thing.clear()
            thing.update(given)

        return shown(target, request, self._changed(target, request, edit), warnings=warnings)

    def patch(self, target: Target, request: Request) -> Response:
        """Change an object, or its status, by a patch of any kind."""
        way = request.header("content-type").partition(";")[0].strip()
        if way not in _WAYS or (way == patches.STRATEGIC and target.kind.operator):
            accepted = ", ".join(one for one in _WAYS if not (one == patches.STRATEGIC and target.kind.operator))
            words = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
            raise speech.Denied(415, "UnsupportedMediaType", words)
        patch = parsed(request)
        if way == patches.APPLY:
            if not request.query.get("fieldManager"):
                cause = speech.Cause(
                    "fieldManager", "FieldValueRequired", "Required value: is required for apply patch"
                )
                raise speech.Denied(422, "Invalid", f"PatchOptions.meta.k8s.io is invalid: {cause}")
            if self._objects.get(target.kind.kind, target.namespace, target.name) is None:
                return self._applied_anew(target, request, patch)
        warnings: list[str] = []

        def edit(thing: Object) -> None:
            if isinstance(patch, Mapping):
                _must_be_latest(target, patch, thing)
            new = patches.patched(way, thing, patch)
            warnings.extend(self._only_known(target, request, new))
            thing.clear()
            thing.update(new)

        return shown(target, request, self._changed(target, request, edit), warnings=warnings)

    def delete(self, target: Target, request: Request) -> Response:
        """Delete an object."""
        there = self._objects.get(target.kind.kind, target.namespace, target.name)
        if there is None:
            raise speech.not_found(target.kind, target.name)
        options = _options(request)
        wanted = options.get("preconditions") or {}
        for key in ("uid", "resourceVersion"):
            if wanted.get(key) and wanted[key] != there["metadata"][key]:
                has = there["metadata"][key]
                words = f"Precondition failed: {key} in precondition: {wanted[key]}, {key} in object meta: {has}"
                raise speech.conflict(target.kind, target.name, words)
        gone = self._deleted(target, there, options, request) or there
        still = self._objects.get(target.kind.kind, target.namespace, target.name) is not None
        if still or target.kind.kind == "Pod":
            return shown(target, request, gone)
        details = {"name": target.name, "group": target.kind.group, "kind": target.kind.plural}
        details = {key: value for key, value in details.items() if value} | {"uid": there["metadata"]["uid"]}
        answer = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return json_response(answer, headers=_warnings_of_jobs(target, options))

    def delete_all(self, target: Target, request: Request) -> Response:
        """Delete what a selector names."""
        options = _options(request)
        found = self._objects.list(target.kind.kind, target.namespace, where=match_of(target, request))
        for thing in found:
            self._deleted(target, thing, options, request)
        kind = f"{target.kind.kind}List"
        answer = {"kind": kind, "apiVersion": target.api_version, "metadata": {}, "items": found}
        return json_response(answer, headers=_warnings_of_jobs(target, options))

    def _place(self, target: Target, given: Object) -> None:
        meta = given.setdefault("metadata", {})
        if target.namespace is not None and meta.setdefault("namespace", target.namespace) != target.namespace:
            words = "the namespace of the provided object does not match the namespace sent on the request"
            raise speech.bad_request(words)

    def _only_known(self, target: Target, request: Request, given: Object) -> list[str]:
        """Drop the fields that a kind does not have; return the words for them, or raise as the caller wants it."""
        wanted = request.query.get("fieldValidation") or "Warn"
        unknown = self._validation.drop_unknown(target.kind, given)
        if unknown and wanted == "Strict":
            words = ", ".join(f'unknown field "{path}"' for path in unknown)
            told = f'{target.kind.kind} in version "{target.version}" cannot be handled as a {target.kind.kind}'
            raise speech.bad_request(f"{told}: strict decoding error: {words}")
        return [f'unknown field \\"{path}\\"' for path in unknown] if wanted == "Warn" else []

    def _changed(self, target: Target, request: Request, edit: Edit) -> Object:
        change = self._objects.update_status if target.part == "status" else self._objects.update
        changed = change(target.kind.kind, target.namespace, target.name, edit, dry=is_dry(request))
        if changed is None:
            raise speech.not_found(target.kind, target.name)
        return changed

    def _applied_anew(self, target: Target, request: Request, patch: Any) -> Response:
        thing = patches.merged({}, patch, strategic=True)
        must_be(target, thing)
        self._place(target, thing)
        thing["metadata"].setdefault("name", target.name)
        warnings = self._only_known(target, request, thing)
        made = self._objects.create(thing, dry=is_dry(request))
        return shown(target, request, made, status=201, warnings=warnings)

    def _deleted(self, target: Target, there: Object, options: Mapping[str, Any], request: Request) -> Object | None:
        policy, grace = options.get("propagationPolicy"), options.get("gracePeriodSeconds")
        if policy and policy not in _POLICIES:
            raise speech.bad_request(f'invalid propagationPolicy "{policy}"')
        return self._objects.delete(
            target.kind.kind,
            there["metadata"].get("namespace"),
            there["metadata"]["name"],
            propagation=_POLICIES.get(str(policy)),
            grace_s=None if grace is None else int(grace),
            dry=is_dry(request) or bool(options.get("dryRun")),
        )

    def _evict(self, target: Target, given: Object, request: Request) -> Response:
        """Delete a pod that somebody wants away from its node; why is in its status while it ends."""
        namespace, name = target.namespace, target.name
        if self._objects.get("Pod", namespace, name) is None:
            raise speech.not_found(target.kind, name)
        if not is_dry(request):
            condition = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting",
                "lastTransitionTime": moment(),
            }

            def mark(thing: Object) -> None:
                status = thing.setdefault("status", {})
                others = [one for one in status.get("conditions") or () if one["type"] != "DisruptionTarget"]
                status["conditions"] = [*others, condition]

            self._objects.update_status("Pod", namespace, name, mark)
            grace = (given.get("deleteOptions") or {}).get("gracePeriodSeconds")
            self._objects.delete("Pod", namespace, name, grace_s=grace)
        answer = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        return json_response(answer, status=201)


def _must_be_latest(target: Target, given: Mapping[str, Any], thing: Object) -> None:
    """Raise Refused (409) where a change is made for another version than the object's."""
    wanted = (given.get("metadata") or {}).get("resourceVersion")
    if wanted and str(wanted) != thing["metadata"]["resourceVersion"]:
        raise speech.conflict(target.kind, target.name)
    uid = (given.get("metadata") or {}).get("uid")
    if uid and uid != thing["metadata"]["uid"]:
        has = thing["metadata"]["uid"]
        words = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {has}"
        raise speech.conflict(target.kind, target.name, words)


def _options(request: Request) -> dict[str, Any]:
    """Return how something is to be deleted: from the body, and from the query."""
    given = parsed(request) if request.header("content-length", "0") != "0" else None
    options = dict(given) if isinstance(given, Mapping) else {}
    query = request.query
    if query.get("propagationPolicy"):
        options["propagationPolicy"] = query["propagationPolicy"]
    if query.get("gracePeriodSeconds", "").isdecimal():
        options["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
    return options


def _warnings_of_jobs(target: Target, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    if target.kind.kind != "Job" or options.get("propagationPolicy"):
        return []
    words = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them"
    return [("warning", f'299 - "{words} or set propagationPolicy=Orphan to suppress this warning"')]
