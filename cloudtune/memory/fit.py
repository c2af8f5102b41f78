"""Whether a training fits on a machine, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import attrs

from cloudtune.memory.adapters import is_adapted, trained_parameters
from cloudtune.memory.estimate import BAND, Estimate, estimate
from cloudtune.memory.machines import GIB, Machine
from cloudtune.memory.training import Training

#: More nodes than these are no advice.
_MOST_NODES = 64


class Advice(NamedTuple):
    """One change, or several together, with which the training fits; ``total`` is what a process needs then."""

    change: str
    total: float


@attrs.frozen(kw_only=True, repr=False)
class Fit:
    """What a training needs of each accelerator of a machine; ``machine`` is None where none is known.

    ``model`` is the name or place that the config came from, ``name`` the job or step, if it is one; ``elsewhere`` are
    other machines on which the training fits.
    """

    model: str
    estimate: Estimate
    machine: Machine | None = None
    name: str = ""
    elsewhere: tuple[Advice, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        where = "" if self.machine is None else f" of {gb(self.machine.memory)} GB on {self.machine.name}"
        return f"<Fit {self.model} {self.training.method}: {gb(self.estimate.total)}{where}, {self.verdict}>"

    @property
    def training(self) -> Training:
        """How the model is trained."""
        return self.estimate.training

    @property
    def remarks(self) -> tuple[str, ...]:
        """What should be known of the estimate: what is approximate in it, and what the training cannot do."""
        model, training = self.estimate.model, self.training
        experts = [matrix for _, matrix in model.matrices if not matrix.module and matrix.copies > 1]
        own = []
        if experts and training.method == "qlora":
            own.append(
                "experts are not quantized: transformers 5 fuses them, and bitsandbytes knows linear modules only"
            )
        if training.lora_dropout and any(is_adapted(matrix, training) for matrix in experts):
            own.append("PEFT adapts fused experts without dropout only: set loraDropout to 0, or name targetModules")
        return (*model.notes, *self.notes, *own)

    @property
    def verdict(self) -> str:
        """``fits``, ``tight`` (the memory lies within the error band of the estimate), ``too large`` or ``unknown``."""
        if self.machine is None:
            return "unknown"
        if self.estimate.most <= self.machine.memory:
            return "fits"
        return "tight" if self.estimate.least <= self.machine.memory else "too large"

    @property
    def headroom(self) -> float | None:
        """The bytes that are left of an accelerator; negative where they do not suffice."""
        return None if self.machine is None else self.machine.memory - self.estimate.total

    def advice(self) -> tuple[Advice, ...]:
        """Return what would make the training fit, where it does not: each change alone, else several together."""
        if self.machine is None or self.verdict == "fits":
            return ()
        alone = [found for step in _steps(self.training) if (found := self._fitting(step))]
        spread = "fsdp" if self.training.sharding == "none" else self.training.sharding
        for nodes in _more_nodes(self.training):
            if found := self._fitting({"nodes": nodes, "sharding": spread}):
                alone.append(found)
                break
        return (*(alone or self._together()), *self.elsewhere)

    def to_dict(self) -> dict[str, Any]:
        """Return the fit as ``estimate -o json`` shows it; memory in GB of 2**30 bytes."""
        training, found = self.training, self.estimate
        out: dict[str, Any] = {"name": self.name} if self.name else {}
        out |= {
            "model": self.model,
            "parameters": found.model.parameters,
            "trainedParameters": trained_parameters(found.model, training),
            "training": {
                "method": training.method,
                "dtype": training.dtype,
                "sequenceLength": training.sequence_length,
                "batchSize": training.batch_size,
                "gradientCheckpointing": training.gradient_checkpointing,
                "optimizer": training.optimizer,
                "sharding": training.sharding,
                "nodes": training.nodes,
                "processesPerNode": training.processes_per_node,
                "loss": training.loss,
            },
            "moment": found.moment,
            "termsInGB": {term: gb(value) for term, value in found.terms.items() if value},
            "totalInGB": gb(found.total),
            "band": BAND,
        }
        if self.machine is not None:
            out["machine"] = {
                "shape": self.machine.name,
                "accelerator": self.machine.accelerator,
                "memoryInGB": gb(self.machine.memory),
            }
            out["headroomInGB"] = gb(self.machine.memory - found.total)
        advice = [{"change": one.change, "totalInGB": gb(one.total)} for one in self.advice()]
        return out | {"verdict": self.verdict, "advice": advice, "notes": list(self.remarks)}

    def _fitting(self, changes: Mapping[str, Any]) -> Advice | None:
        """Return the advice to make these changes, if the training fits with them for certain."""
        assert self.machine is not None
        total = estimate(self.estimate.model, attrs.evolve(self.training, **changes))
        words = ", ".join(_WORDS[key].format(value) for key, value in changes.items() if key in _WORDS)
        return Advice(change=words, total=total.total) if total.most <= self.machine.memory else None

    def _together(self) -> Iterator[Advice]:
        """Yield the first of ever more changes, those that cost least first, with which the training fits."""
        changes: dict[str, Any] = {}
        for step in _steps(self.training):
            changes |= step
            if len(changes) > 1 and (found := self._fitting(changes)):
                yield found
                return
        for nodes in _more_nodes(self.training):
            if found := self._fitting({**changes, "sharding": "fsdp", "nodes": nodes}):
                yield found
                return


def gb(size: float) -> float:
    """Return bytes as GB of 2**30, with two digits behind the point."""
    return round(size / GIB, 2)


#: How a change is said.
_WORDS = {
    "sharding": "sharding {}",
    "optimizer": "optimizer {}",
    "gradient_checkpointing": "gradient checkpointing",
    "batch_size": "batch size {}",
    "sequence_length": "sequence length {}",
    "method": "method {}",
    "nodes": "{} nodes",
}


def _steps(training: Training) -> Iterator[dict[str, Any]]:
    """Yield changes of one thing, those that cost least first."""
    if training.accelerator and training.optimizer == "adamw_torch" and training.method == "full":
        yield {"optimizer": "adamw_torch_fused"}
    if training.replicas > 1 and training.sharding == "none":
        yield {"sharding": "fsdp"}
    if not training.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    if training.batch_size > 1:
        yield {"batch_size": 1}
    if training.sequence_length > 1024:
        yield {"sequence_length": training.sequence_length // 2}
    if training.method == "full":
        yield {"method": "lora"}
    if training.method != "qlora" and training.accelerator:
        yield {"method": "qlora"}


def _more_nodes(training: Training) -> Iterator[int]:
    """Yield twice as many nodes, and so on."""
    nodes = 2 * training.nodes
    while training.accelerator and nodes <= _MOST_NODES:
        yield nodes
        nodes *= 2
