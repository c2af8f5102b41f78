"""replicas x shape -> nodes, processes, launcher and environment (pure)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cloudtune.errors import Fault, SpecError
from cloudtune.launch import launchers, machine, neuron
from cloudtune.launch.commands import command_of
from cloudtune.launch.machine import runtime_of, shape_of
from cloudtune.shapes import Shape
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime, Runtime

_WHERE = "spec.infrastructure.spec"
_WHAT = "spec.runtime.spec"

Warnings = tuple[tuple[str, str], ...]


@attrs.frozen(kw_only=True)
class Launch:
    """What starts on every node; ranks and addresses are filled in on the node itself.

    ``command`` is a shell line (str) or an exact argv (tuple). ``launcher`` is one of ``torchrun``, ``accelerate``,
    ``deepspeed``, ``neuron`` (torchrun over Neuron cores) and ``command`` (anything else).
    ``environment`` is the same on every node and holds no secrets: the job's own variables are not in it and win.
    ``neuron`` holds the degrees of a job over Neuron cores, in the order's own words; ``warnings`` are pairs of a
    YAML path and a message.
    """

    nodes: int
    processes_per_node: int
    accelerator: str | None
    accelerators_per_node: int
    launcher: str
    command: str | tuple[str, ...]
    environment: Mapping[str, str] = attrs.field(factory=dict)
    neuron: Mapping[str, Any] | None = None
    warnings: Warnings = ()

    @property
    def world_size(self) -> int:
        """Processes in the whole job."""
        return self.nodes * self.processes_per_node

    def to_dict(self) -> dict[str, Any]:
        """Return the launch as the plan's JSON shows it."""
        command = self.command if isinstance(self.command, str) else shlex.join(self.command)
        out: dict[str, Any] = {
            "nodes": self.nodes,
            "processesPerNode": self.processes_per_node,
            "worldSize": self.world_size,
            "accelerator": self.accelerator,
            "command": command,
            "environment": dict(self.environment),
        }
        if self.neuron is not None:
            out["neuron"] = dict(self.neuron)
        return out


def launch(job: JobSpec) -> Launch:
    """Return what a job starts on every node.

    A flag that the user gave to the launcher wins over the spec and the shape, and a warning says so.

    Raises:
        SpecError: the runtime or the shape is missing or unknown, or the numbers do not fit; all faults at once.

    >>> from cloudtune.spec.infrastructure import DataScienceJob
    >>> from cloudtune.spec.runtimes import PyTorchDistributedRuntime
    >>> six = PyTorchDistributedRuntime(command="torchrun train.py", replicas=6)
    >>> launch(JobSpec(infrastructure=DataScienceJob(shape_name="VM.GPU.A10.2"), runtime=six)).world_size
    12
    """
    runtime = runtime_of(job)
    faults: list[Fault] = []
    try:
        command, warnings = command_of(runtime)
    except SpecError as error:
        command, warnings = "", ()
        faults += error.faults
    try:
        shape = shape_of(job)
    except SpecError as error:
        raise SpecError([*faults, *error.faults]) from error
    faults += machine.refusals(job, shape)
    cores = neuron.cores_of(shape, runtime)
    seen = launchers.look(command)
    nodes, processes, told = launchers.counts(seen, runtime.replicas or 1, _processes(runtime, shape, cores))
    degrees: Mapping[str, Any] | None = None
    spread: Warnings = ()
    try:
        degrees, spread = neuron.spread(runtime, shape, nodes=nodes, processes=processes, cores=cores)
    except SpecError as error:
        faults += error.faults
    if faults:
        raise SpecError(faults)
    key = f"{_WHAT}.command" if hasattr(runtime, "command") else f"{_WHAT}.cmd"
    flags = [(key, note) for note in (*told, *launchers.doubts(seen, nodes))]
    doubts = (*machine.doubts(job, shape), *_crowding(runtime, shape, processes, cores))
    return Launch(
        nodes=nodes,
        processes_per_node=processes,
        accelerator=shape.accelerator if shape else None,
        accelerators_per_node=shape.accelerators if shape else 0,
        launcher=_launcher(runtime, seen.launcher, cores),
        command=command,
        environment=_environment(job, shape, nodes=nodes, cores=cores),
        neuron=degrees,
        warnings=(*warnings, *flags, *spread, *doubts),
    )


def ranks(launch: Launch) -> tuple[range, ...]:
    """Return the ranks of every node, node 0's first: together 0..world-1, each once."""
    size = launch.processes_per_node
    return tuple(range(node * size, (node + 1) * size) for node in range(launch.nodes))


def run_time_limit_s(job: JobSpec) -> tuple[int | None, tuple[str, str] | None]:
    """Return how long the job may run, in seconds, and a warning where two keys disagree: the smaller one wins."""
    minutes = runtime_of(job).maximum_runtime_in_minutes
    ours = None if minutes is None else minutes * 60
    theirs: int | None = getattr(job.infrastructure, "max_runtime_in_seconds", None)
    if ours is None or theirs is None or ours == theirs:
        return (theirs if ours is None else ours), None
    limits = [(ours, f"{_WHAT}.maximumRuntimeInMinutes"), (theirs, f"{_WHERE}.maxRuntimeInSeconds")]
    (low, winner), (high, loser) = sorted(limits)
    return low, (loser, f"{high} s has no effect: {winner} allows {low} s, and the smaller limit wins")


def _processes(runtime: Runtime, shape: Shape | None, cores: int) -> int:
    if runtime.processes_per_node is not None:
        return runtime.processes_per_node
    if not isinstance(runtime, PyTorchDistributedRuntime):
        return 1
    return cores or (shape.accelerators if shape else 0) or 1


def _launcher(runtime: Runtime, seen: str, cores: int) -> str:
    if getattr(runtime, "deepspeed", None):
        return "deepspeed"
    on_neuron = cores or runtime.type == "neuronDistributed"
    return "neuron" if seen == "torchrun" and on_neuron else seen


def _crowding(runtime: Runtime, shape: Shape | None, processes: int, cores: int) -> Iterator[tuple[str, str]]:
    """Say when processes and accelerators of a distributed job do not match, Neuron's apart."""
    if shape is None or cores or not shape.accelerators or not isinstance(runtime, PyTorchDistributedRuntime):
        return
    have = f"{shape.accelerators} {shape.accelerator or 'accelerators'}"
    if processes < shape.accelerators:
        few = "1 process" if processes == 1 else f"{processes} processes"
        yield f"{_WHAT}.processesPerNode", f"{few} on {have}: the others stay idle"
    elif processes > shape.accelerators:
        yield f"{_WHAT}.processesPerNode", f"{processes} processes share {have}, which NCCL refuses"


def _environment(job: JobSpec, shape: Shape | None, *, nodes: int, cores: int) -> dict[str, str]:
    """Return what every node's environment needs; the job's own variables are left out, for they win."""
    place = machine.PLACES.get(job.infrastructure.type)
    runtime = runtime_of(job)
    efa = machine.efa_interfaces_of(job)
    values: dict[str, str] = {}
    if cores or runtime.type == "neuronDistributed":
        values |= neuron.environment(runtime, nodes=nodes, efa_interfaces=efa)
    elif place is not None and place.efa_by_hand and nodes > 1 and efa:
        values["FI_PROVIDER"] = "efa"
        if shape is not None and shape.rdma:
            values["FI_EFA_USE_DEVICE_RDMA"] = "1"
    own = {variable.name for variable in runtime.env}
    return {name: value for name, value in values.items() if name not in own}
