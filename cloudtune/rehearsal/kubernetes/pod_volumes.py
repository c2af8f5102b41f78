"""The volumes of a pod as folders of the rehearsal, and where its containers see them.

A claim's folder is the same for all pods that use it, a host's for all pods on one node; others are the pod's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from cloudtune.rehearsal.kubernetes.pod_environment import (
    Find,
    Object,
    Unconfigured,
    data_of,
    expanded,
    field_of,
    resource_of,
)
from cloudtune.rehearsal.kubernetes.quantities import whole
from cloudtune.rehearsal.nodes import Place


class Unmounted(Exception):
    """A pod cannot start: a volume of it is not there; the text is the kubelet's."""


@attrs.frozen(kw_only=True)
class Folders:
    """Where a cluster keeps what its pods mount."""

    root: Path

    def claim(self, namespace: str, name: str) -> Path:
        """Return the folder of a claim."""
        return self._made("claims", namespace, name)

    def host(self, node: str, path: str) -> Path:
        """Return what a node has at a path; it is made as a folder."""
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        return self._made("nodes", node, *parts)

    def pod(self, uid: str, *parts: str) -> Path:
        """Return a folder of a pod's own."""
        return self._made("pods", uid, *parts)

    def _made(self, *parts: str) -> Path:
        folder = self.root.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def mount(pod: Object, find: Find, folders: Folders) -> dict[str, Place]:
    """Return the volumes of a pod by name; their folders are made and filled.

    Raises:
        Unmounted: something that a volume shows is not there.
    """
    return {volume["name"]: _place(pod, volume, find, folders) for volume in pod["spec"].get("volumes") or ()}


def places_of(container: Object, volumes: Mapping[str, Place], variables: Mapping[str, str]) -> dict[str, Place]:
    """Return what a container sees of the volumes, by path.

    Raises:
        Unmounted: a part of a volume is not there.
    """
    found: dict[str, Place] = {}
    for row in container.get("volumeMounts") or ():
        place = volumes[row["name"]]
        part = row.get("subPath") or expanded(row.get("subPathExpr") or "", variables)
        if part and place.source is not None:
            source = place.source / part
            if not source.exists():
                if place.read_only:
                    raise Unmounted(f'failed to prepare subPath for volumeMount "{row["name"]}" of container')
                source.mkdir(parents=True)
            place = attrs.evolve(place, source=source)
        found[row["mountPath"].rstrip("/") or "/"] = attrs.evolve(
            place, read_only=place.read_only or bool(row.get("readOnly"))
        )
    return found


def _place(pod: Object, volume: Mapping[str, Any], find: Find, folders: Folders) -> Place:
    name, meta = volume["name"], pod["metadata"]
    own = folders.pod(meta["uid"], "volumes", name)
    if "emptyDir" in volume:
        return _empty(pod, name, volume["emptyDir"] or {}, own)
    if "hostPath" in volume:
        return _host(pod, volume["hostPath"], folders)
    if "persistentVolumeClaim" in volume:
        row = volume["persistentVolumeClaim"]
        claim = folders.claim(meta["namespace"], row["claimName"])
        return Place(source=claim, read_only=bool(row.get("readOnly")))
    if "projected" in volume:
        for source in volume["projected"].get("sources") or ():
            _write(pod, name, source, find, own)
        return Place(source=own, read_only=True)
    if any(words in volume for words in ("configMap", "secret", "downwardAPI")):
        _write(pod, name, volume, find, own)
        return Place(source=own, read_only=True)
    kinds = ", ".join(key for key in volume if key != "name")
    raise Unmounted(f'MountVolume.SetUp failed for volume "{name}" : {kinds} is not rehearsed')


def _empty(pod: Object, name: str, row: Mapping[str, Any], own: Path) -> Place:
    """Return an empty folder; in memory where one container alone sees it, for there it cannot be shared."""
    spec = pod["spec"]
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    seen = sum(any(one["name"] == name for one in each.get("volumeMounts") or ()) for each in containers)
    if row.get("medium") == "Memory" and seen == 1:
        return Place(size_bytes=whole(row["sizeLimit"]) if row.get("sizeLimit") else None)
    return Place(source=own)


def _host(pod: Object, row: Mapping[str, Any], folders: Folders) -> Place:
    path, kind = row["path"], row.get("type") or ""
    if path.rstrip("/") == "/dev/shm":  # noqa: S108 - the node's own, in memory
        return Place()
    source = folders.host(pod["spec"]["nodeName"], path)
    if kind in ("File", "FileOrCreate"):
        raise Unmounted(f"hostPath type check failed: {path} is not a file")
    return Place(source=source)


def _write(pod: Object, name: str, row: Mapping[str, Any], find: Find, own: Path) -> None:
    """Write what a volume of files shows."""
    try:
        files = _files(pod, row, find)
    except Unconfigured as why:
        raise Unmounted(f'MountVolume.SetUp failed for volume "{name}" : {why}') from why
    for path, (data, mode) in files.items():
        place = own / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            place.chmod(0o600)  # it was mounted before
        place.write_bytes(data)
        place.chmod(mode)


def _files(pod: Object, row: Mapping[str, Any], find: Find) -> dict[str, tuple[bytes, int]]:
    if "downwardAPI" in row:
        return {item["path"]: (_downward(pod, item).encode(), 0o644) for item in row["downwardAPI"].get("items") or ()}
    if "serviceAccountToken" in row:
        return {row["serviceAccountToken"]["path"]: (b"rehearsed", 0o600)}
    kind, given = ("ConfigMap", row["configMap"]) if "configMap" in row else ("Secret", row["secret"])
    # a volume names a Secret otherwise than a projected source does
    called = given.get("name") or given.get("secretName") or ""
    thing = find(kind, called)
    if thing is None:
        if given.get("optional"):
            return {}
        raise Unconfigured(f'{kind.lower()} "{called}" not found')
    data, mode = data_of(thing), int(given.get("defaultMode", 0o644))
    if not given.get("items"):
        return {key: (value, mode) for key, value in data.items()}
    missing = [item["key"] for item in given["items"] if item["key"] not in data]
    if missing and not given.get("optional"):
        raise Unconfigured(f"{kind.lower()} references non-existent config key: {missing[0]}")
    return {
        item["path"]: (data[item["key"]], int(item.get("mode", mode))) for item in given["items"] if item["key"] in data
    }


def _downward(pod: Object, item: Mapping[str, Any]) -> str:
    if "fieldRef" in item:
        return field_of(pod, item["fieldRef"]["fieldPath"])
    return resource_of(pod, pod["spec"]["containers"][0], item["resourceFieldRef"])
