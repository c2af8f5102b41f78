"""The controller of TrainJobs: makes a JobSet of the runtime that a TrainJob names, and says how that goes.

Of its plugins, torch's alone is here. Source: kubeflow/trainer v2.3.0, and earlier versions' words for patches.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cloudtune.rehearsal.kubernetes.conditions import condition, set_condition
from cloudtune.rehearsal.kubernetes.loop import (
    Key,
    is_controlled_by,
    is_going,
    itself_or_owners,
    key_of,
    owner_reference,
)
from cloudtune.rehearsal.kubernetes.objects import Change, Object, Objects
from cloudtune.rehearsal.kubernetes.patches import merged
from cloudtune.rehearsal.kubernetes.quantities import requests_of, whole

COMPONENT = "trainjob-controller"
_NODE = "node"
_ANCESTOR = "trainer.kubeflow.org/trainjob-ancestor-step"
_RANK = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
#: Words for the processes of a node; the last two are those of versions before v2.2.
_COUNTED = ("auto", "cpu", "gpu")
_NO_RUNTIME = "NotSupportedRuntime"


class TrainJobController:
    """A controller of TrainJobs. ``port_of`` gives the port at which the nodes of a TrainJob meet, by its uid."""

    kind = "TrainJob"

    def __init__(self, objects: Objects, port_of: Callable[[str], int]) -> None:
        self._objects, self._port_of = objects, port_of

    def concerns(self, change: Change) -> Iterable[Key]:
        """Return the TrainJob itself, or that of a JobSet."""
        if change.kind not in ("TrainJob", "JobSet"):
            return []
        return list(itself_or_owners(change, self.kind))

    def sync(self, namespace: str, name: str) -> float | None:
        """Take the next step of a TrainJob."""
        train = self._objects.get("TrainJob", namespace, name)
        if train is None or is_going(train):
            return None
        jobset = self._objects.get("JobSet", namespace, name)
        if jobset is not None and not is_controlled_by(jobset, train):
            return None
        runtime = self._runtime(train)
        if runtime is None:
            ref = train["spec"]["runtimeRef"]
            words = f"Referenced {ref.get('kind', 'ClusterTrainingRuntime')} {ref['name']} is not found"
            self._say(train, "Failed", True, _NO_RUNTIME, words)
            return None
        suspended = bool(train["spec"].get("suspend"))
        if jobset is None:
            self._objects.create(self._jobset(train, runtime))
            return None
        if bool(jobset["spec"].get("suspend")) != suspended:
            self._objects.update("JobSet", namespace, name, _suspending(suspended))
        self._mirror(train, jobset)
        return None

    def _runtime(self, train: Object) -> Mapping[str, Any] | None:
        """Return the specification of a TrainJob's runtime, None where there is none."""
        ref = train["spec"]["runtimeRef"]
        kind = ref.get("kind", "ClusterTrainingRuntime")
        found = self._objects.get(kind, train["metadata"]["namespace"], ref["name"])
        return found["spec"] if found is not None else None

    def _jobset(self, train: Object, runtime: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JobSet of a TrainJob."""
        meta, trainer = train["metadata"], train["spec"].get("trainer")
        template = copy.deepcopy(dict(runtime["template"]))
        spec = template["spec"]
        for row in spec["replicatedJobs"]:
            job = row["template"]["spec"]
            if ((row["template"].get("metadata") or {}).get("labels") or {}).get(_ANCESTOR, row["name"]) in (
                "trainer",
                _NODE,
            ):
                nodes = (trainer or {}).get("numNodes") or (runtime.get("mlPolicy") or {}).get("numNodes") or 1
                job["completions"] = job["parallelism"] = nodes
                if trainer is not None:
                    self._train(train, trainer, job["template"]["spec"], nodes)
        if train["spec"].get("activeDeadlineSeconds") is not None:
            for row in spec["replicatedJobs"]:
                row["template"]["spec"]["activeDeadlineSeconds"] = train["spec"]["activeDeadlineSeconds"]
        spec["suspend"] = bool(train["spec"].get("suspend"))
        labels = {**((template.get("metadata") or {}).get("labels") or {}), **(train["spec"].get("labels") or {})}
        jobset: dict[str, Any] = {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {
                "name": meta["name"],
                "namespace": meta["namespace"],
                "labels": {**labels, **_queue(train)},
                "annotations": dict(train["spec"].get("annotations") or {}),
                "ownerReferences": [owner_reference(train)],
            },
            "spec": spec,
        }
        return patched(jobset, train["spec"])

    def _train(self, train: Object, trainer: Mapping[str, Any], spec: dict[str, Any], nodes: int) -> None:
        """Put what a TrainJob says into the container that trains, and what torchrun reads."""
        name = train["metadata"]["name"]
        container = next(one for one in spec["containers"] if one["name"] == _NODE)
        for key in ("image", "command", "args"):
            if trainer.get(key):
                container[key] = copy.deepcopy(trainer[key])
        if trainer.get("resourcesPerNode"):
            container["resources"] = copy.deepcopy(trainer["resourcesPerNode"])
        port = self._port_of(train["metadata"]["uid"])
        torch: list[dict[str, Any]] = [
            {"name": "PET_NNODES", "value": str(nodes)},
            {"name": "PET_NPROC_PER_NODE", "value": str(_processes(trainer, container))},
            {"name": "PET_NODE_RANK", "valueFrom": copy.deepcopy(_RANK)},
            {"name": "PET_MASTER_ADDR", "value": f"{name}-{_NODE}-0-0.{name}"},
            {"name": "PET_MASTER_PORT", "value": str(port)},
        ]
        ours = {row["name"] for row in torch}
        given = [*(container.get("env") or ()), *copy.deepcopy(list(trainer.get("env") or ()))]
        container["env"] = [*(row for row in given if row["name"] not in ours), *torch]
        container["ports"] = [*(container.get("ports") or ()), {"containerPort": port}]

    def _mirror(self, train: Object, jobset: Object) -> None:
        """Say of the TrainJob what is true of its JobSet."""
        rows = (jobset.get("status") or {}).get("replicatedJobsStatus") or []

        def edit(thing: dict[str, Any]) -> bool:
            status = thing.setdefault("status", {})
            before = repr(status)
            status["jobsStatus"] = copy.deepcopy(rows)
            for ours, theirs in (("Complete", "Completed"), ("Failed", "Failed")):
                found = condition(jobset, theirs)
                if found is not None and found["status"] == "True":
                    set_condition(status, ours, True, reason=found["reason"], message=found["message"])
            if thing["spec"].get("suspend"):
                set_condition(status, "Suspended", True, reason="Suspended", message="TrainJob is suspended")
            elif condition(thing, "Suspended") is not None:
                set_condition(status, "Suspended", False, reason="Resumed", message="TrainJob is resumed")
            return repr(status) != before

        self._objects.update_status("TrainJob", *key_of(train), edit)

    def _say(self, train: Object, kind: str, true: bool, reason: str, message: str) -> None:
        def edit(thing: dict[str, Any]) -> bool:
            return set_condition(thing.setdefault("status", {}), kind, true, reason=reason, message=message)

        if self._objects.update_status("TrainJob", *key_of(train), edit) is not None:
            self._objects.tell(train, reason, message, warning=True, component=COMPONENT)


def patched(jobset: dict[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JobSet with what a TrainJob says of its pods, in the words of whichever version it has."""
    for manager in spec.get("runtimePatches") or ():
        whole = (manager.get("trainingRuntimeSpec") or {}).get("template") or {}
        jobset["metadata"] = merged(jobset["metadata"], whole.get("metadata") or {})
        for row in (whole.get("spec") or {}).get("replicatedJobs") or ():
            job = row.get("template") or {}
            for each in _named(jobset, [row["name"]]):
                _merge_pods(each, (job.get("spec") or {}).get("template") or {})
                each["template"] = merged(each["template"], {"metadata": job.get("metadata") or {}})
    for words in ("podTemplateOverrides", "podSpecOverrides"):
        for row in spec.get(words) or ():
            over = {key: value for key, value in row.items() if key != "targetJobs"}
            pods = over if words == "podTemplateOverrides" else {"spec": over}
            for each in _named(jobset, [one["name"] for one in row.get("targetJobs") or ()]):
                _merge_pods(each, pods)
    return jobset


def _named(jobset: Mapping[str, Any], names: list[str]) -> list[dict[str, Any]]:
    return [row for row in jobset["spec"]["replicatedJobs"] if row["name"] in names]


def _merge_pods(row: dict[str, Any], pods: Mapping[str, Any]) -> None:
    job = row["template"]["spec"]
    job["template"] = merged(job["template"], pods, strategic=True)


def _processes(trainer: Mapping[str, Any], container: Mapping[str, Any]) -> int:
    """Return the processes of a node. ``auto``, the default, means its GPUs, and its CPUs where it asks for none.

    The operator leaves the counting of GPUs to torchrun, which here would count this machine's.
    """
    given = trainer.get("numProcPerNode") or "auto"
    if given not in _COUNTED:
        return int(given)
    asked = requests_of(container)
    gpus = max((whole(count) for name, count in asked.items() if "gpu" in name.lower()), default=0)
    cpus = whole(asked.get("cpu", 0))
    if given == "auto":
        given = "gpu" if gpus else "cpu"
    return max(1, gpus if given == "gpu" else cpus)


def _queue(train: Object) -> dict[str, str]:
    labels = train["metadata"].get("labels") or {}
    return {name: value for name, value in labels.items() if not name.startswith("kueue.")}


def _suspending(suspended: bool) -> Callable[[dict[str, Any]], None]:
    def edit(thing: dict[str, Any]) -> None:
        thing["spec"]["suspend"] = suspended

    return edit
