"""Matrices of a base with what adapters add to them, made block by block as they are written.

A block is small enough for the processor's caches, which is most of what makes this fast; buffers are used again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import attrs

from cloudtune import ranges
from cloudtune.errors import MissingExtra
from cloudtune.ranges import Reader
from cloudtune.weights import rounding
from cloudtune.weights.assembly import Buffer, Made
from cloudtune.weights.factors import AnyFactor, low_rank
from cloudtune.weights.lowrank import LowRank
from cloudtune.weights.rounding import STORED, Array, Doubtful, Floats, item_bytes

try:
    import numpy as np
    from numpy.typing import NDArray
except ImportError as error:
    raise MissingExtra("weights", "merging") from error

#: Bytes of a matrix that are one piece, and so a task for a thread.
_PIECE_BYTES = 16 << 20
#: Bytes of it that are read, changed and written at a time.
_CHUNK_BYTES = 2 << 20
#: Elements that are worked on at a time, and columns of them.
_TILE, _TILE_COLUMNS = 1 << 17, 2048
#: The same where every step of a sum is computed by itself, in doubles.
_SLOW_TILE, _SLOW_COLUMNS = 1 << 14, 4096


@attrs.frozen(kw_only=True, eq=False)
class Plane:
    """A matrix in a file, row by row; ``stored`` is its type there, ``dtype`` the one that it is rounded to."""

    reader: Reader
    offset: int
    rows: int
    columns: int
    stored: str
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as it is written."""
        return self.columns * item_bytes(self.dtype)

    def chunks(self, start: int, stop: int) -> Iterator[Array]:
        """Yield rows in portions, each good until the next is asked for."""
        row = self.columns * item_bytes(self.stored)
        step = max(1, _CHUNK_BYTES // max(1, row)) * row
        for block in ranges.blocks(self.reader, self.offset + start * row, (stop - start) * row, step):
            found = rounding.view(block, self.stored).reshape(-1, self.columns)
            if self.stored != self.dtype:
                found = rounding.narrow(rounding.widen(found, self.stored), self.dtype)
            yield found


def pieces_of(plane: Plane, blocks: Callable[[int, int], Iterator[Buffer]]) -> tuple[Made, ...]:
    """Return a matrix as pieces, each made by ``blocks(first row, last row + 1)``."""
    step = max(1, _PIECE_BYTES // max(1, plane.row_bytes))
    parts = [(start, min(start + step, plane.rows)) for start in range(0, plane.rows, step)]
    return tuple(Made(length=(b - a) * plane.row_bytes, blocks=partial(blocks, a, b)) for a, b in parts)


def added(plane: Plane, factors: Sequence[AnyFactor], *, in_type: bool = False) -> tuple[Made, ...]:
    """Return the pieces of a matrix with what adapters add to it, rounded once.

    With ``in_type`` what is added is rounded to the matrix's type first, as PEFT does for embeddings and experts.
    """
    return pieces_of(plane, partial(_added, plane, tuple(factors), in_type))


def _added(plane: Plane, factors: Sequence[AnyFactor], in_type: bool, start: int, stop: int) -> Iterator[Buffer]:
    delta = low_rank(factors, start, stop)
    kind = _Fast if plane.dtype in {"BF16", "F16"} and delta.finite else _Slow
    work = kind(plane, delta, in_type)
    first = 0
    for chunk in plane.chunks(start, stop):
        yield work.change(chunk, first).view(np.uint8).data
        first += len(chunk)


class _Fast:
    """Adds to 16-bit matrices by the fast product; elements that it leaves in doubt are computed again."""

    def __init__(self, plane: Plane, delta: LowRank, in_type: bool) -> None:
        self.dtype, self.delta, self.in_type = plane.dtype, delta, in_type
        self.columns = min(plane.columns, _TILE_COLUMNS)
        self.rows = max(1, _TILE // max(1, self.columns))
        size = self.rows * self.columns
        self.sums, self.wide = np.empty(size, np.float32), np.empty(size, np.float32)
        self.doubtful = Doubtful(size, plane.dtype)
        self.out = np.empty((0, 0), STORED[plane.dtype])

    def change(self, chunk: Array, first: int) -> Array:
        """Return rows of the matrix, the first of which has the number ``first``, with what is added to them."""
        if self.out.size < chunk.size:
            self.out = np.empty(chunk.shape, chunk.dtype)
        out = self.out[: len(chunk)]
        found = [self._tile(chunk, first, rows, columns, out) for rows, columns in _tiles(chunk, self)]
        rows, columns = (np.concatenate(positions) for positions in zip(*found, strict=True))
        sums = self.delta.at(rows + first, columns)
        if not self.in_type:
            sums += rounding.widen(chunk[rows, columns], self.dtype)
        out[rows, columns] = rounding.narrow(sums, self.dtype)
        if self.in_type:
            for place in _tiles(chunk, self):
                total = rounding.widen(chunk[place], self.dtype) + rounding.widen(out[place], self.dtype)
                rounding.narrow(total, self.dtype, out[place])
        return out

    def _tile(
        self, chunk: Array, first: int, rows: slice, columns: slice, out: Array
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Make a tile; return the rows and columns of the elements that are in doubt."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        sums = self.sums[: height * width].reshape(height, width)
        error = self.delta.fast(slice(rows.start + first, rows.stop + first), columns, sums)
        if not self.in_type:
            wide = self.wide[: height * width].reshape(height, width)
            np.add(sums, rounding.widen(chunk[rows, columns], self.dtype, wide), out=sums)
        positions = self.doubtful.round(sums, error, out[rows, columns])
        along = positions // width
        return along + rows.start, positions - along * width + columns.start


class _Slow:
    """Adds to any matrix, each element of what is added computed as torch does."""

    def __init__(self, plane: Plane, delta: LowRank, in_type: bool) -> None:
        self.dtype, self.delta, self.in_type = plane.dtype, delta, in_type
        self.columns = min(plane.columns, _SLOW_COLUMNS)
        self.rows = max(1, _SLOW_TILE // max(1, self.columns))

    def change(self, chunk: Array, first: int) -> Array:
        """Return rows of the matrix, the first of which has the number ``first``, with what is added to them."""
        out = np.empty(chunk.shape, chunk.dtype)
        for rows, columns in _tiles(chunk, self):
            delta = self.delta.block(slice(rows.start + first, rows.stop + first), columns)
            if self.in_type:
                delta = rounding.rounded(delta, self.dtype)
            out[rows, columns] = summed(chunk[rows, columns], delta, self.dtype)
        return out


def summed(stored: Array, delta: Floats, dtype: str) -> Array:
    """Return stored elements plus float32 values, as torch adds them in place."""
    if dtype == "F64":
        return stored + delta
    return rounding.narrow(rounding.widen(stored, dtype) + delta, dtype)


def _tiles(chunk: Array, work: _Fast | _Slow) -> Iterator[tuple[slice, slice]]:
    rows, columns = chunk.shape
    for row in range(0, rows, work.rows):
        for column in range(0, columns, work.columns):
            yield slice(row, min(row + work.rows, rows)), slice(column, min(column + work.columns, columns))
