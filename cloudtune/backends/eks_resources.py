"""What a pod asks of its node: accelerators, EFA interfaces, and a share of processors and memory that fits.

A node cannot give away all that its shape has. Of the memory the hypervisor and the kernel keep up to 7.5 % (what
Karpenter counts with), the kubelet 255 MiB and 11 MiB for each pod that the node may have, and 100 MiB are left before
it evicts (bootstrap of Amazon's images for EKS); of the processors it keeps 6 % of the first, 1 % of the second, half a
percent of the next two and a quarter percent of each other. What runs on every node (network, storage, metrics) is
counted with a processor and a GiB, on machines of less than eight processors with half of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from cloudtune.backends.eks_wire import said
from cloudtune.backends.patches import merge_patch
from cloudtune.launch import Launch
from cloudtune.launch.machine import efa_interfaces_of, shape_of
from cloudtune.shapes import Shape, UnknownShape, find
from cloudtune.spec.eks import EKSJob
from cloudtune.spec.job import JobSpec

GPU, NEURON, NEURON_CORE, EFA = (
    "nvidia.com/gpu",
    "aws.amazon.com/neuron",
    "aws.amazon.com/neuroncore",
    "vpc.amazonaws.com/efa",
)
#: Resources that stand for the accelerators of a node.
ACCELERATORS = (GPU, NEURON, NEURON_CORE, "amd.com/gpu", "habana.ai/gaudi")
#: Recipes that compute on processors alone: they ask for no accelerators, whatever the node has.
PROCESSORS_ONLY = frozenset({"prepare", "pretokenize"})
#: How the command of a pipeline's step begins that is a verb.
VERB = ("python3", "-m", "cloudtune")
_OVERHEAD = 0.075
_KUBELET_MIB, _POD_MIB, _EVICTION_MIB = 255, 11, 100
#: Pods that a node may have: of small machines, and of those with many network interfaces.
_FEW_PODS, _MANY_PODS, _MANY_FROM = 110, 737, 30
#: Where nothing says how much memory there is.
_SHARED = "8Gi"
_MOST_SHARED_MIB = 256 * 1024


@attrs.frozen(kw_only=True)
class Resources:
    """What one pod asks for; ``shared_memory`` is the most that may lie in /dev/shm, which counts as its memory."""

    requests: Mapping[str, Any]
    limits: Mapping[str, Any]
    shared_memory: str
    claims: Any = None

    @property
    def extended(self) -> tuple[str, ...]:
        """The names of the devices among them."""
        return tuple(name for name in self.limits if "/" in name)

    @property
    def has_accelerators(self) -> bool:
        """Whether accelerators are among them; those of a claim are not known here."""
        return bool(self.claims) or any(name in self.limits for name in ACCELERATORS)

    def to_dict(self) -> dict[str, Any]:
        """Return them as a container has them."""
        return said({"requests": dict(self.requests), "limits": dict(self.limits), "claims": self.claims})


def resources_of(job: JobSpec, how: Launch) -> Resources:
    """Return what each pod of a job asks for; what the spec says of ``resources`` comes last and wins, null removes."""
    place = job.infrastructure
    assert isinstance(place, EKSJob)
    shape = shape_of(job)
    devices = {} if _on_processors(job) else _devices(job, shape, how)
    cpu_m, memory_mib = _share(place, shape)
    memory = {"memory": _memory(memory_mib)} if memory_mib else {}
    cpu = {"cpu": _cpu(cpu_m)} if cpu_m else {}
    own: Mapping[str, Any] = place.resources
    requests = merge_patch({**cpu, **memory, **devices}, own.get("requests", {}))
    limits = merge_patch({**memory, **devices}, own.get("limits", {}))
    _agree(requests, limits, own)
    return Resources(
        requests=requests, limits=limits, claims=own.get("claims"), shared_memory=_shared(place, limits, memory_mib)
    )


def _on_processors(job: JobSpec) -> bool:
    """Whether a job computes on processors alone: one of those recipes, or a verb, which handles weights."""
    recipe, command = job.runtime.recipe if job.runtime else None, getattr(job.runtime, "command", None)
    if isinstance(command, tuple) and command[:3] == VERB:
        return True
    return recipe is not None and recipe.name in PROCESSORS_ONLY


def _devices(job: JobSpec, shape: Shape | None, how: Launch) -> dict[str, Any]:
    """Return the devices of a node: all accelerators, and where several nodes talk to each other its EFA interfaces."""
    place = job.infrastructure
    assert isinstance(place, EKSJob)
    found: dict[str, Any] = {}
    if shape is not None and shape.neuron_cores:
        name, count = (NEURON, shape.accelerators) if shape.accelerators else (NEURON_CORE, shape.logical_cores())
        found = {name: str(count)}
    elif shape is not None and shape.accelerators:
        found = {GPU: str(shape.accelerators)}
    efa = efa_interfaces_of(job)
    part = _part(place, shape)
    if place.efa_per_node is None:
        efa = int(efa * part) if how.nodes > 1 else 0
    return {**found, **({EFA: str(efa)} if efa else {})}


def _share(place: EKSJob, shape: Shape | None) -> tuple[int, int]:
    """Return processors (in thousandths) and memory (MiB) of a pod, 0 where the catalogue does not know the machine.

    It is all that the node can give, or the part of that which belongs to the accelerators asked for.
    """
    if shape is None or not shape.vcpus or not shape.memory_gb:
        return 0, 0
    vcpus, small = shape.vcpus, shape.vcpus < 8
    pods = _FEW_PODS if vcpus < _MANY_FROM else _MANY_PODS
    kept_m = 60 + 10 * (vcpus > 1) + 5 * min(max(vcpus - 2, 0), 2) + 2.5 * max(vcpus - 4, 0)
    cpu_m = vcpus * 1000 - kept_m - (500 if small else 1000)
    kept_mib = _KUBELET_MIB + _POD_MIB * pods + _EVICTION_MIB + (512 if small else 1024)
    memory_mib = shape.memory_gb * 1024 * (1 - _OVERHEAD) - kept_mib
    part = _part(place, shape)
    return max(100, int(cpu_m * part)), max(128, int(memory_mib * part))


def _part(place: EKSJob, shape: Shape | None) -> float:
    """Return which part of a node's accelerators a pod asks for; ``accelerator.count`` may say fewer."""
    own = place.accelerator.count if place.accelerator else 0
    if not own or shape is None:
        return 1.0
    try:
        whole = find(shape.name, cloud="aws").accelerators
    except UnknownShape:
        return 1.0
    return min(1.0, own / whole) if whole else 1.0


def _cpu(cpu_m: int) -> str:
    return str(cpu_m // 1000) if cpu_m >= 2000 else f"{cpu_m // 100 * 100}m"


def _memory(memory_mib: int) -> str:
    return f"{memory_mib // 1024}Gi" if memory_mib >= 4096 else f"{memory_mib // 128 * 128}Mi"


def _agree(requests: dict[str, Any], limits: dict[str, Any], own: Mapping[str, Any]) -> None:
    """Make requests and limits of devices the same, as the API wants them: what the spec says of either is meant.

    Of processors and memory no request is above its limit: where the spec says only one of them, it is both.
    """
    asked, allowed = own.get("requests") or {}, own.get("limits") or {}
    for name in ("cpu", "memory"):
        if allowed.get(name) is not None and name not in asked:
            requests[name] = limits[name]
        elif asked.get(name) is not None and name not in allowed and name in limits:
            limits[name] = requests[name]
    for name in {*requests, *limits}:
        if "/" not in name and not name.startswith("hugepages-"):
            continue
        said_in = next((amounts for amounts in (allowed, asked) if name in amounts), limits)
        value = said_in.get(name, requests.get(name))
        for amounts in (requests, limits):
            if value is None or str(value) == "0":
                amounts.pop(name, None)
            else:
                amounts[name] = value


def _shared(place: EKSJob, limits: Mapping[str, Any], memory_mib: int) -> str:
    """Return the size of /dev/shm: what the spec says, else half of the pod's memory, as Linux has it."""
    if place.shared_memory:
        return place.shared_memory
    if "memory" not in limits or not memory_mib or "memory" in (place.resources.get("limits") or {}):
        return _SHARED
    return _memory(min(memory_mib // 2, _MOST_SHARED_MIB))
