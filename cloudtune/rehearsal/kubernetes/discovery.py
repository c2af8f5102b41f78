"""What an API server says of itself: its version, groups, kinds, and which parameters it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudtune.rehearsal.kubernetes.kinds import Kind, Kinds

#: The version that the stand-in behaves like.
VERSION = "v1.35.0"
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_PART_VERBS = ("get", "patch", "update")
#: Kinds that are asked and not kept, by group and version: kind, plural.
REVIEWS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "authentication.k8s.io/v1": (("SelfSubjectReview", "selfsubjectreviews"),),
    "authorization.k8s.io/v1": (
        ("SelfSubjectAccessReview", "selfsubjectaccessreviews"),
        ("SelfSubjectRulesReview", "selfsubjectrulesreviews"),
    ),
}


def version() -> dict[str, Any]:
    """Return what ``/version`` answers."""
    major, minor, _ = VERSION.removeprefix("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"{VERSION}-rehearsed",
        "gitCommit": "rehearsed",
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "rehearsed",
        "compiler": "rehearsed",
        "platform": "linux/amd64",
    }


def core_versions(host: str) -> dict[str, Any]:
    """Return what ``/api`` answers."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}],
    }


def groups(kinds: Kinds) -> dict[str, Any]:
    """Return what ``/apis`` answers."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name, kinds) for name in _names(kinds)]}


def group(name: str, kinds: Kinds) -> dict[str, Any] | None:
    """Return what ``/apis/GROUP`` answers, None where there is no such group."""
    if name not in _names(kinds):
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, kinds)}


def resources(api_version: str, kinds: Kinds) -> dict[str, Any] | None:
    """Return what a group and version answers: its kinds; None where there is no such version."""
    rows: list[dict[str, Any]] = []
    for kind in _kinds_in(api_version, kinds):
        rows.append(_row(kind, kind.plural, kind.kind, _VERBS) | _names_of(kind))
        parts = (["status"] if kind.status else []) + (["log", "eviction"] if kind.kind == "Pod" else [])
        for part in parts:
            verbs = {"log": ("get",), "eviction": ("create",)}.get(part, _PART_VERBS)
            row = _row(kind, f"{kind.plural}/{part}", "Eviction" if part == "eviction" else kind.kind, verbs)
            rows.append(row | ({"group": "policy", "version": "v1"} if part == "eviction" else {}))
    rows += [
        {"name": plural, "singularName": name.lower(), "namespaced": False, "kind": name, "verbs": ["create"]}
        for name, plural in REVIEWS.get(api_version, ())
    ]
    if not rows:
        return None
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": rows}


def schema_index(kinds: Kinds) -> dict[str, Any]:
    """Return what ``/openapi/v3`` answers: where the documents of the groups are."""
    paths = (_document_path(api) for api in _api_versions(kinds))
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash=rehearsed"} for path in paths}}


def schema(path: str, kinds: Kinds) -> dict[str, Any] | None:
    """Return the document of a group and version: which parameters its kinds take, and no schema.

    It is for clients that look whether the server validates fields by itself, as ``kubectl`` does.
    """
    api_version = path.partition("/")[2]
    found = _kinds_in(api_version, kinds)
    if not found:
        return None
    paths = {f"/{path}/{_in_path(kind)}/{{name}}": {"patch": _patch_of(kind, api_version)} for kind in found}
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "components": {"schemas": {}},
    }


def _patch_of(kind: Kind, api_version: str) -> dict[str, Any]:
    names = ("dryRun", "fieldManager", "fieldValidation", "force", "pretty")
    group_name, _, version_name = api_version.rpartition("/")
    return {
        "operationId": f"patch{kind.kind}",
        "parameters": [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names],
        "requestBody": {"content": {"application/merge-patch+json": {"schema": {"type": "object"}}}},
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {"group": group_name, "version": version_name, "kind": kind.kind},
    }


def _in_path(kind: Kind) -> str:
    return f"namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else kind.plural


def _document_path(api_version: str) -> str:
    return f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"


def _api_versions(kinds: Kinds) -> list[str]:
    named = [kind.named(version) for kind in kinds.all for version in kind.versions]
    return list(dict.fromkeys(named))


def _names(kinds: Kinds) -> list[str]:
    found = [kind.group for kind in kinds.all if kind.group] + [api.partition("/")[0] for api in REVIEWS]
    return list(dict.fromkeys(found))


def _group(name: str, kinds: Kinds) -> dict[str, Any]:
    named = [*_api_versions(kinds), *REVIEWS]
    versions = [{"groupVersion": api, "version": api.partition("/")[2]} for api in named if api.startswith(f"{name}/")]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _kinds_in(api_version: str, kinds: Kinds) -> list[Kind]:
    return [kind for kind in kinds.all if api_version in {kind.named(version) for version in kind.versions}]


def _row(kind: Kind, name: str, word: str, verbs: tuple[str, ...]) -> dict[str, Any]:
    return {"name": name, "singularName": "", "namespaced": kind.namespaced, "kind": word, "verbs": list(verbs)}


def _names_of(kind: Kind) -> dict[str, Any]:
    out: dict[str, Any] = {"singularName": kind.kind.lower()}
    if kind.short:
        out["shortNames"] = list(kind.short)
    if kind.kind in ("Pod", "Job", "Service", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet", "CronJob"):
        out["categories"] = ["all"]
    return out
