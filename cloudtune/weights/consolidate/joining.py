"""Slices of tensors of several files, joined along one dimension into whole tensors, described as pieces.

Along the first dimension a join is a list of spans: bytes are copied as they lie. Along a later one the rows of all
slices interleave, so they are made block by block, in memory that does not grow with the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod

import attrs

from cloudtune.ranges import FETCH_BYTES, Reader
from cloudtune.weights.consolidate.tiles import Run, weave
from cloudtune.weights.files.assembly import Made, Piece, Span
from cloudtune.weights.files.parts import Part
from cloudtune.weights.files.safetensors import size_bytes
from cloudtune.weights.files.torchfiles import TorchTensor

#: Bytes of a join that are one piece: a task for a thread.
_PIECE_BYTES = 8 << 20
#: Bytes of a join made at a time on this machine; elsewhere a request should be worth its while.
_BLOCK_BYTES = 1 << 20


@attrs.frozen(slots=True, eq=False)
class Slice:
    """The part of a tensor from index ``start`` to ``stop`` of the dimension along which slices are joined."""

    tensor: TorchTensor
    start: int
    stop: int


def whole(tensor: TorchTensor) -> Part:
    """Return a tensor as it is; raises ValueError if its bytes do not lie side by side."""
    return Part(dtype=tensor.dtype, shape=tensor.shape, pieces=(tensor.span(),))


def joined(slices: Sequence[Slice], dimension: int) -> Part:
    """Return the tensor that slices make, one after the other along a dimension.

    Raises:
        ValueError: they differ in type or in another dimension, or lie outside their tensors or not side by side.
    """
    first = slices[0].tensor
    if not 0 <= dimension < len(first.shape):
        raise ValueError(f"it has {len(first.shape)} dimensions, and was cut along dimension {dimension}")
    before, after = first.shape[:dimension], first.shape[dimension + 1 :]
    length = 0
    for one in slices:
        _check(one, first, dimension)
        length += one.stop - one.start
    shape = (*before, length, *after)
    step = size_bytes(first.dtype, after)
    merged = list(_merged(slices))
    if len(merged) == 1 and merged[0].stop - merged[0].start == merged[0].tensor.shape[dimension]:
        return whole(merged[0].tensor)
    if prod(before) == 1:
        pieces: tuple[Piece, ...] = tuple(_span(one, step) for one in merged if one.stop > one.start)
    else:
        pieces = _made(merged, dimension, step)
    return Part(dtype=first.dtype, shape=shape, pieces=pieces)


def _check(one: Slice, first: TorchTensor, dimension: int) -> None:
    tensor = one.tensor
    one.tensor.span()  # says that it is not contiguous, if so
    rest, wanted = [*tensor.shape], [*first.shape]
    if len(rest) != len(wanted) or tensor.dtype != first.dtype:
        raise ValueError(f"its parts are {first.dtype} {wanted} and {tensor.dtype} {rest}")
    if not 0 <= one.start <= one.stop <= rest[dimension]:
        raise ValueError(f"a part of it has shape {rest}, and {one.start} to {one.stop} of it are needed")
    rest[dimension] = wanted[dimension]
    if rest != wanted:
        raise ValueError(f"its parts have the shapes {wanted} and {[*tensor.shape]}")


def _merged(slices: Sequence[Slice]) -> Iterator[Slice]:
    """Yield the slices with neighbours of the same tensor made one."""
    last = slices[0]
    for one in slices[1:]:
        if one.tensor is last.tensor and one.start == last.stop:
            last = Slice(last.tensor, last.start, one.stop)
        else:
            yield last
            last = one
    yield last


def _span(one: Slice, step: int) -> Span:
    start = one.tensor.offset + one.start * step
    return Span(reader=one.tensor.reader, offset=start, length=(one.stop - one.start) * step)


@attrs.frozen(slots=True, eq=False)
class _Source:
    """One tensor as rows of bytes: where the first is, how long each is, and which parts of it go where in a row."""

    reader: Reader
    offset: int
    width: int
    runs: tuple[Run, ...]


def _made(slices: Sequence[Slice], dimension: int, step: int) -> tuple[Piece, ...]:
    runs: dict[int, list[Run]] = {}
    tensors: dict[int, TorchTensor] = {}
    width = 0
    for one in slices:
        length = (one.stop - one.start) * step
        tensors[id(one.tensor)] = one.tensor
        runs.setdefault(id(one.tensor), []).append(Run(0, width, one.start * step, length))
        width += length
    sources = tuple(
        _Source(tensor.reader, tensor.offset, tensor.shape[dimension] * step, tuple(runs[key]))
        for key, tensor in tensors.items()
    )
    rows = prod(slices[0].tensor.shape[:dimension])
    if not rows * width:
        return ()
    portion = max(1, _PIECE_BYTES // width)
    return tuple(
        Made(length=(stop - start) * width, blocks=partial(_blocks, sources, width, start, stop))
        for start in range(0, rows, portion)
        for stop in (min(start + portion, rows),)
    )


def _blocks(sources: Sequence[_Source], width: int, start: int, stop: int) -> Iterator[memoryview]:
    """Yield the rows of a join from one to another, in blocks that are good until the next is asked for."""
    here = all(source.reader.fileno() is not None for source in sources)
    count = min(stop - start, max(1, (_BLOCK_BYTES if here else FETCH_BYTES) // width))
    block = memoryview(bytearray(count * width))
    scratch = memoryview(bytearray(count * max(source.width for source in sources)))
    for row in range(start, stop, count):
        rows = min(count, stop - row)
        for source in sources:
            part = scratch[: rows * source.width]
            source.reader.readinto(source.offset + row * source.width, part)
            for run in source.runs:
                weave(block, width, part, source.width, run, rows)
        yield block[: rows * width]
