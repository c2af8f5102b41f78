"""What spreading a model over processes costs: layers gathered whole, buckets, and what a process needs in any case."""

from __future__ import annotations

from cloudtune.memory.architecture import Architecture
from cloudtune.memory.states import NF4, gradients, trained
from cloudtune.memory.training import Training, precision_of

GIB = 1024**3
#: What a process takes on an accelerator before it allocates anything: the CUDA context with the kernels in use, about
#: 400 MB since kernels are loaded lazily (https://github.com/pytorch/pytorch/issues/109888), and cuBLAS's workspaces.
CONTEXT = 0.5 * GIB
#: What NCCL takes beside it: with the context, 1.06 GB were seen on each of eight GPUs of a node
#: (https://github.com/NVIDIA/nccl/issues/1685). More communicators take more.
NCCL = 0.5 * GIB
#: What Python with torch, transformers, TRL and PEFT takes of the machine's memory (measured: docs/benchmarks.md).
RUNTIME = 0.5 * GIB
#: DeepSpeed's defaults, in elements: `reduce_bucket_size`, and `stage3_max_live_parameters`, the parameters of 16 bits
#: that stage 3 leaves gathered (https://www.deepspeed.ai/docs/config-json/).
ZERO_BUCKET = 5e8
ZERO_LIVE = 1e9


def gathered_forward(model: Architecture, training: Training) -> float:
    """Return what is gathered whole when the loss is computed: what lies around the layers, and one layer."""
    return _gathered(model, training, layers=1, end=False)


def gathered_backward(model: Architecture, training: Training, *, end: bool) -> float:
    """Return what is gathered whole in the backward pass, with gradients that wait to be spread.

    FSDP holds the layer at work and the next one, which it fetches ahead, and what lies around the layers all the time;
    a layer's gradients are there whole, and in the flat buffer in which they are reduced; those of the output
    projection and, at the end, of the embedding stay whole until the last ones are reduced.
    """
    total = _gathered(model, training, layers=2, end=end)
    if training.shards == 1 or not training.spreads_gradients or not training.is_fsdp or training.method != "full":
        return total
    size = precision_of(training).compute
    head = model.head or model.embeddings
    waiting = 2 * max(layer.parameters for layer in model.layers) + head
    waiting += model.embeddings if end and model.head else 0
    return total + waiting * size


def communication(model: Architecture, training: Training) -> float:
    """Return the buckets in which gradients travel.

    Data parallelism without sharding copies all gradients into buckets (DistributedDataParallel with its default
    ``gradient_as_bucket_view=False``); ZeRO's stages 1 and 2 reduce one bucket at a time.
    """
    if training.sharding == "none":
        return gradients(model, training) if training.replicas > 1 else 0.0
    if training.sharding in ("zero1", "zero2") and training.shards > 1:
        return min(trained(model, training), ZERO_BUCKET) * precision_of(training).gradient
    return 0.0


def overhead(training: Training) -> float:
    """Return what a process needs before it trains anything."""
    if not training.accelerator:
        return RUNTIME
    return CONTEXT + (NCCL if training.world > 1 else 0.0)


def _gathered(model: Architecture, training: Training, *, layers: int, end: bool) -> float:
    if training.shards == 1 or not training.spreads_weights:
        return 0.0
    size = precision_of(training).compute
    inside = NF4 if training.method == "qlora" else size
    around = model.parameters - model.in_layers
    if training.sharding == "fsdp-grad-op" and not end:
        # gathered once for both passes, and given back layer by layer
        return model.in_layers * inside + around * size
    if training.sharding == "zero3":
        return min(model.parameters, ZERO_LIVE) * inside
    largest = max(layer.parameters for layer in model.layers)
    return around * size + layers * largest * inside
