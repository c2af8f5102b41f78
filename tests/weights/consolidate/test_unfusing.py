"""Experts in one tensor come apart, however the tensor was cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.ranges import Reader
from cloudtune.weights.consolidate.tiles import Tile, pieces_of
from cloudtune.weights.consolidate.unfusing import portion, unfused
from cloudtune.weights.files.assembly import Made, Span, length_of, stream
from cloudtune.weights.files.parts import Part
from tests.weights.forging import halves

EXPERTS, INNER, HIDDEN = 3, 4, 5


def bytes_of(pieces) -> bytes:
    return b"".join(bytes(block) for piece in pieces for block in stream(piece))


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize(
    ("place", "names"), [("mlp", ("gate_proj", "up_proj", "down_proj")), ("block_sparse_moe", ("w1", "w3", "w2"))]
)
def test_experts_come_apart(tmp_path, dim, place, names):
    up = np.arange(EXPERTS * 2 * INNER * HIDDEN, dtype=np.float32).reshape(EXPERTS, 2 * INNER, HIDDEN)
    tiles, data = [], b""
    for offsets, sizes in halves(up.shape, 2, dim):
        part = up[tuple(slice(at, at + n) for at, n in zip(offsets, sizes, strict=True))].tobytes()
        tiles.append((offsets, sizes, len(data)))
        data += part
    down = np.arange(EXPERTS * HIDDEN * INNER, dtype=np.float32).reshape(EXPERTS, HIDDEN, INNER)
    (tmp_path / "file").write_bytes(data + down.tobytes())
    gate, second, third = names
    wanted = {f"l.{place}.experts.0.{name}.weight": () for name in names}
    with Reader(str(tmp_path / "file")) as reader:
        placed = [Tile(offsets=at, sizes=n, reader=reader, offset=start) for at, n, start in tiles]
        span = Span(reader=reader, offset=len(data), length=down.nbytes)
        found = unfused(
            {
                "l.mlp.experts.gate_up_proj": Part(dtype="F32", shape=up.shape, pieces=pieces_of(up.shape, 4, placed)),
                "l.mlp.experts.down_proj": Part(dtype="F32", shape=down.shape, pieces=(span,)),
                "norm": Part(dtype="F32", shape=(0,), pieces=()),
            },
            wanted,
        )
        assert len(found) == 3 * EXPERTS + 1
        for expert in range(EXPERTS):
            for name, value in ((gate, up[expert, :INNER]), (second, up[expert, INNER:]), (third, down[expert])):
                part = found[f"l.{place}.experts.{expert}.{name}.weight"]
                assert (part.shape, bytes_of(part.pieces)) == (value.shape, value.tobytes())


def test_experts_that_files_have_in_one_stay(tmp_path):
    part = Part(dtype="F32", shape=(EXPERTS, 2 * INNER, HIDDEN), pieces=())
    tensors = {"l.mlp.experts.gate_up_proj": part}
    assert unfused(tensors, tensors) == tensors
    assert unfused(tensors, {}) == tensors


@given(st.lists(st.binary(max_size=20), max_size=6), st.integers(0, 60), st.integers(0, 60), st.data())
def test_a_portion_is_what_lies_there(texts, begin, length, data):
    whole = b"".join(texts)
    begin = min(begin, len(whole))
    length = min(length, len(whole) - begin)
    pieces = []
    for text in texts:
        if data.draw(st.booleans()):
            pieces.append(text)
        else:
            blocks = [text[:7], text[7:]]
            pieces.append(Made(length=len(text), blocks=lambda blocks=blocks: iter(blocks)))
    found = list(portion(tuple(pieces), begin, length))
    assert bytes_of(found) == whole[begin : begin + length]
    assert sum(map(length_of, found)) == length
