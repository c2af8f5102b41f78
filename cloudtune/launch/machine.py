"""Which machine a job's nodes are: the catalogue's shape, corrected by what the spec says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import attrs

from cloudtune.errors import Fault, SpecError
from cloudtune.shapes import Shape, UnknownShape, find
from cloudtune.spec.infrastructure import Accelerator
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime, Runtime

_WHERE = "spec.infrastructure.spec"


class Place(NamedTuple):
    """How a place names its shapes; ``efa_by_hand``: its containers do not always turn EFA on by themselves."""

    cloud: str
    attribute: str
    key: str
    may_be_unnamed: bool = False
    efa_by_hand: bool = False
    training_types: bool = False


#: Places whose shapes the catalogue knows, by type of infrastructure.
PLACES: Mapping[str, Place] = {
    "dataScienceJob": Place("oci", "shape_name", f"{_WHERE}.shapeName"),
    "sageMakerTrainingJob": Place(
        "aws", "instance_type", f"{_WHERE}.instanceType", efa_by_hand=True, training_types=True
    ),
    "eksJob": Place("aws", "instance_type", f"{_WHERE}.instanceType", may_be_unnamed=True),
}


def shape_of(job: JobSpec) -> Shape | None:
    """Return the job's machine: the catalogue's shape, corrected by ``accelerator`` where the spec has one.

    None for this machine, and for an EKS job that names no instance type and needs no accelerators: one whose runtime
    is not distributed, or that says itself how many processes a node has.

    Raises:
        SpecError: the shape is missing, or neither the catalogue nor the spec knows what it has.
    """
    infrastructure = job.infrastructure
    place = PLACES.get(infrastructure.type)
    own = infrastructure.accelerator
    name: str | None = getattr(infrastructure, place.attribute) if place else None
    if place is None or not name:
        if place is not None and own is None and not (place.may_be_unnamed and _needs_no_shape(runtime_of(job))):
            hint = f"set it, or say what a node has in {_WHERE}.accelerator"
            raise SpecError([Fault(path=place.key, message="nothing says which machine the nodes are", hint=hint)])
        unnamed = Shape(name=infrastructure.type, cloud=place.cloud if place else "")
        return None if own is None else _corrected(unnamed, own)
    try:
        shape = find(name, cloud=place.cloud)
    except UnknownShape as error:
        if own is None:
            raise SpecError([_unknown(error, place)]) from error
        shape = Shape(name=name, cloud=place.cloud)
    return shape if own is None else _corrected(shape, own)


def runtime_of(job: JobSpec) -> Runtime:
    """Return the job's runtime; a job that is still being built may have none, which is a SpecError."""
    if job.runtime is None:
        raise SpecError([Fault(path="spec.runtime", message="the job says nothing to run", hint="add a runtime")])
    return job.runtime


def efa_interfaces_of(job: JobSpec) -> int:
    """Return the EFA interfaces of a node: ``efaPerNode`` where the spec has it, else the shape's."""
    own: int | None = getattr(job.infrastructure, "efa_per_node", None)
    if own is not None:
        return own
    shape = shape_of(job)
    return shape.efa_interfaces if shape else 0


def refusals(job: JobSpec, shape: Shape | None) -> Iterator[Fault]:
    """Yield why the job cannot run on its shape: Inferentia hosts models, and SageMaker trains on none of it."""
    place = PLACES.get(job.infrastructure.type)
    if place is None or shape is None or shape.trainable:
        return
    if place.training_types or isinstance(job.runtime, PyTorchDistributedRuntime):
        hint = "train on a trn1, trn2 or GPU shape and deploy on this one"
        yield Fault(path=place.key, message=f"{shape.name} only hosts models", hint=hint)


def doubts(job: JobSpec, shape: Shape | None) -> Iterator[tuple[str, str]]:
    """Yield why the place may refuse the shape: services grow new shapes, so this is no fault."""
    place = PLACES.get(job.infrastructure.type)
    if place is not None and place.training_types and shape is not None and shape.family and not shape.sagemaker:
        yield place.key, f"SageMaker's training API, as known here, has no ml.{shape.name}"


def _needs_no_shape(runtime: Runtime) -> bool:
    return runtime.processes_per_node is not None or not isinstance(runtime, PyTorchDistributedRuntime)


def _unknown(error: UnknownShape, place: Place) -> Fault:
    near = f"nearest: {', '.join(error.nearest)}; or " if error.nearest else ""
    return Fault(
        path=place.key,
        message=f"no {place.cloud.upper()} shape is known as {error.name!r}",
        hint=f"{near}say what it has in {_WHERE}.accelerator",
    )


def _corrected(shape: Shape, own: Accelerator) -> Shape:
    """Return a shape with what the spec says of it; zero and null say nothing."""
    said: dict[str, Any] = {
        "accelerator": own.name,
        "accelerators": own.count,
        "accelerator_memory_gb": own.memory_in_gb,
        "efa_interfaces": own.efa_interfaces,
        "neuron_cores": own.neuron_cores,
    }
    changes = {key: value for key, value in said.items() if value}
    if own.neuron_cores:
        changes["logical_core_size"] = 1  # the spec counts logical cores
    elif own.count and shape.neuron_cores:
        changes["neuron_cores"] = shape.neuron_cores // shape.accelerators * own.count
    return attrs.evolve(shape, **changes, source=f"{_WHERE}.accelerator; {shape.source}".rstrip("; "))
