"""What jobs on Kubernetes are: four kinds of objects and bare pods, where their pods are, who is which replica.

A handle's kind says what the object is (``job``, ``pyTorchJob``, ``trainJob``, ``jobSet``, ``pod``) and, before that,
whether cloudtune's agent writes its lines: ``containerJob`` was submitted to run as given, ``foreignJob`` was found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from cloudtune.plan import Call
from cloudtune.states import Handle

SERVICE = "kubernetes"
CONTAINER, FOREIGN = "container", "foreign"
#: What is written on a job that was cancelled: it is suspended, and so may be for other reasons.
CANCELLED = "cloudtune.dev/cancelled"
#: What the pods of a chain say of which step they are.
STEP = "cloudtune.dev/step"
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
_JOB_UID = "kueue.x-k8s.io/job-uid"
_WORKLOAD = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload"}
_JOBSET = "jobset.sigs.k8s.io"
_TRAINING = "training.kubeflow.org"
_NAME = r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"


@attrs.frozen(kw_only=True)
class Kind:
    """A kind of objects that are jobs; ``pods_by`` is the label by which its pods name it, None if it is one itself.

    ``words`` are what people write for it, ``suspends`` the path of the field that stops it.
    """

    name: str
    api_version: str
    kind: str
    pods_by: str | None
    words: tuple[str, ...]
    suspends: tuple[str, ...] = ("spec", "suspend")


KINDS = {
    one.name: one
    for one in (
        Kind(
            name="job",
            api_version="batch/v1",
            kind="Job",
            pods_by="batch.kubernetes.io/job-name",
            words=("job", "jobs", "job.batch"),
        ),
        Kind(
            name="pyTorchJob",
            api_version="kubeflow.org/v1",
            kind="PyTorchJob",
            pods_by=f"{_TRAINING}/job-name",
            words=("pytorchjob", "pytorchjobs", "pytorchjob.kubeflow.org"),
            suspends=("spec", "runPolicy", "suspend"),
        ),
        Kind(
            name="trainJob",
            api_version="trainer.kubeflow.org/v1alpha1",
            kind="TrainJob",
            pods_by=f"{_JOBSET}/jobset-name",  # a TrainJob makes a JobSet of its own name
            words=("trainjob", "trainjobs", "trainjob.trainer.kubeflow.org"),
        ),
        Kind(
            name="jobSet",
            api_version="jobset.x-k8s.io/v1alpha2",
            kind="JobSet",
            pods_by=f"{_JOBSET}/jobset-name",
            words=("jobset", "jobsets", "jobset.jobset.x-k8s.io"),
        ),
        Kind(name="pod", api_version="v1", kind="Pod", pods_by=None, words=("pod", "pods", "po")),
    )
}
_BY_WORD = {word: kind for kind in KINDS.values() for word in kind.words}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?")
_PLACE = re.compile(rf"({_NAME})/(?:([a-z.0-9-]+)/)?({_NAME})")


def kind_of(handle: Handle) -> Kind:
    """Return what kind of object a handle names."""
    for before in (CONTAINER, FOREIGN):
        if handle.kind.startswith(before):
            rest = handle.kind.removeprefix(before)
            return KINDS[rest[0].lower() + rest[1:]]
    return KINDS[handle.kind]


def has_agent(handle: Handle) -> bool:
    """Return whether the lines of a run are known to be the agent's."""
    return handle.kind in KINDS


def kind_name(kind: Kind, before: str = "") -> str:
    """Return the kind of a handle: ``kind_name(KINDS["job"], FOREIGN)`` is ``foreignJob``."""
    return before + kind.name[0].upper() + kind.name[1:] if before else kind.name


def place_of(handle: Handle) -> tuple[str, str]:
    """Return the namespace and the name of a handle's object."""
    namespace, _, name = handle.id.partition("/")
    return namespace, name


def recognised(text: str) -> Handle | None:
    """Return the handle of ``NAMESPACE/KIND/NAME``, e.g. ``default/pytorchjob/fsdp``."""
    found = _PLACE.fullmatch(text)
    kind = _BY_WORD.get(found[2]) if found is not None and found[2] else None
    if found is None or kind is None:
        return None
    return Handle(backend="eks", kind=kind_name(kind, FOREIGN), id=f"{found[1]}/{found[3]}")


def supposed(text: str) -> tuple[Handle, ...]:
    """Return the handles of what ``NAMESPACE/NAME`` may be in the user's own cluster, the likeliest first."""
    found = _PLACE.fullmatch(text)
    if found is None or found[2]:
        return ()
    return tuple(Handle(backend="eks", kind=kind_name(kind, FOREIGN), id=text) for kind in KINDS.values())


# --- calls


def call(operation: str, handle: Handle, **parameters: Any) -> Call:
    """Return a call in the run's cluster and namespace."""
    return Call(
        service=SERVICE,
        operation=operation,
        parameters={"namespace": place_of(handle)[0], **parameters},
        region=handle.scope or None,
    )


def get(handle: Handle, **parameters: Any) -> Call:
    """Return the call that asks for a run's object."""
    kind, (_, name) = kind_of(handle), place_of(handle)
    return call("get", handle, apiVersion=kind.api_version, kind=kind.kind, name=name, **parameters)


def pods(handle: Handle, **parameters: Any) -> Call:
    """Return the call that asks for a run's pods."""
    kind, (_, name) = kind_of(handle), place_of(handle)
    chosen = (
        {"fieldSelector": f"metadata.name={name}"}
        if kind.pods_by is None
        else {"labelSelector": f"{kind.pods_by}={name}"}
    )
    return call("list", handle, apiVersion="v1", kind="Pod", **chosen, **parameters)


def workloads(handle: Handle, uid: str) -> Call:
    """Return the call that asks what Kueue says of a run; the reply says so where there is none, or it may not be."""
    return call("list", handle, **_WORKLOAD, labelSelector=f"{_JOB_UID}={uid}", optional=True)


def events(handle: Handle) -> Call:
    """Return the call that asks for the warnings of the run's namespace, the run's among them."""
    return call("list", handle, apiVersion="v1", kind="Event", fieldSelector="type=Warning", optional=True)


def cancelling(handle: Handle) -> tuple[Call, ...]:
    """Return the calls that end a run: it is suspended and marked; a pod that stands alone can only be deleted.

    Kueue would let a job go on that somebody else suspends, so it is told first.
    """
    kind, (_, name) = kind_of(handle), place_of(handle)
    if kind.pods_by is None:
        return (deleting(handle),)
    of = {"apiVersion": kind.api_version, "kind": kind.kind, "name": name}
    change: dict[str, Any] = {"metadata": {"annotations": {CANCELLED: "true"}}}
    inner = change
    for part in kind.suspends[:-1]:
        inner = inner.setdefault(part, {})
    inner[kind.suspends[-1]] = True
    queued = {**_WORKLOAD, "labelSelector": f"{_JOB_UID}={{uid}}", "of": of, "patch": {"spec": {"active": False}}}
    return call("patch", handle, **queued, optional=True), call("patch", handle, **of, patch=change)


def deleting(handle: Handle) -> Call:
    """Return the call that removes a run's object and, some moments later, all that it owns."""
    kind, (_, name) = kind_of(handle), place_of(handle)
    return call(
        "delete",
        handle,
        apiVersion=kind.api_version,
        kind=kind.kind,
        name=name,
        propagationPolicy="Background",
    )


# --- what objects say


def moment(text: str | None) -> float | None:
    """Return a time of the API in seconds since the epoch, None for no time; digits behind the second may be nine."""
    found = _TIME.fullmatch(text or "")
    if found is None:
        return None
    whole = datetime.fromisoformat(f"{found[1]}{found[3] if found[3] not in (None, 'Z') else '+00:00'}")
    return whole.timestamp() + float(f"0.{found[2] or 0}")


def conditions(thing: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the conditions of an object."""
    return list((thing.get("status") or {}).get("conditions") or ())


def condition(thing: Mapping[str, Any], *types: str) -> dict[str, Any] | None:
    """Return the last of the conditions of these types that holds."""
    held = [one for one in conditions(thing) if one.get("type") in types and one.get("status") == "True"]
    return held[-1] if held else None


def label(pod: Mapping[str, Any], name: str) -> str | None:
    """Return a label of a pod, or the annotation of that name."""
    meta = pod.get("metadata") or {}
    found = (meta.get("labels") or {}).get(name) or (meta.get("annotations") or {}).get(name)
    return str(found) if found is not None else None


def layout(thing: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return where the replicas of a JobSet's jobs begin among all: by the job's name, first replica and pods a job.

    Of a PyTorchJob it says whether the master comes before the workers.
    """
    spec = thing.get("spec") or {}
    if "pytorchReplicaSpecs" in spec:
        masters = int((spec["pytorchReplicaSpecs"].get("Master") or {"replicas": 0}).get("replicas", 1) or 0)
        return {"master": [0, 1], "worker": [masters, 1]}
    found, first = {}, 0
    for one in spec.get("replicatedJobs") or ():
        if one.get("dependsOn"):
            first = 0  # it begins when those before it have ended, as a job of its own
        job = (one.get("template") or {}).get("spec") or {}
        pods_each = int(job.get("completions") or job.get("parallelism") or 1)
        found[str(one.get("name"))] = [first, pods_each]
        first += int(one.get("replicas") or 1) * pods_each
    return found


def replica_of(pod: Mapping[str, Any], places: Mapping[str, Any]) -> int | None:
    """Return which replica a pod is, None where nothing tells; ``places`` is the run's :func:`layout`."""
    number = _number(label(pod, COMPLETION_INDEX))
    role = label(pod, f"{_TRAINING}/replica-type")
    if role is not None:
        first = (places.get(role.lower()) or [0, 1])[0]
        index = _number(label(pod, f"{_TRAINING}/replica-index"))
        return None if index is None else first + index
    part = label(pod, f"{_JOBSET}/replicatedjob-name")
    if part is not None and part in places:
        first, each = places[part]
        return int(first + (_number(label(pod, f"{_JOBSET}/job-index")) or 0) * each + (number or 0))
    return number


def part_of(pod: Mapping[str, Any], places: Mapping[str, Any]) -> str | None:
    """Return which step, or else which of a JobSet's jobs, a pod is of, where it has several.

    Each of them counts its nodes from 0.
    """
    part = label(pod, f"{_JOBSET}/replicatedjob-name")
    return label(pod, STEP) or part if len(places) > 1 and part in places else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
