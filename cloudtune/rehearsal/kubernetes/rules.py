"""The rules that schemas do not hold: of one object by itself, and of it among the others."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cloudtune.rehearsal.kubernetes import job_rules, speech
from cloudtune.rehearsal.kubernetes.kinds import Kind
from cloudtune.rehearsal.kubernetes.naming_rules import bad, data_faults, metadata_faults, required, unsupported
from cloudtune.rehearsal.kubernetes.objects import Object, Objects
from cloudtune.rehearsal.kubernetes.pod_rules import pod_faults
from cloudtune.rehearsal.kubernetes.speech import Cause

#: Bytes that a ConfigMap's or a Secret's data may have.
MOST_DATA_BYTES = 1 << 20
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_TRAIN_JOB_FIXED = ("activeDeadlineSeconds", "initializer", "managedBy", "runtimeRef", "trainer")
_JOB_SET_FIXED = ("managedBy", "network", "replicatedJobs", "successPolicy")
#: What may be changed of a pod that is there.
_POD_CHANGED = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations", "nodeName", "schedulingGates")


def broken(kind: Kind, new: Object, old: Object | None) -> Iterator[Cause]:
    """Return the rules that an object breaks, by itself and against what it was."""
    yield from metadata_faults(kind.kind, new.get("metadata") or {})
    known = _RULES.get(kind.kind)
    # what is going is not held up by rules that it broke before
    if known is not None and (
        old is None or old.get("spec") != new.get("spec") or kind.kind in ("ConfigMap", "Secret")
    ):
        yield from known(new)
    change = _CHANGES.get(kind.kind)
    if change is not None and old is not None:
        yield from change(old, new)


def admit(kind: Kind, new: Object, old: Object | None, objects: Objects) -> None:
    """Raise Refused where an object cannot be among the others that there are."""
    if old is not None:
        return
    spec, name = new.get("spec") or {}, new["metadata"].get("name", "")
    if kind.kind == "Pod":
        _admit_pod(kind, new, objects)
    elif kind.kind == "TrainJob":
        reference = spec["runtimeRef"]
        namespace = new["metadata"]["namespace"] if reference["kind"] == "TrainingRuntime" else None
        is_known = reference["kind"] in ("ClusterTrainingRuntime", "TrainingRuntime")
        if not is_known or objects.get(reference["kind"], namespace, reference["name"]) is None:
            word = reference["kind"][:1].lower() + reference["kind"][1:]
            words = f"specified {word} must be created before the TrainJob is created"
            raise speech.invalid(kind, name, [bad("spec.runtimeRef", reference["name"], words)])


def _admit_pod(kind: Kind, new: Object, objects: Objects) -> None:
    spec, meta = new["spec"], new["metadata"]
    account = spec.get("serviceAccountName", "default")
    if objects.get("ServiceAccount", meta["namespace"], account) is None:
        words = f"error looking up service account {meta['namespace']}/{account}"
        raise speech.forbidden(kind, meta["name"], f'{words}: serviceaccount "{account}" not found')
    priority = spec.get("priorityClassName")
    if priority and not priority.startswith("system-"):
        found = objects.get("PriorityClass", None, priority)
        if found is None:
            raise speech.forbidden(kind, meta["name"], f"no PriorityClass with name {priority} was found")
        spec["priority"] = found.get("value", 0)


def _config_map(new: Object) -> Iterator[Cause]:
    data, binary = new.get("data") or {}, new.get("binaryData") or {}
    yield from data_faults("data", data)
    yield from data_faults("binaryData", binary)
    for key, value in binary.items():
        if not _is_base64(value):
            yield bad(f"binaryData[{key}]", "", "illegal base64 data")
    total = sum(len(value.encode()) for value in data.values()) + sum(len(value) * 3 // 4 for value in binary.values())
    if total > MOST_DATA_BYTES:
        yield Cause("[]", "FieldValueTooLong", f"Too long: may not be more than {MOST_DATA_BYTES} bytes")


def _secret(new: Object) -> Iterator[Cause]:
    data = new.get("data") or {}
    yield from data_faults("data", data)
    for key, value in data.items():
        if not _is_base64(value):
            yield bad(f"data[{key}]", "", "illegal base64 data")
    if sum(len(value) * 3 // 4 for value in data.values()) > MOST_DATA_BYTES:
        yield Cause("data", "FieldValueTooLong", f"Too long: may not be more than {MOST_DATA_BYTES} bytes")


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except ValueError:
        return False
    return True


def _service(new: Object) -> Iterator[Cause]:
    spec = new.get("spec") or {}
    if spec["type"] not in _TYPES:
        yield unsupported("spec.type", spec["type"], _TYPES)
    if not spec.get("ports") and spec.get("clusterIP") != "None" and spec["type"] != "ExternalName":
        yield required("spec.ports")
    names = [port.get("name") for port in spec.get("ports") or ()]
    for number, port in enumerate(spec.get("ports") or ()):
        if not 0 < port.get("port", 0) < 65536:
            yield bad(f"spec.ports[{number}].port", port.get("port"), "must be between 1 and 65535, inclusive")
        if len(names) > 1 and not port.get("name"):
            yield required(f"spec.ports[{number}].name")


def _claim(new: Object) -> Iterator[Cause]:
    spec = new.get("spec") or {}
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    for mode in spec.get("accessModes") or ():
        if mode not in _MODES:
            yield unsupported("spec.accessModes", mode, _MODES)
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        yield required("spec.resources[storage]")


def _pod(new: Object) -> Iterator[Cause]:
    yield from pod_faults("spec", new.get("spec") or {})


def _job(new: Object) -> Iterator[Cause]:
    yield from job_rules.job_faults("spec", new.get("spec") or {})


def _job_set(new: Object) -> Iterator[Cause]:
    yield from job_rules.job_set_faults(new.get("spec") or {}, new["metadata"].get("name", ""))


def _pytorch_job(new: Object) -> Iterator[Cause]:
    yield from job_rules.pytorch_job_faults(new.get("spec") or {})


def _train_job(new: Object) -> Iterator[Cause]:
    yield from job_rules.train_job_faults(new.get("spec") or {})


def _pod_change(old: Object, new: Object) -> Iterator[Cause]:
    def fixed(thing: Object) -> dict[str, Any]:
        spec = {key: value for key, value in (thing.get("spec") or {}).items() if key not in _POD_CHANGED}
        rows = [{key: value for key, value in one.items() if key != "image"} for one in spec.get("containers") or ()]
        return {**spec, "containers": rows}

    if fixed(old) != fixed(new):
        words = (
            "pod updates may not change fields other than `spec.containers[*].image`, `spec.tolerations` and few more"
        )
        yield Cause("spec", "FieldValueForbidden", f"Forbidden: {words}")


def _immutable_change(old: Object, new: Object) -> Iterator[Cause]:
    apart = ("metadata", "immutable", "kind", "apiVersion")
    same = {k: v for k, v in old.items() if k not in apart} == {k: v for k, v in new.items() if k not in apart}
    if old.get("immutable") and not same:
        yield Cause("data", "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set")


def _train_job_change(old: Object, new: Object) -> Iterator[Cause]:
    yield from job_rules.kept_faults(old, new, _TRAIN_JOB_FIXED)


def _job_set_change(old: Object, new: Object) -> Iterator[Cause]:
    if not (old.get("spec") or {}).get("suspend"):
        yield from job_rules.kept_faults(old, new, _JOB_SET_FIXED)


_RULES: Mapping[str, Callable[[Object], Iterator[Cause]]] = {
    "ConfigMap": _config_map,
    "Job": _job,
    "JobSet": _job_set,
    "PersistentVolumeClaim": _claim,
    "Pod": _pod,
    "PyTorchJob": _pytorch_job,
    "Secret": _secret,
    "Service": _service,
    "TrainJob": _train_job,
}
_CHANGES: Mapping[str, Callable[[Object, Object], Iterator[Cause]]] = {
    "ConfigMap": _immutable_change,
    "Job": job_rules.job_change_faults,
    "JobSet": _job_set_change,
    "Pod": _pod_change,
    "Secret": _immutable_change,
    "TrainJob": _train_job_change,
}
