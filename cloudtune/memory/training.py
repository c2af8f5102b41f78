"""How a model is trained, as far as memory goes, and the precisions that follow from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import attrs

from cloudtune.errors import UsageError

METHODS = ("full", "lora", "qlora")
#: ``mixed`` computes in bf16 on weights of 32 bits (full) or beside adapters of 32 bits (LoRA), as recipe sft does.
DTYPES = ("mixed", "bf16", "fp32")
#: How processes share the states: each has all (none), or optimizer (1), gradients (2) and weights (3) are spread.
SHARDINGS = ("none", "zero1", "zero2", "zero3", "fsdp", "fsdp-hybrid", "fsdp-grad-op")
LOSSES = ("chunked", "whole")


def _one_of(*choices: str) -> Any:
    def check(_: object, attribute: attrs.Attribute[str], value: str) -> None:
        if value not in choices:
            raise UsageError(f"{attribute.name.replace('_', ' ')} {value!r}: expected {', '.join(choices)}")

    return check


def _at_least(least: int) -> Any:
    def check(_: object, attribute: attrs.Attribute[int], value: int) -> None:
        if value < least:
            raise UsageError(f"{attribute.name.replace('_', ' ')} must be at least {least}, not {value}")

    return check


@attrs.frozen(kw_only=True)
class Training:
    """How a model is trained; the defaults are those of recipe ``sft`` on an accelerator.

    ``batch_size`` is the rows of one process and forward pass, each ``sequence_length`` tokens long, ``accumulation``
    the forward passes of a step. ``optimizer`` is a name of transformers. ``targets`` are the modules with an adapter,
    ``("all-linear",)`` or ends of their names; ``saved`` those that are trained whole beside it. ``loss``: TRL computes
    it in chunks, most scripts over ``whole`` logits. ``tensor_parallel`` x ``pipeline_parallel`` processes hold one
    copy of the model. ``accelerator`` is False for training on a CPU.
    """

    method: str = attrs.field(default="lora", validator=_one_of(*METHODS))
    dtype: str = attrs.field(default="mixed", validator=_one_of(*DTYPES))
    sequence_length: int = attrs.field(default=1024, validator=_at_least(1))
    batch_size: int = attrs.field(default=4, validator=_at_least(1))
    gradient_checkpointing: bool = True
    fused_attention: bool = True
    optimizer: str = "adamw_torch"
    sharding: str = attrs.field(default="none", validator=_one_of(*SHARDINGS))
    nodes: int = attrs.field(default=1, validator=_at_least(1))
    processes_per_node: int = attrs.field(default=1, validator=_at_least(1))
    lora_rank: int = attrs.field(default=16, validator=_at_least(1))
    lora_dropout: float = 0.05
    targets: tuple[str, ...] = ("all-linear",)
    saved: tuple[str, ...] = ()
    loss: str = attrs.field(default="chunked", validator=_one_of(*LOSSES))
    accumulation: int = attrs.field(default=1, validator=_at_least(1))
    tensor_parallel: int = attrs.field(default=1, validator=_at_least(1))
    pipeline_parallel: int = attrs.field(default=1, validator=_at_least(1))
    accelerator: bool = True

    @property
    def world(self) -> int:
        """All processes."""
        return self.nodes * self.processes_per_node

    @property
    def replicas(self) -> int:
        """Copies of the model, were none of them spread."""
        return max(1, self.world // (self.tensor_parallel * self.pipeline_parallel))

    @property
    def shards(self) -> int:
        """The processes that share one copy of what is spread: a node's in hybrid sharding, else all."""
        if self.sharding == "none":
            return 1
        return min(self.processes_per_node, self.replicas) if self.sharding == "fsdp-hybrid" else self.replicas

    @property
    def tokens(self) -> int:
        """Tokens of one forward pass of one process."""
        return self.batch_size * self.sequence_length

    @property
    def spreads_weights(self) -> bool:
        """Whether a process keeps only its share of the weights."""
        return self.sharding == "zero3" or self.is_fsdp

    @property
    def spreads_gradients(self) -> bool:
        """Whether a process keeps only its share of the gradients."""
        return self.sharding in ("zero2", "zero3") or self.is_fsdp

    @property
    def is_fsdp(self) -> bool:
        """Whether PyTorch's FSDP does the spreading."""
        return self.sharding.startswith("fsdp")

    @property
    def is_zero(self) -> bool:
        """Whether DeepSpeed's ZeRO does the spreading."""
        return self.sharding.startswith("zero")


class Precision(NamedTuple):
    """Bytes an element, by what it is.

    ``weight``: base weights as they are kept; ``used``: as the layers see them, before autocast; ``stream``: the hidden
    states between layers; ``compute``: matrix products; ``adapter``: LoRA's matrices; ``gradient``: gradients as they
    are kept. ``autocast``: operations cast their operands to ``compute`` themselves.
    """

    weight: int
    used: int
    stream: int
    compute: int
    adapter: int
    gradient: int
    autocast: bool


def precision_of(training: Training) -> Precision:
    """Return the precisions of a training.

    Full, ``mixed``: weights, gradients and optimizer states of 32 bits; PyTorch's autocast makes a copy of 16 bits of
    every weight for as long as the graph needs it, and hidden states stay at 32 bits. FSDP casts what it gathers, so
    layers see 16 bits only; ZeRO keeps all that is trained at 16 bits, and a master copy with the optimizer.
    """
    if training.dtype == "fp32":
        return Precision(weight=4, used=4, stream=4, compute=4, adapter=4, gradient=4, autocast=False)
    half = Precision(weight=2, used=2, stream=2, compute=2, adapter=2, gradient=2, autocast=False)
    if training.dtype == "bf16" or training.is_zero:
        return half
    if training.method == "full":
        if training.is_fsdp and training.shards > 1:
            return half._replace(weight=4, gradient=4, autocast=True)
        return half._replace(weight=4, used=4, stream=4, gradient=4, autocast=True)
    # TRL casts the adapters of a quantized model to 16 bits, PEFT holds others at 32
    adapter = 2 if training.method == "qlora" else 4
    return half._replace(adapter=adapter, gradient=adapter, autocast=True)
