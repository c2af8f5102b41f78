"""The nodes of a rehearsed cluster, as the API shows them: made of instance types.

Sources: ``shapes/aws.json`` for what a type has; what a node keeps for itself is by the bootstrap of the EKS AMI: of
CPU 6 % of the first core, 1 % of the second, 0.5 % of the next two, 0.25 % of others; of memory 255 MiB, 11 MiB a pod,
and 100 MiB below which it evicts. That an instance shows 97 % of its memory is inferred from a few types.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from cloudtune.rehearsal.kubernetes.objects import moment
from cloudtune.shapes import Shape, UnknownShape, find

_GI, _MI = 1 << 30, 1 << 20
#: A node of no known type.
_PLAIN = Shape(name="m5.xlarge", cloud="aws", vcpus=4, memory_gb=16)
_MOST_PODS = 110
_DISK_GI = 80
_SHARE = 0.97


def shape_of(instance_type: str) -> Shape:
    """Return what an instance type has, with or without HyperPod's ``ml.``; a plain one for a name nobody knows."""
    try:
        return find(instance_type, cloud="aws")
    except UnknownShape:
        return _PLAIN


def node_manifest(
    name: str,
    instance_type: str,
    *,
    address: str,
    region: str,
    zone: str,
    labels: Mapping[str, str],
    taints: tuple[Mapping[str, str], ...],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a node and its status."""
    shape = shape_of(instance_type)
    hyperpod = {"sagemaker.amazonaws.com/node-health-status": "Schedulable"} if instance_type.startswith("ml.") else {}
    known = {
        "beta.kubernetes.io/instance-type": instance_type,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": instance_type,
        "topology.kubernetes.io/region": region,
        "topology.kubernetes.io/zone": zone,
    }
    manifest = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**known, **hyperpod, **labels}},
        "spec": {
            "providerID": f"aws:///{zone}/i-{secrets.token_hex(8)}0",
            **({"taints": [dict(one) for one in taints]} if taints else {}),
        },
    }
    capacity, allocatable = capacities(shape)
    status = {
        "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
        "allocatable": allocatable,
        "capacity": capacity,
        "conditions": node_conditions("True", "KubeletReady", "kubelet is posting ready status"),
        "nodeInfo": {
            "architecture": "amd64",
            "bootID": secrets.token_hex(8),
            "containerRuntimeVersion": "containerd://2.1.4",
            "kernelVersion": "6.12.46-66.121.amzn2023.x86_64",
            "kubeProxyVersion": "v1.35.0-eks-rehearsed",
            "kubeletVersion": "v1.35.0-eks-rehearsed",
            "machineID": secrets.token_hex(16),
            "operatingSystem": "linux",
            "osImage": "Amazon Linux 2023",
            "systemUUID": secrets.token_hex(16),
        },
    }
    return manifest, status


def capacities(shape: Shape) -> tuple[dict[str, str], dict[str, str]]:
    """Return what a node has, and what of it pods may have."""
    cores, memory = shape.vcpus or 4, int((shape.memory_gb or 16) * _SHARE) * _GI
    devices = {
        "nvidia.com/gpu": 0 if shape.neuron_cores else shape.accelerators,
        "aws.amazon.com/neuron": shape.accelerators if shape.neuron_cores else 0,
        "aws.amazon.com/neuroncore": shape.logical_cores() if shape.neuron_cores else 0,
        "vpc.amazonaws.com/efa": shape.efa_interfaces,
    }
    devices = {name: count for name, count in devices.items() if count}
    pages = {"hugepages-1Gi": "0", "hugepages-2Mi": "0"}
    common = {**pages, "pods": str(_MOST_PODS), **{name: str(count) for name, count in devices.items()}}
    spare = memory - (255 + 11 * _MOST_PODS + 100) * _MI
    capacity = {"cpu": str(cores), "memory": f"{memory >> 10}Ki", "ephemeral-storage": f"{_DISK_GI}Gi", **common}
    disk = str(int(_DISK_GI * _GI * 0.9))
    allocatable = {
        "cpu": f"{cores * 1000 - _reserved_millicores(cores)}m",
        "memory": f"{spare >> 10}Ki",
        "ephemeral-storage": disk,
        **common,
    }
    return capacity, allocatable


def _reserved_millicores(cores: int) -> int:
    rest = max(0, cores - 4)
    return round(60 + 10 * (cores > 1) + 5 * min(2, max(0, cores - 2)) + 2.5 * rest)


def node_conditions(ready: str, reason: str, message: str) -> list[dict[str, Any]]:
    """Return the conditions of a node that is ready, is not, or is silent (``Unknown``)."""
    now = moment()
    unknown = ready == "Unknown"
    calm = {
        "MemoryPressure": ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        "DiskPressure": ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        "PIDPressure": ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    }
    rows = [
        (kind, "Unknown" if unknown else "False", *(("NodeStatusUnknown", message) if unknown else words))
        for kind, words in calm.items()
    ]
    rows.append(("Ready", ready, reason, message))
    return [
        {
            "type": kind,
            "status": state,
            "reason": why,
            "message": words,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        for kind, state, why, words in rows
    ]
