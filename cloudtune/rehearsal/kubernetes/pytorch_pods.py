"""The pods and services of a PyTorchJob: how they are made of its replicas, and the variables that torch reads.

Source: the training operator v1.9.4 (kubeflow/trainer, ``pkg/controller.v1/pytorch``). Its usual port is another here
for each job, because all nodes are one machine.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from cloudtune.rehearsal.kubernetes.loop import owner_reference
from cloudtune.rehearsal.kubernetes.objects import Object

PREFIX = "training.kubeflow.org"
NAME = f"{PREFIX}/job-name"
ROLE = f"{PREFIX}/replica-type"
CONTAINER = "pytorch"
_PORT = "pytorchjob-port"
_INIT = "init-pytorch"
_INIT_IMAGE = "alpine:3.10"


def replicas_of(job: Object) -> Iterator[tuple[str, Mapping[str, Any], int]]:
    """Yield role, specification and index of each replica, the master first."""
    specs = job["spec"]["pytorchReplicaSpecs"]
    for role in ("Master", "Worker"):
        if role in specs:
            yield from ((role, specs[role], index) for index in range(specs[role].get("replicas", 1)))


def replica_name(job: Object, role: str, index: int) -> str:
    """Return the name of a replica's pod, and of its service."""
    return f"{job['metadata']['name']}-{role.lower()}-{index}"


def restart_policy(spec: Mapping[str, Any]) -> str:
    """Return what is done about a replica that fails."""
    return str(spec.get("restartPolicy", "OnFailure"))


def labels_of(job: Object, role: str, index: int) -> dict[str, str]:
    """Return the labels by which the operator finds a replica."""
    found = {
        NAME: job["metadata"]["name"],
        f"{PREFIX}/operator-name": "pytorchjob-controller",
        ROLE: role.lower(),
        f"{PREFIX}/replica-index": str(index),
    }
    leads = role == "Master" or ("Master" not in job["spec"]["pytorchReplicaSpecs"] and index == 0)
    return {**found, f"{PREFIX}/job-role": "master"} if leads else found


def service_of(job: Object, role: str, index: int, port: int) -> dict[str, Any]:
    """Return the headless service of a replica."""
    labels = labels_of(job, role, index)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": replica_name(job, role, index),
            "namespace": job["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [owner_reference(job)],
        },
        "spec": {"clusterIP": "None", "selector": labels, "ports": [{"name": _PORT, "port": _port_of(job, port)}]},
    }


def pod_of(job: Object, role: str, spec: Mapping[str, Any], index: int, port: int) -> dict[str, Any]:
    """Return the manifest of a replica's pod."""
    template = copy.deepcopy(spec["template"])
    given, pod = template.get("metadata") or {}, template["spec"]
    policy = restart_policy(spec)
    pod["restartPolicy"] = "Never" if policy == "ExitCode" else policy
    torch = variables_of(job, role, index, port)
    for container in (*(pod.get("initContainers") or ()), *pod["containers"]):
        # the operator's come last, so that they count
        mine = [one for one in container.get("env") or () if one["name"] not in torch]
        container["env"] = [*mine, *({"name": name, "value": value} for name, value in torch.items())]
    if role == "Worker" and "Master" in job["spec"]["pytorchReplicaSpecs"]:
        pod["initContainers"] = [_waiting(replica_name(job, "Master", 0)), *(pod.get("initContainers") or ())]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": replica_name(job, role, index),
            "namespace": job["metadata"]["namespace"],
            "labels": {**(given.get("labels") or {}), **labels_of(job, role, index)},
            "annotations": dict(given.get("annotations") or {}),
            "ownerReferences": [owner_reference(job)],
        },
        "spec": pod,
    }


def variables_of(job: Object, role: str, index: int, port: int) -> dict[str, str]:
    """Return the variables that the operator gives a replica."""
    specs, port = job["spec"]["pytorchReplicaSpecs"], _port_of(job, port)
    processes = str(job["spec"].get("nprocPerNode") or "auto")
    nodes = sum(spec.get("replicas", 1) for spec in specs.values())
    found = {"PYTHONUNBUFFERED": "1", "PET_NPROC_PER_NODE": processes}
    elastic = job["spec"].get("elasticPolicy")
    if elastic is None:
        found["PET_NNODES"] = str(nodes)
    else:
        found |= _elastic(job, elastic, nodes, port)
    if "Master" in specs:
        rank = str(index + (role == "Worker"))
        address = replica_name(job, "Master", 0)
        each = int(processes) if processes.isdigit() else 1
        found |= {
            "MASTER_PORT": str(port),
            "PET_MASTER_PORT": str(port),
            "MASTER_ADDR": address,
            "PET_MASTER_ADDR": address,
            "WORLD_SIZE": str(nodes * each),
            "RANK": rank,
            "PET_NODE_RANK": rank,
        }
    return found


def _elastic(job: Object, elastic: Mapping[str, Any], nodes: int, port: int) -> dict[str, str]:
    host = elastic.get("rdzvHost") or replica_name(job, "Worker", 0)
    found = {
        "PET_RDZV_BACKEND": elastic.get("rdzvBackend", "c10d"),
        "PET_RDZV_ENDPOINT": f"{host}:{elastic.get('rdzvPort', port)}",
        "PET_NNODES": f"{elastic.get('minReplicas', nodes)}:{elastic.get('maxReplicas', nodes)}",
    }
    for key, name in (("maxRestarts", "PET_MAX_RESTARTS"), ("rdzvId", "PET_RDZV_ID")):
        if elastic.get(key) is not None:
            found[name] = str(elastic[key])
    return found


def _port_of(job: Object, usual: int) -> int:
    """Return the port that the leading container names for it, else the usual one."""
    specs = job["spec"]["pytorchReplicaSpecs"]
    leading = specs.get("Master") or specs["Worker"]
    for container in leading["template"]["spec"]["containers"]:
        for port in container.get("ports") or () if container["name"] == CONTAINER else ():
            if port.get("name") == _PORT:
                return int(port["containerPort"])
    return usual


def _waiting(address: str) -> dict[str, Any]:
    """Return the container in which a worker waits for the master's name."""
    look = f"for i in $(seq 100); do getent hosts {address} && exit 0; echo waiting for master; sleep 2; done; exit 1"
    return {
        "name": _INIT,
        "image": _INIT_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", look],
        "resources": {
            "limits": {"cpu": "100m", "memory": "20Mi"},
            "requests": {"cpu": "50m", "memory": "10Mi"},
        },
    }
