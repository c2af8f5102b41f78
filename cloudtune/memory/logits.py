"""Logits and loss: the term that estimators of weights, gradients and states leave out."""

from __future__ import annotations

from cloudtune.memory.adapters import trains_head
from cloudtune.memory.architecture import Architecture
from cloudtune.memory.training import Training, precision_of

#: Tokens and entries of the vocabulary that TRL projects at once (trl/kernels/chunked_logprob.py, 1.16).
_TILE_TOKENS, _TILE_ENTRIES = 4096, 32_768
#: Bytes an element of a tile that TRL's code takes on its way without Triton, forward and backward (measured).
_TILE_WORK = (13, 29)


def forward_logits(model: Architecture, training: Training) -> float:
    """Return what the loss takes when it is computed, in bytes.

    Whole: the logits themselves, a copy of 32 bits and the logarithms of their softmax, which are kept:
    ``tokens x vocabulary x (2 + 4 + 4)``, or ``(4 + 4)`` where logits have 32 bits anyway. Chunked: a tile of them.
    """
    size = precision_of(training).compute
    if training.loss == "chunked":
        return _tile(model, training, _TILE_WORK[0])
    capped = 2 * size if model.capped else 0
    return _elements(model, training) * (size + 4 + (4 if size != 4 else 0) + capped)


def backward_logits(model: Architecture, training: Training) -> float:
    """Return what the loss takes when its backward pass begins, in bytes.

    Whole: the logarithms, the gradient that comes in and the one that goes out, ``tokens x vocabulary x (4 + 4 + 4)``.
    Chunked: a tile, and 32 bits for the gradients of the hidden states and, where it learns, of the output projection.
    """
    if training.loss == "chunked":
        accumulated: float = 4 * training.tokens * model.hidden
        if trains_head(training):
            accumulated += 4 * model.vocabulary * model.hidden / training.tensor_parallel
        return _tile(model, training, _TILE_WORK[1]) + accumulated
    capped = precision_of(training).compute if model.capped else 0
    return _elements(model, training) * (12 + capped)


def _elements(model: Architecture, training: Training) -> float:
    return training.tokens * model.vocabulary / training.tensor_parallel


def _tile(model: Architecture, training: Training, work: int) -> float:
    """Return what one tile takes: a buffer of the full width, and on a CPU what is computed from its part in use."""
    own = _TILE_ENTRIES * precision_of(training).compute
    on_the_way = 0 if training.accelerator else work * min(model.vocabulary, _TILE_ENTRIES)
    return min(training.tokens, _TILE_TOKENS) * (own + on_the_way)
