"""What is trained: everything, or the adapters of some modules and the modules that are trained whole beside them."""

from __future__ import annotations

from cloudtune.memory.architecture import Architecture, Linear
from cloudtune.memory.training import Training

_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
_HEADS = ("lm_head", "embed_out")


def is_adapted(linear: Linear, training: Training) -> bool:
    """Return whether a matrix gets an adapter: PEFT compares the ends of names."""
    if training.method == "full" or not linear.ranks:
        return False
    if training.targets == ("all-linear",):
        return True
    return any(linear.name == target or linear.name.endswith(f".{target}") for target in training.targets)


def adapter_parameters(model: Architecture, training: Training) -> int:
    """Return the parameters of all adapters: ``rank x (inputs + outputs)`` for each matrix that has one.

    >>> from cloudtune.memory.families import architecture
    >>> from cloudtune.memory.models import known_config
    >>> adapter_parameters(architecture(known_config("meta-llama/Llama-2-13b-hf")), Training(lora_rank=16))
    62586880
    """
    return sum(
        count * linear.copies * linear.ranks * training.lora_rank * (linear.inputs + linear.outputs)
        for count, linear in model.matrices
        if is_adapted(linear, training)
    )


def whole_parameters(model: Architecture, training: Training) -> int:
    """Return the parameters of the copies that ``saved`` modules get beside the frozen ones, to be trained whole."""
    if training.method == "full":
        return 0
    head = model.head or model.vocabulary * model.hidden
    total = 0
    for name in training.saved:
        if name in _HEADS:
            total += head
        elif name in _EMBEDDINGS:
            total += model.embeddings
        else:
            total += sum(
                count * linear.parameters
                for count, linear in model.matrices
                if linear.name == name or linear.name.endswith(f".{name}")
            )
    return total


def trained_parameters(model: Architecture, training: Training) -> int:
    """Return the parameters that the optimizer changes."""
    if training.method == "full":
        return model.parameters
    return adapter_parameters(model, training) + whole_parameters(model, training)


def trains_head(training: Training) -> bool:
    """Return whether the output projection itself learns."""
    return training.method == "full" or any(name in _HEADS for name in training.saved)
