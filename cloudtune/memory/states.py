"""States: weights, gradients and what the optimizer keeps, in bytes of one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cloudtune.errors import UsageError
from cloudtune.memory.adapters import adapter_parameters, trained_parameters, whole_parameters
from cloudtune.memory.architecture import Architecture
from cloudtune.memory.training import Training, precision_of

#: Bytes a weight of NF4 with double quantization takes: 4 bits, a scale of 8 bits for every 64 weights, and one of 32
#: bits for every 256 of those (bitsandbytes' block sizes; QLoRA, arXiv 2305.14314, section 3).
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
#: bitsandbytes keeps a scale of 32 bits for every 256 elements of an optimizer's 8-bit state.
_8_BITS = 1 + 4 / 256


class Optimizer(NamedTuple):
    """What an optimizer keeps: ``moments`` numbers a parameter, of ``size`` bytes each (None: as the parameter's).

    ``listed`` says that a step makes one more number of every parameter on its way, as PyTorch's multi-tensor code does
    on accelerators; ``paged`` that states move to the machine's memory when the accelerator's is short; ``factored``
    that a matrix has a row and a column of 32 bits in place of moments.
    """

    moments: int = 2
    size: float | None = None
    listed: bool = False
    paged: bool = False
    factored: bool = False


#: By the name that transformers gives it.
OPTIMIZERS: Mapping[str, Optimizer] = {
    "adamw_torch": Optimizer(listed=True),
    "adamw_torch_fused": Optimizer(),
    "adamw_apex_fused": Optimizer(),
    "adamw_bnb_8bit": Optimizer(size=_8_BITS),
    "adamw_8bit": Optimizer(size=_8_BITS),
    "paged_adamw": Optimizer(size=4, paged=True),
    "paged_adamw_32bit": Optimizer(size=4, paged=True),
    "paged_adamw_8bit": Optimizer(size=_8_BITS, paged=True),
    "lion": Optimizer(moments=1, size=4),
    "lion_32bit": Optimizer(moments=1, size=4),
    "lion_8bit": Optimizer(moments=1, size=_8_BITS),
    "paged_lion_32bit": Optimizer(moments=1, size=4, paged=True),
    "paged_lion_8bit": Optimizer(moments=1, size=_8_BITS, paged=True),
    "adafactor": Optimizer(factored=True),
    "adagrad": Optimizer(moments=1),
    "rmsprop": Optimizer(moments=1),
    "sgd": Optimizer(moments=0),
}


def optimizer_of(training: Training) -> Optimizer:
    """Return what is known of a training's optimizer.

    Raises:
        UsageError: nothing is known of it.
    """
    known = OPTIMIZERS.get(training.optimizer)
    if known is None:
        raise UsageError(
            f"nothing is known of the optimizer {training.optimizer!r}",
            hint=f"known are {', '.join(sorted(OPTIMIZERS))}",
        )
    return known


def weights(model: Architecture, training: Training) -> float:
    """Return the bytes of the weights, frozen and trained, that a process keeps all the time.

    Full: ``parameters x weight``. LoRA: the same for the frozen base, and ``adapters x adapter``. QLoRA: 0.516 bytes
    for every weight of the layers' linear modules, 2 for all others. Divided by the processes that share them.
    """
    precision = precision_of(training)
    quantized = 0.0
    if training.method == "qlora":
        quantized = in_stage(model, training, _quantized)
    total = (in_stage(model, training, lambda one: one.parameters) - quantized) * precision.weight + quantized * NF4
    if training.method != "full":
        total += in_stage(model, training, lambda one: adapter_parameters(one, training)) * precision.adapter
        total += whole_parameters(model, training) * precision.adapter
    return total / (training.shards if training.spreads_weights else 1)


def gradients(model: Architecture, training: Training) -> float:
    """Return the bytes of all gradients: ``trained x gradient``, divided where they are spread."""
    return trained(model, training) * precision_of(training).gradient / gradient_shards(training)


def optimizer_states(model: Architecture, training: Training) -> float:
    """Return the bytes of the optimizer's states on the accelerator.

    ``trained x moments x size``: Adam's two moments take 8 bytes a parameter beside weights of 32 bits and 4 beside
    those of 16; ZeRO adds a master copy of 32 bits and keeps moments of 32 (arXiv 1910.02054, section 3: 12 bytes).
    Adafactor keeps a row and a column of every matrix. What is paged counts as nothing, for it can go elsewhere.
    """
    optimizer, precision = optimizer_of(training), precision_of(training)
    master = training.is_zero and training.dtype == "mixed"
    size = optimizer.size or (4 if master else state_size(training))
    count = trained(model, training)
    if optimizer.factored:
        states = 4 * _factors(model, training)
    else:
        states = 0.0 if optimizer.paged else count * optimizer.moments * size
    if master and precision.weight == 2:
        states += 4 * count
    return states / training.shards


def step_work(model: Architecture, training: Training) -> float:
    """Return what the optimizer's step takes on its way.

    On accelerators PyTorch's AdamW roots the second moments of all parameters at once (``_foreach_sqrt`` of
    torch/optim/adam.py); on a CPU, and in fused kernels, tensors come one by one: two of the largest one's size.
    """
    optimizer = optimizer_of(training)
    size = state_size(training)
    if optimizer.listed and training.accelerator:
        return trained(model, training) * size / training.shards
    return 0.0 if training.accelerator or not optimizer.moments else 2 * _largest(model, training) * size


def state_size(training: Training) -> int:
    """Return the bytes of a trained parameter, which PyTorch's optimizers use for their states, too."""
    precision = precision_of(training)
    return precision.weight if training.method == "full" else precision.adapter


def trained(model: Architecture, training: Training) -> float:
    """Return the parameters that a process trains, were nothing spread."""
    return in_stage(model, training, lambda one: trained_parameters(one, training))


def gradient_shards(training: Training) -> int:
    """Return among how many processes gradients are spread."""
    return training.shards if training.spreads_gradients else 1


def in_stage(model: Architecture, training: Training, count: Callable[[Architecture], float]) -> float:
    """Return a count of parameters for one process of a tensor- and pipeline-parallel model.

    Matrices are cut in as many parts as tensor parallelism has processes, norms are few enough not to matter. Of a
    pipeline's stages the one with the output projection is the largest.
    """
    stages = training.pipeline_parallel
    if stages > 1:
        layers = tuple(layer._replace(number=-(-layer.number // stages)) for layer in model.layers)
        model = model._replace(layers=layers, embeddings=0, head=model.head or model.embeddings)
    return count(model) / training.tensor_parallel


def _quantized(model: Architecture) -> int:
    return sum(count * matrix.weights for count, matrix in model.matrices if matrix.module)


def _factors(model: Architecture, training: Training) -> float:
    """Return the rows and columns of all trained matrices."""
    rank = training.lora_rank
    if training.method != "full":
        return sum(
            count * matrix.copies * (matrix.inputs + 2 * rank + matrix.outputs) for count, matrix in model.matrices
        )
    sides = sum(count * matrix.copies * (matrix.inputs + matrix.outputs) for count, matrix in model.matrices)
    tables = (model.vocabulary + model.hidden) * (1 if model.tied else 2)
    return sides + tables + sum(layer.number * layer.others for layer in model.layers)


def _largest(model: Architecture, training: Training) -> float:
    """Return the elements of the largest trained tensor."""
    if training.method != "full":
        widest = max(max(matrix.inputs, matrix.outputs) * matrix.copies for _, matrix in model.matrices)
        return training.lora_rank * widest
    return max(model.vocabulary * model.hidden, *(matrix.weights for _, matrix in model.matrices))
