"""What merging makes of a base: every tensor as pieces, those that adapters change and those that stay as they are.

All checks are made before, so that nothing is written of what does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import prod

import attrs

from cloudtune import ranges
from cloudtune.errors import MissingExtra, UsageError
from cloudtune.weights.files import rounding
from cloudtune.weights.files.assembly import Buffer, Made, Piece, Span
from cloudtune.weights.files.parts import Part
from cloudtune.weights.files.rounding import STORED, item_bytes
from cloudtune.weights.files.safetensors import Tensor
from cloudtune.weights.merge import dora
from cloudtune.weights.merge.adapters import Adapter
from cloudtune.weights.merge.changes import Plane, added, pieces_of, summed
from cloudtune.weights.merge.factors import AnyFactor, Values
from cloudtune.weights.merge.gathering import Change, Gathering, Given
from cloudtune.weights.merge.modules import Base

try:
    import numpy as np
except ImportError as error:
    raise MissingExtra("weights", "merging") from error


@attrs.frozen(kw_only=True, eq=False)
class Merged:
    """All tensors of a merged model, the base's file of each, and whether its embeddings are no longer one tensor."""

    tensors: Mapping[str, Part]
    like: Mapping[str, str]
    untied: bool


def merged(base: Base, given: Sequence[Given]) -> Merged:
    """Return what the tensors of a base become.

    Raises:
        UsageError: an adapter does not fit the base, or two of them do not go together.
    """
    gathering = Gathering(base)
    for one in given:
        try:
            gathering.take(one)
        except ValueError as error:
            raise _misfit(one.adapter, base, str(error)) from error
    changes = gathering.changes
    _check(base, changes)
    untied = _part_embeddings(base, changes, tied=any(one.adapter.lora.tied for one in given))
    names = (*base.weights, *(name for name in changes if name not in base.weights))
    tensors = {name: _part(base, name, changes.get(name)) for name in names}
    # what the base has not gets a file of its own, after all others
    like = {name: base.weights.places[name].name if name in base.weights else "\uffff" for name in names}
    return Merged(tensors=tensors, like=like, untied=untied)


def _misfit(adapter: Adapter, base: Base, reason: str) -> UsageError:
    trained_on = adapter.trained_on
    hint = f"it was trained on {trained_on}" if trained_on else "name the base that it was trained on"
    return UsageError(f"adapter {adapter.source} does not fit the base {base.source}: {reason}", hint=hint)


def _check(base: Base, changes: Mapping[str, Change]) -> None:
    for name, change in changes.items():
        if base.tensor(change.origin).dtype not in STORED:
            hint = "merge into the model in 16 bits that it was made from"
            dtype = base.tensor(change.origin).dtype
            raise UsageError(f"{name} of {base.source} is {dtype}, which nothing can be added to", hint=hint)
        kinds = [bool(change.factors), bool(change.tokens), bool(change.biases)]
        if sum(kinds) > 1 or (change.whole is not None and change.tokens):
            raise UsageError(f"{name} is changed in two ways that do not go together", hint="merge one after the other")


def _part_embeddings(base: Base, changes: dict[str, Change], *, tied: bool) -> bool:
    """Give input and output embeddings that were one tensor a tensor each, if only one of them is changed.

    An adapter that says ``ensure_weight_tying`` changes both the same way.
    """
    if not base.tied or base.table is None:
        return False
    head = base.head_name()
    if tied and base.table in changes:
        changes.pop(head, None)
        return False
    for name in (base.table, head):
        change = changes.get(name)
        # PEFT saves embeddings with an adapter in some cases, trained or not
        if change is not None and not change.factors and change.whole is not None and _same(base, change.whole):
            del changes[name]
    table = changes.get(base.table)
    if head not in changes and (table is None or table.tokens):
        return False
    changes.setdefault(head, Change(origin=base.table)).origin = base.table
    return True


def _same(base: Base, values: Values) -> bool:
    """Return whether the base's embeddings have these very values."""
    assert base.table is not None
    tensor = base.tensor(base.table)
    (plane,), (other,) = _planes(base, tensor, None), _planes(base, tensor, values)
    # so few rows that each is one portion of either
    step = max(1, ranges.CHUNK_BYTES // max(1, plane.columns * 8))
    for row in range(0, plane.rows, step):
        end = min(row + step, plane.rows)
        if not all(map(np.array_equal, plane.chunks(row, end), other.chunks(row, end))):
            return False
    return True


def _part(base: Base, name: str, change: Change | None) -> Part:
    tensor = base.tensor(change.origin if change is not None else name)
    pieces: tuple[Piece, ...] = (base.weights.span(tensor.name),)
    if change is not None and tensor.length:
        pieces = _pieces(base, tensor, change)
    return Part(dtype=tensor.dtype, shape=tensor.shape, pieces=pieces)


def _pieces(base: Base, tensor: Tensor, change: Change) -> tuple[Piece, ...]:
    """Return what becomes of a tensor."""
    planes = _planes(base, tensor, change.whole)
    if change.magnitude is not None:
        return dora.scaled(planes[0], change.factors[0][0], change.magnitude, columns=change.by_columns)
    if change.factors:
        factors = (change.factors.get(number, ()) for number in range(len(planes)))
        pairs = zip(planes, factors, strict=True)
        return tuple(piece for plane, some in pairs for piece in _added(plane, some, in_type=change.in_type))
    if change.biases:
        return (Made(length=tensor.length, blocks=partial(_biased, planes[0], change.biases)),)
    if change.tokens:
        return tuple(_with_tokens(planes[0], change.tokens))
    return tuple(piece for plane in planes for piece in _as_it_is(plane))


def _planes(base: Base, tensor: Tensor, whole: Values | None) -> tuple[Plane, ...]:
    """Return the matrices of a tensor: one of each expert, or the only one."""
    stored = tensor.dtype if whole is None else whole.dtype
    reader = base.weights.places[tensor.name].reader if whole is None else whole.reader
    offset = tensor.offset if whole is None else whole.offset
    count = tensor.shape[0] if len(tensor.shape) == 3 else 1
    rows, columns = tensor.shape[-2:] if len(tensor.shape) in {2, 3} else (1, prod(tensor.shape))
    size = rows * columns * item_bytes(stored)
    return tuple(
        Plane(reader=reader, offset=offset + i * size, rows=rows, columns=columns, stored=stored, dtype=tensor.dtype)
        for i in range(count)
    )


def _added(plane: Plane, factors: Sequence[AnyFactor], *, in_type: bool) -> tuple[Piece, ...]:
    return added(plane, factors, in_type=in_type) if factors else _as_it_is(plane)


def _as_it_is(plane: Plane) -> tuple[Piece, ...]:
    if plane.stored == plane.dtype:
        return (Span(reader=plane.reader, offset=plane.offset, length=plane.rows * plane.row_bytes),)
    return pieces_of(plane, partial(_converted, plane))


def _converted(plane: Plane, start: int, stop: int) -> Iterator[Buffer]:
    for chunk in plane.chunks(start, stop):
        yield chunk.view(np.uint8).data


def _biased(plane: Plane, biases: Sequence[tuple[Values, float]]) -> Iterator[Buffer]:
    total = np.zeros((1, plane.columns), np.float32)
    for values, scale in biases:
        total += values.rows() * np.float32(scale)
    for chunk in plane.chunks(0, 1):
        yield summed(chunk, total, plane.dtype).view(np.uint8).data


def _with_tokens(plane: Plane, tokens: Mapping[int, tuple[Values, int]]) -> Iterator[Piece]:
    """Yield a matrix with some of its rows replaced."""
    position, end = plane.offset, plane.offset + plane.rows * plane.row_bytes
    for index in sorted(tokens):
        place = plane.offset + index * plane.row_bytes
        if place > position:
            yield Span(reader=plane.reader, offset=position, length=place - position)
        values, row = tokens[index]
        yield rounding.narrow(values.rows(row, row + 1), plane.dtype).tobytes()
        position = place + plane.row_bytes
    if end > position:
        yield Span(reader=plane.reader, offset=position, length=end - position)
