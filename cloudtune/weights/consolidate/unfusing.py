"""Experts that transformers 5 keeps in one tensor, as a matrix for each of them, as most files of models have them.

``experts.gate_up_proj`` has, for every expert, the rows of ``gate_proj`` and behind them those of ``up_proj``;
``experts.down_proj`` those of ``down_proj``. Other names for these are ``w1``, ``w3`` and ``w2``. The source is
transformers' conversion_mapping.py: MergeModulelist along dimension 0, Concatenate along dimension 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cloudtune.weights.files.assembly import Buffer, Made, Piece, Span, length_of, stream
from cloudtune.weights.files.parts import Part
from cloudtune.weights.files.safetensors import size_bytes

_FUSED = re.compile(r"(?P<place>.*\.experts)\.(?P<kind>gate_up_proj|down_proj)")
#: Names of the projections in files, those of a fused tensor in the order of its rows.
_PROJECTIONS = {"gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")), "down_proj": (("down_proj",), ("w2",))}
#: How the module is called in files: as in transformers 5, or as Mixtral's and its kin.
_PLACES = (("", ""), (".mlp.experts", ".block_sparse_moe.experts"))


def unfused(tensors: Mapping[str, Part], wanted: Mapping[str, object]) -> dict[str, Part]:
    """Return tensors, those of all experts apart where the wanted names have them so."""
    found: dict[str, Part] = {}
    for name, part in tensors.items():
        match = _FUSED.fullmatch(name)
        names = _names(match, wanted) if match and name not in wanted and len(part.shape) == 3 else None
        if names is None or part.shape[1] % len(names[1]):
            found[name] = part
        else:
            found.update(_apart(part, *names))
    return found


def _names(match: re.Match[str], wanted: Mapping[str, object]) -> tuple[str, tuple[str, ...]] | None:
    """Return the module with the experts, and the projections of each, as files call them."""
    for old, new in _PLACES:
        place = match["place"].removesuffix(old) + new if match["place"].endswith(old) else None
        for projections in _PROJECTIONS[match["kind"]]:
            if place is not None and f"{place}.0.{projections[0]}.weight" in wanted:
                return place, projections
    return None


def _apart(part: Part, place: str, projections: tuple[str, ...]) -> Iterator[tuple[str, Part]]:
    experts, rows, columns = part.shape
    shape = (rows // len(projections), columns)
    length = size_bytes(part.dtype, shape)
    position = 0
    for expert in range(experts):
        for projection in projections:
            pieces = (*portion(part.pieces, position, length),)
            yield f"{place}.{expert}.{projection}.weight", Part(dtype=part.dtype, shape=shape, pieces=pieces)
            position += length


def portion(pieces: tuple[Piece, ...], begin: int, length: int) -> Iterator[Piece]:
    """Yield the bytes of pieces from a position on, as pieces."""
    position = 0
    for piece in pieces:
        size = length_of(piece)
        first, last = max(begin - position, 0), min(begin + length - position, size)
        position += size
        if first >= last:
            continue
        if (first, last) == (0, size):
            yield piece
        elif isinstance(piece, bytes):
            yield piece[first:last]
        elif isinstance(piece, Span):
            yield Span(reader=piece.reader, offset=piece.offset + first, length=last - first)
        else:
            yield _inner(piece, first, last)


def _inner(made: Made, first: int, last: int) -> Made:
    """Return a part of what is made: all of it is made then, so it should not be large."""

    def blocks() -> Iterator[Buffer]:
        position = 0
        for block in stream(made):
            view = memoryview(block)
            yield view[max(first - position, 0) : max(last - position, 0)]
            position += len(view)

    return Made(length=last - first, blocks=blocks)
