"""The job itself, in four forms: an Indexed Job, a PyTorchJob, a TrainJob, a JobSet.

One pod template serves all four, and the agent in it finds the same ranks. What differs is who starts a failed pod
again, and how far a bug is told from a node that was taken away:

* Job: an evicted or preempted pod is made again and not counted; exit codes that no restart mends end the job.
* JobSet: a failed pod fails its job, and all pods start again together; after a disruption that is not counted.
* PyTorchJob: the kubelet starts a container again; the operator counts restarts, whatever their reason.
* TrainJob: as its runtime says; a job can change little of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from cloudtune.backends.eks_wire import CONTAINER, TRAINER_CONTAINER, said
from cloudtune.spec.eks_limits import TRAINER_APIS

#: Exit codes after which another start would end the same way: the time limit; no such command, or none to run.
FATAL = (124, 126, 127)
#: The part of a JobSet that is the job, as Trainer calls it too.
PART = "node"
#: HyperPod's own restarts, which an annotation asks for.
AUTO_RESUME = "sagemaker.amazonaws.com/enable-job-auto-resume"
#: Who changes a TrainJob's runtime.
MANAGER = "cloudtune.dev/run"
RUNTIME = "torch-distributed"
DEFAULT_TRAINER_API = "v2.2"
#: The field by which a TrainJob changes its runtime, and the version of the API that began with it; the newest first.
TRAINER_FIELDS = {"runtimePatches": "v2.2", "podTemplateOverrides": "v2.1", "podSpecOverrides": "v2.0"}
#: What a TrainJob may change of the pods of its runtime.
TRAINER_POD = (
    "serviceAccountName",
    "nodeSelector",
    "affinity",
    "tolerations",
    "volumes",
    "initContainers",
    "schedulingGates",
    "imagePullSecrets",
    "securityContext",
    "terminationGracePeriodSeconds",
)
#: Those of them that only later versions of its API have.
_LATER = {
    "affinity": "v2.1",
    "imagePullSecrets": "v2.1",
    "securityContext": "v2.3",
    "terminationGracePeriodSeconds": "v2.3",
}


@attrs.frozen(kw_only=True)
class Wanted:
    """A job as all its forms need it; ``restarts`` is how often all of it may start again."""

    name: str
    nodes: int
    processes: int
    restarts: int
    template: Mapping[str, Any]
    trainer_api: str = DEFAULT_TRAINER_API
    auto_resume: bool = False

    @property
    def pod(self) -> Mapping[str, Any]:
        """The spec of its pods."""
        spec: Mapping[str, Any] = self.template["spec"]
        return spec

    @property
    def container(self) -> Mapping[str, Any]:
        """The container that is the job."""
        found: Mapping[str, Any] = next(one for one in self.pod["containers"] if one["name"] == CONTAINER)
        return found


def job_spec(wanted: Wanted) -> dict[str, Any]:
    """Return the spec of an Indexed Job, whose pods start again one by one."""
    return _indexed(wanted, pod_by_pod(wanted.nodes, wanted.restarts))


def pod_by_pod(nodes: int, restarts: int) -> dict[str, Any]:
    """Return how the pods of an Indexed Job start again: as many may fail as all of them failing together so often."""
    rules = [_disrupted("Ignore"), _ended("FailJob", FATAL)]
    return {"backoffLimit": restarts * nodes, "podFailurePolicy": {"rules": rules}}


def job_set_spec(wanted: Wanted) -> dict[str, Any]:
    """Return the spec of a JobSet with one job in it, which starts again as a whole."""
    return {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True, "subdomain": wanted.name},
        "failurePolicy": {
            "maxRestarts": wanted.restarts,
            "rules": [
                {
                    "name": "disrupted",
                    "action": "RestartJobSetAndIgnoreMaxRestarts",
                    "onJobFailureReasons": ["PodFailurePolicy"],
                }
            ],
        },
        "replicatedJobs": [replicated_job(PART, wanted)],
    }


def replicated_job(name: str, wanted: Wanted) -> dict[str, Any]:
    """Return one job of a JobSet: the first pod that fails ends it, and says whether it was a disruption."""
    spec = _indexed(wanted, {"backoffLimit": 0, "podFailurePolicy": {"rules": [_disrupted("FailJob")]}})
    return {"name": name, "replicas": 1, "template": {"metadata": wanted.template["metadata"], "spec": spec}}


def py_torch_job_spec(wanted: Wanted) -> dict[str, Any]:
    """Return the spec of a PyTorchJob of Kubeflow's training operator v1: a master, and workers beside it.

    Only with a master does the operator tell every pod its rank and where node 0 is.
    """
    again = wanted.restarts > 0 or wanted.auto_resume
    restart = "OnFailure" if again else "Never"
    # the operator gives its own policy to the pods, and warns of another
    pod = {key: value for key, value in wanted.pod.items() if key != "restartPolicy"}
    template = {**wanted.template, "spec": pod}
    failures = wanted.restarts * wanted.nodes
    # the operator takes a limit that is reached, other than 0, for one that is passed
    limit = failures + 1 if failures else 0
    replicas = {"Master": 1, **({"Worker": wanted.nodes - 1} if wanted.nodes > 1 else {})}
    return {
        "nprocPerNode": str(wanted.processes),
        "runPolicy": {"backoffLimit": limit, "cleanPodPolicy": "None"},
        "pytorchReplicaSpecs": {
            role: {"replicas": count, "restartPolicy": restart, "template": template}
            for role, count in replicas.items()
        },
    }


def train_job_spec(wanted: Wanted) -> dict[str, Any]:
    """Return the spec of a TrainJob of Kubeflow's Trainer v2, in the words of the minor version of its API."""
    own = wanted.container
    trainer = {
        "image": own.get("image"),
        "command": own.get("command"),
        "args": own.get("args"),
        "env": own.get("env"),
        "numNodes": wanted.nodes,
        "numProcPerNode": wanted.processes,
        "resourcesPerNode": own.get("resources"),
    }
    return said(
        {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "ClusterTrainingRuntime", "name": RUNTIME},
            "trainer": said(trainer),
            "activeDeadlineSeconds": wanted.pod.get("activeDeadlineSeconds") if _has_deadline(wanted) else None,
            **_changes(wanted),
        }
    )


def _changes(wanted: Wanted) -> dict[str, Any]:
    """Return what the job changes of its runtime's pods."""
    pod = {key: wanted.pod[key] for key in changeable(wanted.trainer_api) if key in wanted.pod}
    mounts = wanted.container.get("volumeMounts")
    if mounts:
        pod["containers"] = [{"name": TRAINER_CONTAINER, "volumeMounts": mounts}]
    metadata = wanted.template["metadata"]
    if not is_later(wanted.trainer_api, "v2.1"):
        return {"podSpecOverrides": [{"targetJobs": [{"name": PART}], **pod}]}
    if not is_later(wanted.trainer_api, "v2.2"):
        return {"podTemplateOverrides": [{"targetJobs": [{"name": PART}], "metadata": metadata, "spec": pod}]}
    part = {"name": PART, "template": {"spec": {"template": {"metadata": metadata, "spec": pod}}}}
    runtime = {"template": {"spec": {"replicatedJobs": [part]}}}
    return {"runtimePatches": [{"manager": MANAGER, "trainingRuntimeSpec": runtime}]}


def _has_deadline(wanted: Wanted) -> bool:
    return is_later(wanted.trainer_api, "v2.3")


def changeable(trainer_api: str) -> tuple[str, ...]:
    """Return what a TrainJob may change of its runtime's pods, in a version of its API."""
    return tuple(key for key in TRAINER_POD if is_later(trainer_api, _LATER.get(key, TRAINER_APIS[0])))


def is_later(version: str, than: str) -> bool:
    """Whether a version of the TrainJob API is that or a later one; text that is no version is taken for the latest."""
    order = list(TRAINER_APIS)
    return version not in order or order.index(version) >= order.index(than)


#: How each kind of job is said.
SPECS: Mapping[str, Callable[[Wanted], dict[str, Any]]] = {
    "job": job_spec,
    "pyTorchJob": py_torch_job_spec,
    "trainJob": train_job_spec,
    "jobSet": job_set_spec,
}


def _indexed(wanted: Wanted, again: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "completionMode": "Indexed",
        "completions": wanted.nodes,
        "parallelism": wanted.nodes,
        "backoffLimit": again["backoffLimit"],
        # a pod is made again when its predecessor has ended: two of one rank would be in each other's way
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": again["podFailurePolicy"],
        "template": dict(wanted.template),
    }


def _disrupted(action: str) -> dict[str, Any]:
    """Return the rule for a pod that was evicted, preempted or lost with its node."""
    return {"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def _ended(action: str, codes: tuple[int, ...]) -> dict[str, Any]:
    return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(codes)}}
