"""Tensors are put together from tiles of any shape, exactly, or refused."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.ranges import Reader
from cloudtune.weights.consolidate import tiles
from cloudtune.weights.consolidate.tiles import Tile, pieces_of
from cloudtune.weights.files.assembly import Span, stream

Box = tuple[tuple[int, ...], tuple[int, ...]]


def cut(box: Box, depth: int, draw: random.Random) -> Iterator[Box]:
    """Yield boxes that cover one, cut by one dimension after another."""
    offsets, sizes = box
    if not depth or not sizes or draw.random() < 0.2:
        yield box
        return
    dim = draw.randrange(len(sizes))
    places = sorted({0, sizes[dim], *(draw.randint(0, sizes[dim]) for _ in range(draw.randint(0, 3)))})
    for begin, end in pairwise(places):
        inner = (
            tuple(at + begin if place == dim else at for place, at in enumerate(offsets)),
            tuple(end - begin if place == dim else n for place, n in enumerate(sizes)),
        )
        yield from cut(inner, depth - 1, draw)


def laid(folder: Path, array: np.ndarray, boxes: list[Box]) -> list[Tile]:
    """Write every box of an array to one file, and return where they are."""
    file, data, found = folder / "tiles", b"", []
    for offsets, sizes in boxes:
        found.append((offsets, sizes, len(data)))
        data += array[tuple(slice(at, at + n) for at, n in zip(offsets, sizes, strict=True))].tobytes()
    file.write_bytes(data)
    reader = Reader(str(file))
    return [Tile(offsets=offsets, sizes=sizes, reader=reader, offset=at) for offsets, sizes, at in found]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_tiles_make_the_tensor(tmp_path_factory, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 9), max_size=4), label="shape"))
    kind = data.draw(st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64]), label="kind")
    draw = random.Random(data.draw(st.integers(0, 2**32), label="cuts"))
    array = np.random.default_rng(1).integers(0, 255, shape).astype(kind)
    boxes = list(cut(((0,) * len(shape), shape), 4, draw))
    draw.shuffle(boxes)
    with pytest.MonkeyPatch.context() as patch:
        # small tensors take all ways that large ones do
        patch.setattr(tiles, "_ROW_BYTES", data.draw(st.sampled_from([0, 8, 64, 1 << 18]), label="row"))
        patch.setattr(tiles, "_PIECE_BYTES", data.draw(st.sampled_from([1, 40, 8 << 20]), label="piece"))
        patch.setattr(tiles, "CHUNK_BYTES", data.draw(st.sampled_from([1, 30, 1 << 20]), label="chunk"))
        found = laid(tmp_path_factory.mktemp("tiles"), array, boxes)
        pieces = pieces_of(shape, array.itemsize, found)
        made = b"".join(bytes(block) for piece in pieces for block in stream(piece))
        assert made == array.tobytes()
        real = [one for one in found if np.prod(one.sizes)]
        if len(real) > 1:
            with pytest.raises(ValueError, match="missing"):
                pieces_of(shape, array.itemsize, [one for one in found if one is not real[0]])
        with pytest.raises(ValueError, match="overlap"):
            pieces_of(shape, array.itemsize, [*found, real[0]])
    found[0].reader.close()


def test_rows_are_spans(tmp_path):
    array = np.arange(40, dtype=np.uint16).reshape(10, 4)
    found = laid(tmp_path, array, [((0, 0), (7, 4)), ((7, 0), (3, 4))])
    pieces = pieces_of((10, 4), 2, found)
    assert [(piece.offset, piece.length) for piece in pieces if isinstance(piece, Span)] == [(0, 56), (56, 24)]
    found[0].reader.close()


def test_ranks_without_rows_are_passed_over(tmp_path):
    array = np.arange(12, dtype=np.uint16).reshape(3, 4)
    found = laid(tmp_path, array, [((0, 0), (2, 4)), ((2, 0), (1, 4)), ((3, 0), (0, 4))])
    assert len(pieces_of((3, 4), 2, found)) == 2
    assert pieces_of((0, 4), 2, []) == ()
    found[0].reader.close()


@pytest.mark.parametrize(
    ("offsets", "sizes"), [((0, 0), (3, 5)), ((1, 0), (3, 4)), ((0,), (3,)), ((0, 0), (3,)), ((2**62, 0), (3, 4))]
)
def test_a_tile_outside_is_refused(tmp_path, offsets, sizes):
    (tmp_path / "x").write_bytes(bytes(100))
    with Reader(str(tmp_path / "x")) as reader, pytest.raises(ValueError, match="outside its shape"):
        pieces_of((3, 4), 2, [Tile(offsets=offsets, sizes=sizes, reader=reader, offset=0)])
