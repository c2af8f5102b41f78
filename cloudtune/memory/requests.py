"""What a job asks for: its model, its training and its machine, from the recipe's options or the command's flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import attrs

from cloudtune.errors import UsageError
from cloudtune.launch import Launch, neuron
from cloudtune.launch.machine import runtime_of, shape_of
from cloudtune.launch.options import settled
from cloudtune.memory import commands
from cloudtune.memory.machines import Machine, machine_of
from cloudtune.memory.training import Training
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import Recipe

#: What a recipe calls what decides here, where it has another name for it.
_OPTIONS = {
    "sequence_length": "maxLength",
    "batch_size": "batchSize",
    "accumulation": "gradientAccumulation",
    "gradient_checkpointing": "gradientCheckpointing",
    "lora_rank": "loraR",
    "lora_dropout": "loraDropout",
}
#: Recipes whose processes, if there are several, share the parameters whatever their options say.
_ALWAYS_SHARDED = frozenset({"vision"})
#: Rows are at least so long when nothing says how long they are.
_SHORT_ROWS = 128


class Request(NamedTuple):
    """What a job asks for.

    ``path`` is the YAML path that says so. ``packed``: rows are known to fill the sequence length; otherwise it is the
    longest that they may be. ``exact``: everything that decides is known, as it is for a recipe; ``spread``: at least
    how the model is spread over processes is.
    """

    model: str
    training: Training
    machine: Machine | None
    path: str
    packed: bool = False
    exact: bool = True
    spread: bool = True

    @property
    def least(self) -> Training:
        """The training at its smallest, as far as it is unknown: short rows, all that saves memory."""
        changes: dict[str, Any] = {}
        if not self.packed:
            changes["sequence_length"] = min(self.training.sequence_length, _SHORT_ROWS)
        if not self.exact:
            changes |= {"loss": "chunked", "gradient_checkpointing": True, "dtype": "bf16"}
        if not self.spread and self.training.sharding == "none":
            changes["sharding"] = "fsdp"
        return attrs.evolve(self.training, **changes)


def request_of(job: JobSpec, launch: Launch, *, machine: Machine | None = None, place: str = "") -> Request:
    """Return what a job asks for; ``machine`` is what its processes run on if its place does not say.

    ``place`` is where the job's keys are for ``--set``, such as ``steps.train.`` in a pipeline.

    Raises:
        UsageError: it does not say which model it trains, or how.
    """
    runtime, machine = runtime_of(job), machine_for(job, launch) or machine
    neuron_cores = bool(machine and machine.accelerator and machine.accelerator.endswith(" core"))
    places: dict[str, Any] = {
        "nodes": launch.nodes,
        "processes_per_node": launch.processes_per_node,
        "accelerator": machine is None or machine.accelerator is not None,
    }
    if runtime.recipe is not None:
        gpu = not neuron_cores and (machine is None or machine.accelerator is not None)
        model, training, packed = _of_recipe(runtime.recipe, places, gpu=gpu, place=place)
        return Request(
            model=model, training=training, machine=machine, packed=packed, path="spec.runtime.spec.recipe.args"
        )
    variables = {variable.name: variable.value for variable in runtime.env if variable.value is not None}
    found = commands.told(launch.command, variables)
    training = attrs.evolve(found.training, **places)
    degrees = launch.neuron or {}
    training = attrs.evolve(
        training,
        tensor_parallel=degrees.get("tensorParallelSize") or training.tensor_parallel,
        pipeline_parallel=degrees.get("pipelineParallelSize") or 1,
    )
    path = "spec.runtime.spec.command" if hasattr(runtime, "command") else "spec.runtime.spec.args"
    # other launchers read how to spread a model from files of theirs
    spread = found.known and launch.launcher in ("torchrun", "neuron", "command")
    return Request(
        model=found.model,
        training=training,
        machine=machine,
        packed=found.packed,
        path=path,
        exact=False,
        spread=spread,
    )


def machine_for(job: JobSpec, launch: Launch) -> Machine | None:
    """Return what each process of a job runs on; None where its place does not say."""
    shape = shape_of(job)
    if shape is None:
        return None
    details = getattr(job.infrastructure, "shape_config_details", None)
    memory_gb: float | None = getattr(details, "memory_in_gbs", None)
    cores = neuron.cores_of(shape, runtime_of(job))
    return machine_of(shape, launch.processes_per_node, cores=cores, memory_gb=memory_gb)


def _of_recipe(recipe: Recipe, places: Mapping[str, Any], *, gpu: bool, place: str) -> tuple[str, Training, bool]:
    """Return model, training and packing as recipe ``sft`` decides them where its options leave it open.

    What another recipe has no option for is as ``sft`` has it, but for the precision: it is that of accelerators.
    """
    options = settled(recipe)
    if options is None or "model" not in options or "method" not in options:
        raise UsageError(f"the recipe {recipe.name} trains no model that could be estimated")
    model = options["model"]
    if not isinstance(model, str) or not model or "$" in model or model.startswith("<"):
        given = f"is {model!r}" if isinstance(model, str) and model else "is empty"
        hint = f"name one: --set {place}runtime.recipe.args.model=OWNER/NAME"
        raise UsageError(f"the recipe's option model {given}, which names no model yet", hint=hint)
    shared = recipe.name in _ALWAYS_SHARDED and places["nodes"] * places["processes_per_node"] > 1
    defaults = {"bf16": True, "attnImplementation": "auto", "optimizer": "adamw_torch", "packing": False}
    options = {**defaults, "sharding": "fsdp" if shared else "none", "modulesToSave": (), **options}
    bf16 = gpu if options["bf16"] is None else options["bf16"]
    recompute = places["accelerator"] if options["gradientCheckpointing"] is None else options["gradientCheckpointing"]
    settings = {
        "method": options["method"],
        "dtype": "mixed" if bf16 else "fp32",
        "sequence_length": options["maxLength"],
        "batch_size": options["batchSize"],
        "accumulation": options["gradientAccumulation"],
        "gradient_checkpointing": recompute,
        "fused_attention": options["attnImplementation"] != "eager",
        "optimizer": options["optimizer"],
        "sharding": options["sharding"],
        "lora_rank": options["loraR"],
        "lora_dropout": options["loraDropout"],
        "targets": tuple(options["targetModules"]),
        "saved": tuple(options["modulesToSave"]),
    }
    open_values = {**settings, "bf16": options["bf16"]}.items()
    if unread := [key for key, value in open_values if isinstance(value, str) and "$" in value]:
        name = _OPTIONS.get(unread[0], unread[0])
        hint = f"say what it is: --set {place}runtime.recipe.args.{name}=VALUE"
        raise UsageError(f"the recipe's option {name} is filled in only later", hint=hint)
    numbers = ("sequence_length", "batch_size", "accumulation", "lora_rank")
    if any(not isinstance(settings[key], int) for key in numbers):
        raise UsageError("an option of the recipe is no number")
    return model, Training(**settings, **places), bool(options["packing"])
