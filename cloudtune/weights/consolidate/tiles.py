"""A tensor whose bytes lie in tiles: boxes that several ranks wrote, each row by row in a file of its own.

Tiles that are whole rows of the tensor, as FSDP writes them, become spans of their files. Where a row consists of
several tiles, as with tensor parallelism, blocks of rows are put together when they are written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, Literal

import attrs

from cloudtune.ranges import CHUNK_BYTES, Reader
from cloudtune.weights.files.assembly import Made, Piece, Span

#: Rows up to this size are put together as a whole; larger ones are looked into.
_ROW_BYTES = 256 << 10
#: Bytes that are described as one piece, so that threads may share a large tensor.
_PIECE_BYTES = 8 << 20
#: Formats of memory by the bytes of an item.
_FORMS: Final[dict[int, Literal["B", "H", "I", "Q"]]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


@attrs.frozen(kw_only=True, eq=False, slots=True)
class Tile:
    """A box of a tensor, by its lowest corner and its lengths; its bytes begin at ``offset`` of the reader."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    reader: Reader
    offset: int


@attrs.frozen(eq=False, slots=True)
class _Active:
    """A tile and the position where its part of what is looked at begins, in the file or in a row of the tile."""

    tile: Tile
    position: int


@attrs.frozen(eq=False, slots=True)
class Run:
    """Bytes of one tile in a row of several: where in the row, where in the tile's own row, and how many."""

    tile: int
    goal: int
    source: int
    length: int


def pieces_of(shape: Sequence[int], item_bytes: int, tiles: Sequence[Tile]) -> tuple[Piece, ...]:
    """Return the bytes of a tensor, row by row, from tiles that cover it exactly.

    Raises:
        ValueError: a part of the tensor is in no tile, or in two.
    """
    for tile in tiles:
        fits = len(tile.offsets) == len(tile.sizes) == len(shape)
        if not fits or any(a + n > length for a, n, length in zip(tile.offsets, tile.sizes, shape, strict=True)):
            raise ValueError(f"the part {_shown(tile)} lies outside its shape {[*shape]}")
    if not math.prod(shape):
        return ()
    active = [_Active(tile, tile.offset) for tile in tiles if math.prod(tile.sizes)]
    return (*_pieces(_Layout(tuple(shape), item_bytes), 0, active),)


class _Layout:
    """The shape of a tensor, and the bytes of one step along each dimension."""

    def __init__(self, shape: tuple[int, ...], item_bytes: int) -> None:
        self.shape = shape
        self.item_bytes = item_bytes
        self.row_bytes = [item_bytes * math.prod(shape[level + 1 :]) for level in range(len(shape))]

    def step(self, tile: Tile, level: int) -> int:
        """Return the bytes of one step along a dimension within a tile."""
        return self.item_bytes * math.prod(tile.sizes[level + 1 :])

    def slabs(self, level: int, active: Sequence[_Active]) -> Iterator[tuple[int, int, list[_Active]]]:
        """Yield the stretches of a dimension, in order, in which the same tiles lie; raises ValueError for a gap."""
        beginning: dict[int, list[_Active]] = {}
        cuts = {0, self.shape[level]}
        for one in active:
            begin, end = one.tile.offsets[level], one.tile.offsets[level] + one.tile.sizes[level]
            beginning.setdefault(begin, []).append(one)
            cuts |= {begin, end}
        order = sorted(cuts)
        here: list[_Active] = []
        for begin, end in pairwise(order):
            here = [one for one in here if one.tile.offsets[level] + one.tile.sizes[level] > begin]
            here += beginning.get(begin, [])
            if not here:
                raise ValueError(
                    f"a part of its shape {[*self.shape]} is missing: {begin} to {end} of dimension {level}"
                )
            yield begin, end, here

    def whole(self, tile: Tile, level: int) -> bool:
        """Return whether a tile has all of the tensor in the dimensions behind one."""
        return tile.sizes[level + 1 :] == self.shape[level + 1 :]

    def inside(self, one: _Active, level: int, row: int) -> _Active:
        """Return a tile's part of a row."""
        tile = one.tile
        return _Active(tile, one.position + (row - tile.offsets[level]) * self.step(tile, level))


def _pieces(layout: _Layout, level: int, active: Sequence[_Active]) -> Iterator[Piece]:
    if level == len(layout.shape):
        only = _only(active)
        yield Span(reader=only.tile.reader, offset=only.position, length=layout.item_bytes)
        return
    row_bytes = layout.row_bytes[level]
    for begin, end, here in layout.slabs(level, active):
        if layout.whole(here[0].tile, level):
            only = _only(here)
            start = layout.inside(only, level, begin).position
            yield Span(reader=only.tile.reader, offset=start, length=(end - begin) * row_bytes)
        elif row_bytes <= _ROW_BYTES:
            yield from _woven(layout, level, begin, end, here)
        else:
            for row in range(begin, end):
                yield from _pieces(layout, level + 1, [layout.inside(one, level, row) for one in here])


def _woven(layout: _Layout, level: int, begin: int, end: int, here: Sequence[_Active]) -> Iterator[Piece]:
    """Yield rows that are each put together from the same runs of several tiles."""
    row_bytes = layout.row_bytes[level]
    order = {id(one.tile): index for index, one in enumerate(here)}
    runs = list(_runs(layout, level + 1, [_Active(one.tile, 0) for one in here], 0, order))
    rows = max(1, _PIECE_BYTES // row_bytes)
    for first in range(begin, end, rows):
        count = min(rows, end - first)
        strands = [layout.inside(one, level, first) for one in here]
        weave = _Weave(strands, [layout.step(one.tile, level) for one in here], runs, row_bytes, count)
        yield Made(length=count * row_bytes, blocks=weave.blocks)


def _runs(layout: _Layout, level: int, active: Sequence[_Active], goal: int, order: dict[int, int]) -> Iterator[Run]:
    row_bytes = layout.row_bytes[level]
    for begin, end, here in layout.slabs(level, active):
        if layout.whole(here[0].tile, level):
            only = _only(here)
            source = layout.inside(only, level, begin).position
            yield Run(order[id(only.tile)], goal + begin * row_bytes, source, (end - begin) * row_bytes)
        else:
            for row in range(begin, end):
                parts = [layout.inside(one, level, row) for one in here]
                yield from _runs(layout, level + 1, parts, goal + row * row_bytes, order)


def _only(here: Sequence[_Active]) -> _Active:
    if len(here) > 1:
        raise ValueError(f"the parts {_shown(here[0].tile)} and {_shown(here[1].tile)} overlap")
    return here[0]


def _shown(tile: Tile) -> str:
    return f"{[*tile.sizes]} at {[*tile.offsets]}"


class _Weave:
    """Rows of a tensor, each of them put together from several tiles."""

    def __init__(
        self, strands: Sequence[_Active], steps: Sequence[int], runs: Sequence[Run], row_bytes: int, rows: int
    ) -> None:
        self.strands, self.steps, self.runs, self.row_bytes, self.rows = strands, steps, runs, row_bytes, rows

    def blocks(self) -> Iterator[memoryview]:
        """Yield the rows in blocks, in one buffer."""
        count = min(self.rows, max(1, CHUNK_BYTES // self.row_bytes))
        goal = memoryview(bytearray(count * self.row_bytes))
        sources = [memoryview(bytearray(count * step)) for step in self.steps]
        for first in range(0, self.rows, count):
            rows = min(count, self.rows - first)
            for strand, step, source in zip(self.strands, self.steps, sources, strict=True):
                strand.tile.reader.readinto(strand.position + first * step, source[: rows * step])
            for run in self.runs:
                weave(goal, self.row_bytes, sources[run.tile], self.steps[run.tile], run, rows)
            yield goal[: rows * self.row_bytes]


def weave(goal: memoryview, row: int, source: memoryview, step: int, run: Run, rows: int) -> None:
    """Copy the same run of each row: row by row, or column by column where there are fewer columns.

    Rows have ``row`` bytes in the goal, and ``step`` bytes in the source.
    """
    unit = math.gcd(8, row, step, run.goal, run.source, run.length)
    columns = run.length // unit
    if columns >= rows:
        for number in range(rows):
            to, of = number * row + run.goal, number * step + run.source
            goal[to : to + run.length] = source[of : of + run.length]
        return
    wide, narrow = goal[: rows * row].cast(_FORMS[unit]), source[: rows * step].cast(_FORMS[unit])
    for column in range(columns):
        wide[run.goal // unit + column :: row // unit] = narrow[run.source // unit + column :: step // unit]
