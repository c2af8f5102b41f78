"""What an API server refuses of pods, and of templates of pods."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from cloudtune.rehearsal.kubernetes.naming_rules import (
    bad,
    duplicate,
    host_faults,
    label_faults,
    missing,
    required,
    unsupported,
)
from cloudtune.rehearsal.kubernetes.quantities import quantity
from cloudtune.rehearsal.kubernetes.speech import Cause

_ENV = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_RESTARTS = ("Always", "OnFailure", "Never")
_PULLS = ("Always", "IfNotPresent", "Never")
_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")
_PLAIN_RESOURCES = {"cpu", "memory", "ephemeral-storage", "storage"}
_HUGE = "hugepages-"
_SOURCES = ("configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef")


def pod_faults(field: str, spec: Mapping[str, Any]) -> Iterator[Cause]:
    """Return what is wrong with a pod's specification, at a field of an object."""
    containers = spec.get("containers") or ()
    if not containers:
        yield required(f"{field}.containers")
    volumes = yield from _volumes(f"{field}.volumes", spec.get("volumes") or ())
    names: set[str] = set()
    for part in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(part) or ()):
            here = f"{field}.{part}[{number}]"
            yield from _container(here, container, volumes)
            if container.get("name") in names:
                yield duplicate(f"{here}.name", container["name"])
            names.add(container.get("name", ""))
    if spec.get("restartPolicy") not in (None, *_RESTARTS):
        yield unsupported(f"{field}.restartPolicy", spec["restartPolicy"], _RESTARTS)
    for key in ("hostname", "subdomain"):
        if spec.get(key):
            yield from host_faults(f"{field}.{key}", spec[key])
    for key in ("activeDeadlineSeconds", "terminationGracePeriodSeconds"):
        least = 1 if key == "activeDeadlineSeconds" else 0
        if spec.get(key) is not None and spec[key] < least:
            yield bad(f"{field}.{key}", spec[key], f"must be greater than or equal to {least}")
    yield from label_faults(f"{field}.nodeSelector", spec.get("nodeSelector"))
    yield from _tolerations(f"{field}.tolerations", spec.get("tolerations") or ())


def _volumes(field: str, volumes: Sequence[Mapping[str, Any]]) -> Generator[Cause, None, set[str]]:
    names: set[str] = set()
    for number, volume in enumerate(volumes):
        here, name = f"{field}[{number}]", volume.get("name", "")
        if not name:
            yield required(f"{here}.name")
        else:
            yield from host_faults(f"{here}.name", name)
        if name in names:
            yield duplicate(f"{here}.name", name)
        names.add(name)
        kinds = [key for key, value in volume.items() if key != "name" and value is not None]
        if not kinds:
            yield required(here, "must specify a volume type")
        elif len(kinds) > 1:
            yield Cause(
                f"{here}.{kinds[1]}", "FieldValueForbidden", "Forbidden: may not specify more than 1 volume type"
            )
        claim = volume.get("persistentVolumeClaim")
        if claim is not None and not claim.get("claimName"):
            yield required(f"{here}.persistentVolumeClaim.claimName")
        path = volume.get("hostPath")
        if path is not None and not path.get("path"):
            yield required(f"{here}.hostPath.path")
    return names


def _container(field: str, container: Mapping[str, Any], volumes: set[str]) -> Iterator[Cause]:
    name = container.get("name", "")
    if not name:
        yield required(f"{field}.name")
    else:
        yield from host_faults(f"{field}.name", name)
    if not container.get("image"):
        yield required(f"{field}.image")
    elif container["image"] != container["image"].strip():
        yield bad(f"{field}.image", container["image"], "must not have leading or trailing whitespace")
    if container.get("imagePullPolicy") not in (None, *_PULLS):
        yield unsupported(f"{field}.imagePullPolicy", container["imagePullPolicy"], _PULLS)
    yield from _environment(f"{field}.env", container.get("env") or ())
    yield from _mounts(f"{field}.volumeMounts", container.get("volumeMounts") or (), volumes)
    yield from _resources(f"{field}.resources", container.get("resources") or {})
    for number, port in enumerate(container.get("ports") or ()):
        if not 0 < port.get("containerPort", 0) < 65536:
            here = f"{field}.ports[{number}].containerPort"
            yield bad(here, port.get("containerPort"), "must be between 1 and 65535, inclusive")


def _environment(field: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Cause]:
    for number, row in enumerate(rows):
        here, name = f"{field}[{number}]", row.get("name", "")
        if not name:
            yield required(f"{here}.name")
        elif not _ENV.fullmatch(name):
            yield bad(f"{here}.name", name, f"a valid environment variable name must match '{_ENV.pattern}'")
        source = row.get("valueFrom")
        if source is None:
            continue
        if row.get("value"):
            yield bad(f"{here}.valueFrom", "", "may not be specified when `value` is not empty")
        kinds = [key for key in _SOURCES if source.get(key) is not None]
        if len(kinds) != 1:
            words = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
            yield bad(f"{here}.valueFrom", "", words if not kinds else "may not have more than one field specified")


def _mounts(field: str, mounts: Sequence[Mapping[str, Any]], volumes: set[str]) -> Iterator[Cause]:
    paths: set[str] = set()
    for number, mount in enumerate(mounts):
        here, path = f"{field}[{number}]", mount.get("mountPath", "")
        if not mount.get("name"):
            yield required(f"{here}.name")
        elif mount["name"] not in volumes:
            yield missing(f"{here}.name", mount["name"])
        if not path:
            yield required(f"{here}.mountPath")
        elif path in paths:
            yield bad(f"{here}.mountPath", path, "must be unique")
        paths.add(path)
        below = str(mount.get("subPath") or "")
        if below.startswith("/") or ".." in below.split("/"):
            yield bad(f"{here}.subPath", below, "must be a relative path, and must not contain '..'")


def _resources(field: str, resources: Mapping[str, Any]) -> Iterator[Cause]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for part, given in (("limits", limits), ("requests", requests)):
        for name, value in given.items():
            if "/" not in name and name not in _PLAIN_RESOURCES and not name.startswith(_HUGE):
                yield bad(f"{field}.{part}[{name}]", name, "must be a standard resource type or fully qualified")
            if quantity(value) < 0:
                yield bad(f"{field}.{part}[{name}]", str(value), "must be greater than or equal to 0")
            elif "/" in name and quantity(value) % 1:
                yield bad(f"{field}.{part}[{name}]", str(value), "must be an integer")
    for name, value in requests.items():
        fixed = "/" in name or name.startswith(_HUGE)
        if fixed and name not in limits:
            yield required(f"{field}.limits", "Limit must be set for non overcommitable resources")
        elif fixed and quantity(value) != quantity(limits[name]):
            yield bad(f"{field}.requests", str(value), f"must be equal to {name} limit of {limits[name]}")
        elif name in limits and quantity(value) > quantity(limits[name]):
            yield bad(f"{field}.requests", str(value), f"must be less than or equal to {name} limit of {limits[name]}")
    both = {**limits, **requests}
    if any(name.startswith(_HUGE) for name in both) and not {"cpu", "memory"} & set(both):
        yield Cause(field, "FieldValueForbidden", "Forbidden: HugePages require cpu or memory")


def _tolerations(field: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Cause]:
    for number, row in enumerate(rows):
        here, operator = f"{field}[{number}]", row.get("operator") or "Equal"
        if operator not in ("Equal", "Exists"):
            yield unsupported(f"{here}.operator", operator, ("Equal", "Exists"))
        elif operator == "Exists" and row.get("value"):
            yield bad(f"{here}.operator", row["value"], "value must be empty when `operator` is 'Exists'")
        elif operator == "Equal" and not row.get("key"):
            yield bad(f"{here}.operator", operator, "operator must be Exists when `key` is empty")
        if row.get("effect") not in (None, "", *_EFFECTS):
            yield unsupported(f"{here}.effect", row["effect"], _EFFECTS)
