"""Patches of objects in the ways that an API server takes: JSON, merge, strategic merge, apply."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloudtune.rehearsal.kubernetes import speech
from cloudtune.rehearsal.kubernetes.speech import Denied

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
#: Lists of built-in kinds whose entries are told apart by a key; other lists are replaced.
_KEYS: Mapping[str, str] = {
    "containers": "name",
    "conditions": "type",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "resourceClaims": "name",
    "taints": "key",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
#: Lists of plain values that are joined.
_JOINED = {"finalizers"}


def patched(way: str, old: Any, patch: Any) -> Any:
    """Return an object with a patch applied; Refused where that cannot be."""
    if way == JSON:
        return _json_patched(old, patch)
    if not isinstance(patch, Mapping):
        raise speech.bad_request("the patch is no object")
    return merged(old, patch, strategic=way in (STRATEGIC, APPLY))


def merged(old: Any, patch: Any, *, strategic: bool = False) -> Any:
    """Return a value with a merge patch (RFC 7386) applied; a strategic one joins lists by their keys."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    if strategic and patch.get("$patch") == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    out = dict(old) if isinstance(old, Mapping) else {}
    for key, value in patch.items():
        if strategic and key.startswith(("$setElementOrder/", "$retainKeys", "$patch")):
            continue
        if strategic and key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            out[name] = [one for one in out.get(name) or () if one not in value]
        elif value is None:
            out.pop(key, None)
        elif strategic and isinstance(value, list):
            out[key] = _joined(key, out.get(key), value)
        else:
            out[key] = merged(out.get(key), value, strategic=strategic)
    return out


def _joined(name: str, old: Any, patch: Sequence[Any]) -> list[Any]:
    if name in _JOINED:
        return list(dict.fromkeys([*(old or ()), *patch]))
    rows = [one for one in patch if isinstance(one, Mapping)]
    key = _KEYS.get(name) or ("containerPort" if any("containerPort" in one for one in rows) else "")
    if not key or len(rows) != len(patch):
        return copy.deepcopy(list(patch))
    out = {one.get(key): one for one in old or ()}
    for row in rows:
        if row.get("$patch") == "delete":
            out.pop(row.get(key), None)
        else:
            out[row.get(key)] = merged(out.get(row.get(key)), row, strategic=True)
    return list(out.values())


def _json_patched(old: Any, patch: Any) -> Any:
    """Return an object with the operations of a JSON patch (RFC 6902) carried out."""
    if not isinstance(patch, list) or not all(isinstance(one, Mapping) for one in patch):
        raise speech.bad_request("a JSON patch is a list of operations")
    out = copy.deepcopy(old)
    for one in patch:
        known = _OPERATIONS.get(str(one.get("op")))
        if known is None:
            raise speech.bad_request(f"unknown operation {one.get('op')!r} of a JSON patch")
        try:
            known(out, one)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            message = f"the server rejected our request due to an error in our request: {one}"
            raise Denied(422, "Invalid", message) from error
    return out


def _find(root: Any, path: str) -> tuple[Any, Any]:
    """Return what holds the last word of a path, and that word as its key or index."""
    words = [word.replace("~1", "/").replace("~0", "~") for word in path.split("/")[1:]]
    for word in words[:-1]:
        root = root[int(word)] if isinstance(root, list) else root[word]
    last: Any = words[-1]
    if isinstance(root, list):
        last = len(root) if last == "-" else int(last)
    return root, last


def _value(root: Any, path: str) -> Any:
    place, key = _find(root, path)
    return place[key]


def _put(root: Any, path: str, value: Any) -> None:
    place, key = _find(root, path)
    if isinstance(place, list):
        place.insert(key, value)
    else:
        place[key] = value


def _add(root: Any, one: Mapping[str, Any]) -> None:
    _put(root, one["path"], copy.deepcopy(one["value"]))


def _remove(root: Any, one: Mapping[str, Any]) -> None:
    place, key = _find(root, one["path"])
    del place[key]


def _replace(root: Any, one: Mapping[str, Any]) -> None:
    place, key = _find(root, one["path"])
    place[key]  # what is not there cannot be replaced
    place[key] = copy.deepcopy(one["value"])


def _copy(root: Any, one: Mapping[str, Any]) -> None:
    _put(root, one["path"], copy.deepcopy(_value(root, one["from"])))


def _move(root: Any, one: Mapping[str, Any]) -> None:
    value = _value(root, one["from"])
    _remove(root, {"path": one["from"]})
    _put(root, one["path"], value)


def _test(root: Any, one: Mapping[str, Any]) -> None:
    if _value(root, one["path"]) != one["value"]:
        raise ValueError(one["path"])


_OPERATIONS: Mapping[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "add": _add,
    "copy": _copy,
    "move": _move,
    "remove": _remove,
    "replace": _replace,
    "test": _test,
}
