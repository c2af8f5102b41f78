"""Activations: what the layers of a model keep between their forward and their backward pass."""

from __future__ import annotations

from typing import NamedTuple

from cloudtune.memory.adapters import is_adapted
from cloudtune.memory.architecture import Architecture, Layer, Linear
from cloudtune.memory.tape import Tape, Tensor
from cloudtune.memory.training import Precision, Training, precision_of

#: What GPT-2 drops out, in training, of the results of a layer's two parts.
_DROPOUT = 0.1


class Kept(NamedTuple):
    """What one layer keeps, in bytes: ``saved`` for its backward pass, with ``casts``, autocast's copies of weights.

    ``entry`` is its hidden state alone, which is all that a checkpointed layer keeps; ``working`` what its backward
    pass holds at once beside what was saved: the gradients of its widest tensors.
    """

    saved: float = 0.0
    casts: float = 0.0
    entry: float = 0.0
    working: float = 0.0


class Activations(NamedTuple):
    """Activations of one process, in bytes.

    ``held`` is what all layers keep when the backward pass begins, ``layer`` what comes on top of it in the backward
    pass of one: the recomputed layer if there is checkpointing, and gradients. ``last`` is the same when all other
    layers are done, with what that layer had kept. ``casts`` are the copies that autocast holds of all weights until
    the loss is computed, as far as they are not in ``held``.
    """

    held: float
    layer: float
    last: float
    casts: float


def activations(model: Architecture, training: Training) -> Activations:
    """Return the activations of a training.

    With checkpointing a layer keeps its hidden state, ``tokens x hidden``, and is computed again in the backward pass,
    one at a time; without, all layers keep what their operations save. A stage of a pipeline has its share of the
    layers, and as many micro-batches under way as there are stages.
    """
    precision = precision_of(training)
    kept = [(layer.number, kept_by(layer, training, precision)) for layer in model.layers]
    outside = training.tokens * _outside(model, training, precision)
    if precision.autocast and precision.used != precision.compute:
        outside += model.vocabulary * model.hidden * precision.compute / training.tensor_parallel
    casts = sum(count * one.casts for count, one in kept) / training.pipeline_parallel
    if training.gradient_checkpointing:
        held = outside + sum(count * one.entry for count, one in kept)
        layer = max(one.saved + one.working for _, one in kept)
        return Activations(held=held, layer=layer, last=layer + max(one.entry for _, one in kept), casts=casts)
    held = outside + sum(count * one.saved for count, one in kept)
    last = max(one.saved + one.working for _, one in kept)
    return Activations(held=held, layer=max(one.working for _, one in kept), last=last, casts=0.0)


def kept_by(layer: Layer, training: Training, precision: Precision) -> Kept:
    """Return what one layer keeps; a vision layer in which nothing learns keeps nothing."""
    learns = training.method == "full" or any(is_adapted(linear, training) for linear in layer.linears)
    if layer.tokens and not learns:
        return Kept()
    tape = Tape(training, precision)
    _forward(tape, layer)
    tokens = training.batch_size * (layer.tokens or training.sequence_length)
    return Kept(
        saved=tokens * tape.token_bytes + tape.cast_bytes + tape.sum_bytes,
        casts=tape.cast_bytes,
        entry=tokens * layer.hidden * precision.stream,
        working=tokens * _working(layer, tape, precision),
    )


def _outside(model: Architecture, training: Training, precision: Precision) -> float:
    """Return what is kept around the layers, in bytes a token: ids, the last norm, what the output projection takes."""
    tape = Tape(training, precision)
    normed = tape.norm(Tensor(model.hidden, precision.stream), model.layers[0].norm)
    if training.method == "full" or training.loss == "chunked":
        tape.keep(normed if normed.size == precision.compute else Tensor(model.hidden, precision.compute))
    return tape.token_bytes + 3 * 8  # ids, labels and positions are 64-bit integers


def _working(layer: Layer, tape: Tape, precision: Precision) -> float:
    """Return what the backward pass holds at once, in bytes a token: where it is widest, beside the hidden state's.

    That is the feed-forward part, where two gradients of its width exist at once, or attention that is written out,
    with the gradient of its scores at 32 bits and at the operands' precision.
    """
    feed, attention = layer.feed_forward, layer.attention
    width = 2 * feed.width * (feed.active or 1) * precision.compute
    if tape.kernel(attention) != "fused":
        pairs = attention.heads * (attention.context or tape.training.sequence_length)
        width = max(width, pairs * (4 + precision.compute))
    return width / tape.training.tensor_parallel + 2 * layer.hidden * precision.stream


def _forward(tape: Tape, layer: Layer) -> None:
    """Run one layer over the tape; its matrices are in the order in which they are used."""
    hidden = Tensor(layer.hidden, tape.precision.stream)
    own = [linear for linear in layer.linears if not linear.name.startswith("mlp.")]
    rest = [linear for linear in layer.linears if linear.name.startswith("mlp.") and linear.module]
    normed = tape.norm(hidden, layer.norm)
    attended = tape.linear(_attend(tape, layer, normed, own[:-1]), own[-1], whole=True)
    _after(tape, layer, attended)
    second = normed
    if layer.norms >= 2:
        second = tape.norm(hidden if layer.parallel else Tensor(hidden.width, hidden.size), layer.norm)
    if layer.feed_forward.experts:
        plain = [linear for linear in layer.linears if linear.name.startswith("mlp.") and not linear.module]
        tape.experts(second, layer.feed_forward, plain)
    if rest and (not layer.feed_forward.experts or layer.feed_forward.shared):
        down = 2 if layer.feed_forward.gated and not _is_joint(layer) else 1
        _after(tape, layer, tape.linear(_feed(tape, layer, second, rest), rest[down], whole=True))
        for gate in rest[down + 1 :]:
            # the expert that all tokens go through is weighted by a gate of its own
            tape.multiply(tape.linear(second, gate, whole=True), Tensor(layer.hidden, tape.precision.compute))


def _after(tape: Tape, layer: Layer, result: Tensor) -> None:
    """Do what is done to the result of one of the two parts before it joins the hidden state."""
    if layer.norms == 4:
        tape.norm(result, layer.norm)
    if layer.dropout:
        tape.dropout(result, _DROPOUT)


def _attend(tape: Tape, layer: Layer, x: Tensor, linears: list[Linear]) -> Tensor:
    shape = layer.attention
    if shape.fused:
        (joint,) = linears
        # queries, keys and values are views of one tensor, which stays as a whole as long as one of them does
        fused = tape.linear(x, joint)
        q = k = v = fused
        if shape.rotary:
            part = shape.query_width / joint.outputs
            q, k = (Tensor(fused.width * share, fused.size) for share in (part, (1 - part) / 2))
    else:
        # cross-attention makes keys and values of the image's tokens
        longer = shape.context / tape.training.sequence_length if shape.context else 1
        context = Tensor(x.width * longer, x.size) if shape.context else x
        q = tape.linear(x, linears[0])
        k, v = (tape.linear(context, linear) for linear in linears[1:])
        if shape.context:
            k, v = (Tensor(tensor.width * longer, tensor.size) for tensor in (k, v))
    if shape.normalized:
        q, k = tape.norm(q, layer.norm, groups=shape.heads), tape.norm(k, layer.norm, groups=shape.kv_heads)
    if shape.rotary:
        q, k = tape.rotated(q), tape.rotated(k)
    return tape.attention(q, k, v, shape)


def _is_joint(layer: Layer) -> bool:
    """Return whether gate and up are one matrix, those of experts apart."""
    return layer.feed_forward.fused and not layer.feed_forward.experts


def _feed(tape: Tape, layer: Layer, x: Tensor, linears: list[Linear]) -> Tensor:
    """Run the feed-forward part up to its last matrix: dense, or the expert that all tokens go through."""
    feed = layer.feed_forward
    if not feed.gated:
        return tape.activation(tape.linear(x, linears[0]), feed.activation)
    if _is_joint(layer):
        both = tape.linear(x, linears[0])
        half = Tensor(both.width / 2, both.size)  # gate and up are views of one tensor
        tape.keep(both, half)
        return Tensor(half.width, half.size)
    gate, up = (tape.linear(x, linear) for linear in linears[:2])
    return tape.multiply(tape.activation(gate, feed.activation), up)
