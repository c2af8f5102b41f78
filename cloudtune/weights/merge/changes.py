"""Matrices of a base with what adapters add to them, made block by block as they are written.

A block is small enough for the processor's caches, which is most of what makes this fast; buffers are used again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from threading import local

import attrs

from cloudtune import ranges
from cloudtune.errors import MissingExtra
from cloudtune.ranges import Reader
from cloudtune.weights.files import rounding
from cloudtune.weights.files.assembly import Buffer, Made
from cloudtune.weights.files.rounding import Array, Doubtful, Floats, item_bytes
from cloudtune.weights.merge.factors import AnyFactor, low_rank
from cloudtune.weights.merge.lowrank import Indices, LowRank

try:
    import numpy as np
except ImportError as error:
    raise MissingExtra("weights", "merging") from error

#: Bytes of a matrix that are one piece, and so a task for a thread.
_PIECE_BYTES = 32 << 20
#: Bytes of it that are read, changed and written at a time.
_CHUNK_BYTES = 1 << 20
#: Elements that are worked on at a time, as many as a cache of 1 MB holds with all that is computed of them; more where
#: some need a second look, which costs the same for many; and columns of them.
_TILE, _LARGE_TILE, _TILE_COLUMNS = 24 * 2816, 60 * 2816, 2816
#: Chunks and tiles have a multiple of so many rows: kernels of matrix products take 12 at a time, and what is left over
#: costs them more.
_PANEL = 24


class _Scratch(local):
    """Buffers of a thread: fresh memory for every piece would cost more than what is computed in it."""

    def __init__(self) -> None:
        self.sums, self.wide = np.empty(_LARGE_TILE, np.float32), np.empty(_LARGE_TILE, np.float32)
        self.doubtful = Doubtful(_LARGE_TILE)
        self.spare: list[bytearray] = []

    @contextmanager
    def lent(self, size: int) -> Iterator[memoryview]:
        """Lend bytes to one iterator, which others of this thread do not get meanwhile."""
        found = self.spare.pop() if self.spare and len(self.spare[-1]) >= size else bytearray(max(size, _CHUNK_BYTES))
        try:
            yield memoryview(found)[:size]
        finally:
            self.spare.append(found)


_SCRATCH = _Scratch()
_NONE = np.empty(0, np.int64)


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
        step = panels(_CHUNK_BYTES // max(1, row)) * row
        for block in self._blocks(self.offset + start * row, (stop - start) * row, step):
            found = rounding.view(block, self.stored).reshape(-1, self.columns)
            if self.stored != self.dtype:
                found = rounding.narrow(rounding.widen(found, self.stored), self.dtype)
            yield found

    def _blocks(self, offset: int, length: int, step: int) -> Iterator[memoryview]:
        """Yield bytes of the file, of one on this machine through a buffer that is used again."""
        if self.reader.fileno() is None:
            yield from ranges.blocks(self.reader, offset, length, step)
            return
        with _SCRATCH.lent(min(step, length)) as buffer:
            for place in range(offset, offset + length, step):
                block = buffer[: min(step, offset + length - place)]
                self.reader.readinto(place, block)
                yield block


def panels(rows: int) -> int:
    """Return a number of rows rounded down to whole panels, at least one row."""
    return rows // _PANEL * _PANEL or max(1, rows)


def pieces_of(plane: Plane, blocks: Callable[[int, int], Iterator[Buffer]]) -> tuple[Made, ...]:
    """Return a matrix as pieces, each made by ``blocks(first row, last row + 1)``."""
    step = panels(_PIECE_BYTES // max(1, plane.row_bytes))
    parts = [(start, min(start + step, plane.rows)) for start in range(0, plane.rows, step)]
    return tuple(Made(length=(b - a) * plane.row_bytes, blocks=partial(blocks, a, b)) for a, b in parts)


def added(plane: Plane, factors: Sequence[AnyFactor], *, in_type: bool = False) -> tuple[Made, ...]:
    """Return the pieces of a matrix with what adapters add to it, rounded once.

    With ``in_type`` what is added is rounded to the matrix's type first, as PEFT does for embeddings and experts.
    """
    return pieces_of(plane, partial(_added, plane, tuple(factors), in_type))


def _added(plane: Plane, factors: Sequence[AnyFactor], in_type: bool, start: int, stop: int) -> Iterator[Buffer]:
    work = _Work(plane, low_rank(factors, start, stop), in_type)
    first = 0
    with _SCRATCH.lent(_CHUNK_BYTES) as buffer:
        for chunk in plane.chunks(start, stop):
            out = buffer[: chunk.nbytes] if chunk.nbytes <= len(buffer) else memoryview(bytearray(chunk.nbytes))
            work.change(chunk, first, rounding.view(out, plane.dtype).reshape(chunk.shape))
            yield out
            first += len(chunk)


class _Work:
    """Adds what adapters add, tile by tile."""

    def __init__(self, plane: Plane, delta: LowRank, in_type: bool) -> None:
        self.dtype, self.delta, self.in_type = plane.dtype, delta, in_type
        parts = -(-plane.columns // _TILE_COLUMNS)
        self.columns = max(1, -(-plane.columns // max(1, parts)))
        self.rows = panels(_TILE // self.columns)
        odd = delta.odd_columns(self.rows, self.columns)
        if odd is None or odd.size:
            self.rows = panels(_LARGE_TILE // self.columns)
        self.short = plane.dtype in {"BF16", "F16"} and delta.finite

    def change(self, chunk: Array, first: int, out: Array) -> None:
        """Make rows of the matrix, the first of which has the number ``first``, with what is added to them."""
        # NaN and infinity are what they are, as in torch
        with np.errstate(over="ignore", invalid="ignore"):
            doubts = [
                _places(
                    rows, columns, *self._tile(chunk[rows, columns], rows.start + first, columns, out[rows, columns])
                )
                for rows, columns in self._tiles(chunk)
            ]
        rows, columns = (np.concatenate(places) for places in zip(*doubts, strict=True))
        if rows.size:
            delta = self.delta.at(rows + first, columns)
            if self.in_type:
                delta = rounding.rounded(delta, self.dtype)
            out[rows, columns] = summed(chunk[rows, columns], delta, self.dtype)

    def _tiles(self, chunk: Array) -> Iterator[tuple[slice, slice]]:
        rows, columns = chunk.shape
        for row in range(0, rows, self.rows):
            for column in range(0, columns, self.columns):
                yield slice(row, min(row + self.rows, rows)), slice(column, min(column + self.columns, columns))

    def _tile(self, stored: Array, first: int, columns: slice, out: Array) -> tuple[Indices, Indices]:
        """Make a tile; return the rows and columns of elements that are in doubt."""
        rows, sums = slice(first, first + len(stored)), _shaped(_SCRATCH.sums, stored.shape)
        odd = self.delta.odd_columns(*stored.shape)
        if odd is None and self.short:
            return self._doubtful(stored, rows, columns, out)
        scratch = _shaped(_SCRATCH.wide, stored.shape)
        doubts = _NONE, _NONE
        if odd is not None and odd.size and self.short:
            self.delta.ordered(rows, columns, sums, scratch)
            doubts = self._doubtful_columns(stored, sums, rows, odd)
        else:
            self.delta.exact(rows, columns, sums, scratch)
        self._finish(stored, sums, out)
        return doubts

    def _finish(self, stored: Array, delta: Floats, out: Array) -> None:
        """Add what torch adds."""
        if self.in_type:
            delta = rounding.rounded(delta, self.dtype)
        if self.dtype == "F64":
            np.add(stored, delta, out=out)
            return
        wide = rounding.widen(stored, self.dtype, _shaped(_SCRATCH.wide, stored.shape))
        np.add(delta, wide, out=delta)
        rounding.narrow(delta, self.dtype, out, scratch=wide.view(np.uint32) if self.delta.finite else None)

    def _doubtful(self, stored: Array, rows: slice, columns: slice, out: Array) -> tuple[Indices, Indices]:
        """Make a tile by the fast product."""
        sums = _shaped(_SCRATCH.sums, stored.shape)
        error = self.delta.fast(rows, columns, sums)
        if not self.in_type:
            np.add(sums, rounding.widen(stored, self.dtype, _shaped(_SCRATCH.wide, stored.shape)), out=sums)
        positions = _SCRATCH.doubtful.round(sums, error, self.dtype, out)
        if self.in_type:
            out[...] = summed(stored, rounding.widen(out, self.dtype), self.dtype)
        return np.divmod(positions, stored.shape[1])

    def _doubtful_columns(self, stored: Array, sums: Floats, rows: slice, odd: Indices) -> tuple[Indices, Indices]:
        """Return what is in doubt in columns that the product adds up in another order."""
        some = sums.take(odd, axis=1)
        if not self.in_type:
            np.add(some, rounding.widen(stored.take(odd, axis=1), self.dtype), out=some)
        out = np.empty(some.shape, stored.dtype)
        positions = _SCRATCH.doubtful.round(some, self.delta.error(rows), self.dtype, out)
        along, across = np.divmod(positions, len(odd))
        return along, odd[across]


def _places(rows: slice, columns: slice, along: Indices, across: Indices) -> tuple[Indices, Indices]:
    """Return places in a tile as places in its chunk."""
    return along + rows.start, across + columns.start


def _shaped(buffer: Floats, shape: tuple[int, ...]) -> Floats:
    return buffer[: prod(shape)].reshape(shape)


def summed(stored: Array, delta: Floats, dtype: str) -> Array:
    """Return stored elements plus float32 values, as torch adds them in place."""
    if dtype == "F64":
        return stored + delta
    return rounding.narrow(rounding.widen(stored, dtype) + delta, dtype)
