"""Tensors in another precision: made block by block when they are written, each element rounded once."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from cloudtune.weights.files.assembly import Made, Piece, Span, length_of, stream
from cloudtune.weights.files.parts import Part
from cloudtune.weights.files.rounding import STORED, Array, narrow, view, widen
from cloudtune.weights.files.safetensors import size_bytes

#: Bytes of one made piece, so that threads may share a large tensor.
_PIECE_BYTES = 8 << 20


def cast(part: Part, dtype: str) -> Part:
    """Return a tensor of floating-point numbers in another precision; others are returned as they are."""
    if part.dtype == dtype or part.dtype not in STORED:
        return part
    pieces = tuple(_made(piece, part.dtype, dtype) for whole in part.pieces for piece in _portions(whole))
    return attrs.evolve(part, dtype=dtype, pieces=pieces)


def _portions(piece: Piece) -> Iterator[Piece]:
    if not isinstance(piece, Span):
        yield piece
        return
    for start in range(0, piece.length, _PIECE_BYTES):
        length = min(_PIECE_BYTES, piece.length - start)
        yield attrs.evolve(piece, offset=piece.offset + start, length=length)


def _made(piece: Piece, before: str, after: str) -> Made:
    def blocks() -> Iterator[memoryview]:
        for block in stream(piece):
            # blocks are whole elements, for they are whole rows, or a multiple of any element's size
            elements: Array = narrow(widen(view(block, before), before), after)
            yield elements.data.cast("B")

    return Made(length=length_of(piece) * size_bytes(after, (1,)) // size_bytes(before, (1,)), blocks=blocks)
