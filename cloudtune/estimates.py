"""The verb ``estimate``: the memory of a job, or of a model on the shapes that it could be trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.naming import place_of
from cloudtune.uri import shown

if TYPE_CHECKING:
    from cloudtune.launch import Launch
    from cloudtune.memory.architecture import Architecture
    from cloudtune.memory.fit import Advice, Fit
    from cloudtune.memory.machines import Machine
    from cloudtune.memory.training import Training
    from cloudtune.shapes import Shape
    from cloudtune.spec.job import JobSpec

_VERDICTS = ("fits", "tight", "too large", "unknown")


def estimate(
    model: str | None = None,
    *,
    file: str | os.PathLike[str] | None = None,
    set: Sequence[str] = (),  # noqa: A002 - the command line's own word
    env: Sequence[str] = (),
    infrastructure: str | None = None,
    shape: str | None = None,
    cloud: str | None = None,
    nodes: int | None = None,
    processes: int | None = None,
    method: str | None = None,
    dtype: str | None = None,
    sequence_length: int | None = None,
    batch_size: int | None = None,
    lora_rank: int | None = None,
    optimizer: str | None = None,
    sharding: str | None = None,
    tensor_parallel: int | None = None,
    gradient_checkpointing: bool | None = None,
    loss: str | None = None,
) -> tuple[Fit, ...]:
    """Return what a training needs of each accelerator, and whether it fits; nothing is trained or loaded.

    A job (one :class:`~cloudtune.memory.fit.Fit`; a pipeline: one for each step that trains) is taken as its file has
    it, with what the options change. A model, by folder, URI or name on the Hub, is estimated on a ``shape``, or else
    on all shapes with GPUs of the catalogue (or of one ``cloud``), the smallest that fit first; ``sharding`` None
    shards where the model would not fit otherwise. All else is as recipe ``sft`` trains by default.

    Raises:
        UsageError: neither or both of model and file are named, no config is known, or the job does not say how it
            trains.

    >>> (fit,) = estimate("Qwen/Qwen3-8B", method="qlora", shape="VM.GPU.A10.1")
    >>> fit.verdict
    'fits'
    """
    if (model is None) == (file is None):
        raise UsageError("name a model, or a job with -f", hint="cloudtune estimate NAME --shape VM.GPU.A10.1")
    given = {
        "method": method,
        "dtype": dtype,
        "sequence_length": sequence_length,
        "batch_size": batch_size,
        "lora_rank": lora_rank,
        "optimizer": optimizer,
        "sharding": sharding,
        "tensor_parallel": tensor_parallel,
        "gradient_checkpointing": gradient_checkpointing,
        "loss": loss,
        "nodes": nodes,
        "processes_per_node": processes,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if model is not None:
        return _of_model(model, changes, shape, cloud)
    assert file is not None
    return _of_jobs(file, set, env, infrastructure, changes, shape)


def _of_model(name: str, changes: Mapping[str, Any], shape: str | None, cloud: str | None) -> tuple[Fit, ...]:
    from cloudtune.memory.families import architecture
    from cloudtune.memory.machines import gpu_shapes

    found = architecture(config_of(place_of(name, hub=True)))
    if shape is not None:
        return (_advised(_on(name, found, changes, _shape(shape)), _shape(shape)),)
    shared = changes.get("tensor_parallel", 1)
    shapes = [one for one in gpu_shapes((cloud,) if cloud else ("oci", "aws")) if not _world(one, changes) % shared]
    if not shapes:
        hint = "name a --shape with more, or add --nodes"
        raise UsageError(f"no shape with GPUs has {shared} processes to share every layer", hint=hint)
    fits = [_on(name, found, changes, one) for one in shapes]
    return tuple(sorted(fits, key=lambda fit: (_VERDICTS.index(fit.verdict), _size(fit))))


def _on(name: str, model: Architecture, changes: Mapping[str, Any], shape: Shape) -> Fit:
    """Return how a model fits on a shape; where it is not said how to shard, so that it fits if it can."""
    from cloudtune.memory.estimate import estimate as estimate_of
    from cloudtune.memory.fit import Fit
    from cloudtune.memory.machines import machine_of
    from cloudtune.memory.training import Training

    processes = _processes(shape, changes)
    machine = machine_of(shape, processes)
    settings: dict[str, Any] = {"processes_per_node": processes}
    if not shape.accelerators:
        # as recipe sft decides where there is no accelerator
        settings |= {"accelerator": False, "gradient_checkpointing": False, "dtype": "fp32"}
    training = _checked(Training(**{**settings, **changes}))
    fit = Fit(model=name, estimate=estimate_of(model, training), machine=machine)
    if fit.verdict == "fits" or training.replicas == 1 or "sharding" in changes or not training.accelerator:
        return fit
    spread = estimate_of(model, attrs.evolve(training, sharding="fsdp"))
    return attrs.evolve(fit, estimate=spread) if spread.total < fit.estimate.total else fit


def _processes(shape: Shape, changes: Mapping[str, Any]) -> int:
    """Return the processes of a node: as many as it has accelerators, unless something else is asked for."""
    return changes.get("processes_per_node") or shape.logical_cores() or shape.accelerators or 1


def _world(shape: Shape, changes: Mapping[str, Any]) -> int:
    nodes: int = changes.get("nodes", 1)
    return nodes * _processes(shape, changes)


def _checked(training: Training) -> Training:
    """Return a training; raises UsageError if its processes cannot share layers as it says."""
    shared = training.tensor_parallel
    if training.world % shared:
        world = f"{training.nodes} x {training.processes_per_node} processes"
        hint = "--tensor-parallel divides them: change it, or --nodes, or --processes"
        raise UsageError(f"{shared} processes that share every layer do not divide {world}", hint=hint)
    return training


def _advised(fit: Fit, shape: Shape) -> Fit:
    """Return a fit with the smallest other shape of the same cloud on which the same training fits."""
    from cloudtune.memory.fit import Advice
    from cloudtune.memory.machines import gpu_shapes

    if fit.verdict in ("fits", "unknown") or not shape.cloud:
        return fit
    changes = {key: getattr(fit.training, key) for key in _CARRIED}
    others = (_on(fit.model, fit.estimate.model, changes, one) for one in gpu_shapes((shape.cloud,)))
    for other in sorted((one for one in others if one.verdict == "fits"), key=_size):
        assert other.machine is not None
        words = f"shape {other.machine.name}" + (
            ", sharding fsdp" if other.training.sharding != fit.training.sharding else ""
        )
        advice: tuple[Advice, ...] = (Advice(change=words, total=other.estimate.total),)
        return attrs.evolve(fit, elsewhere=advice)
    return fit


#: What stays the same on another shape.
_CARRIED = (
    "method",
    "dtype",
    "sequence_length",
    "batch_size",
    "accumulation",
    "gradient_checkpointing",
    "fused_attention",
    "optimizer",
    "nodes",
    "lora_rank",
    "lora_dropout",
    "targets",
    "saved",
    "loss",
)


def _of_jobs(
    file: str | os.PathLike[str],
    set_: Sequence[str],
    env: Sequence[str],
    infrastructure: str | None,
    changes: Mapping[str, Any],
    shape: str | None,
) -> tuple[Fit, ...]:
    from cloudtune.spec.document import load
    from cloudtune.spec.job import JobSpec

    spec = load(file, set=set_, env=env, infrastructure=infrastructure)
    if isinstance(spec, JobSpec):
        return (_of_job(spec, spec.name or "", changes, shape),)
    from cloudtune.pipeline_steps import job_of
    from cloudtune.spec.order import order_of_steps

    fits, reasons = [], []
    for step in order_of_steps(spec):
        if step.job is not None:
            try:
                place = f"steps.{step.name}."
                fits.append(_of_job(job_of(spec, step, {}), step.name, changes, shape, place=place))
            except UsageError as error:
                reasons.append(f"\n  {step.name}: {error.message}\n    hint: {error.hint}")
    if not fits and not reasons:
        hint = "name the model instead: cloudtune estimate NAME --method lora"
        raise UsageError("no step of the pipeline is a job that could be estimated", hint=hint)
    if not fits:
        raise UsageError(f"no step of the pipeline can be estimated:{''.join(reasons)}")
    return tuple(fits)


def _of_job(job: JobSpec, name: str, changes: Mapping[str, Any], shape: str | None, *, place: str = "") -> Fit:
    from cloudtune.launch import launch
    from cloudtune.launch.machine import shape_of
    from cloudtune.memory.estimate import estimate as estimate_of
    from cloudtune.memory.families import architecture
    from cloudtune.memory.fit import Fit
    from cloudtune.memory.machines import machine_of
    from cloudtune.memory.requests import request_of

    how = launch(job)
    other = _shape(shape) if shape is not None else None
    here = None if other is not None else _here(how.nodes * how.processes_per_node)
    try:
        request = request_of(job, how, machine=here, place=place)
    except UsageError as error:
        error.hint = error.hint or _by_model(job, how, other or shape_of(job))
        raise
    machine, training = request.machine, request.training
    if other is not None:
        processes = _processes(other, changes)
        machine = machine_of(other, processes)
        training = attrs.evolve(training, processes_per_node=processes, accelerator=other.accelerators > 0)
    training = _checked(attrs.evolve(training, **changes))
    notes = () if request.exact else ("what the command does not say is taken from its script's defaults",)
    fit = Fit(
        model=request.model,
        estimate=estimate_of(architecture(config_of(request.model)), training),
        machine=machine,
        name=name,
        notes=notes,
    )
    known = other or shape_of(job)
    return _advised(fit, known) if known is not None else fit


def _by_model(job: JobSpec, how: Launch, shape: Shape | None) -> str:
    """Return how to ask for the model of a job that does not say how it trains it."""
    from cloudtune.launch.machine import runtime_of
    from cloudtune.memory.commands import model_named

    runtime = runtime_of(job)
    variables = {variable.name: variable.value for variable in runtime.env if variable.value is not None}
    name = model_named(how.command, variables) if runtime.recipe is None else None
    where = shape.name if shape is not None else "SHAPE"
    return f"name the model instead: cloudtune estimate {name or 'NAME'} --method lora --shape {where}"


def config_of(model: str) -> Mapping[str, Any]:
    """Return a model's config.json: of a folder, a URI, the Hub's local cache, or a known name.

    Raises:
        UsageError: there is none.
    """
    from cloudtune.memory.models import cached_config, known_config, local_config, nothing_known

    found = local_config(model)
    if found is not None:
        return found
    if "://" in model:
        return _config_at(model.rstrip("/"))
    found = cached_config(model) or known_config(model)
    if found is None:
        raise nothing_known(model)
    return found


def _config_at(uri: str) -> Mapping[str, Any]:
    from cloudtune.memory.models import ADAPTER_CONFIG, CONFIG, adapter_meant, check_size, parsed
    from cloudtune.storage import file_system, told

    for name in (CONFIG, ADAPTER_CONFIG):
        place = f"{uri}/{name}"
        with told("download", place):
            files, path = file_system(place)
            try:
                check_size(files.info(path).get("size") or 0, shown(place))
                config = parsed(files.cat_file(path), shown(place))
            except FileNotFoundError:
                continue
        if name == ADAPTER_CONFIG:
            raise adapter_meant(shown(uri), config)
        return config
    raise UsageError(f"{shown(uri)} holds no model: no {CONFIG}", hint="check its spelling, and that you may see it")


def _shape(name: str) -> Shape:
    from cloudtune.shapes import UnknownShape, find

    try:
        return find(name)
    except UnknownShape as error:
        listed = "leave --shape out for a list"
        near = f"nearest: {', '.join(error.nearest)}; {listed}" if error.nearest else listed
        raise UsageError(f"no shape of OCI or EC2 is known as {name!r}", hint=near) from error


def _here(processes: int) -> Machine | None:
    """Return this machine as so many processes share it; None if it has GPUs, whose memory is not known."""
    from cloudtune.memory.machines import Machine
    from cloudtune.node.accelerators import find_nvidia

    if find_nvidia().number or not hasattr(os, "sysconf"):
        return None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(name="this machine", accelerator=None, number=processes, memory=memory / processes)


def _size(fit: Fit) -> tuple[float, ...]:
    """Return how large a machine is: by all its accelerators' memory, then by their number."""
    machine = fit.machine
    return (machine.memory * machine.number, machine.number) if machine is not None else (float("inf"),)
