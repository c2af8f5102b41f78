"""Slices of tensors joined along any dimension: the same bytes as numpy's, in blocks of bounded size."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.ranges import LooseReader
from cloudtune.weights.consolidate import joining
from cloudtune.weights.consolidate.joining import Slice, joined, whole
from cloudtune.weights.files.assembly import Made, Span, length_of, stream
from cloudtune.weights.files.parts import Part
from cloudtune.weights.files.torchfiles import TorchTensor

numpy = pytest.importorskip("numpy")

DTYPES = {"U8": "uint8", "BF16": "uint16", "F32": "uint32", "F64": "uint64"}


def stored(folder: Path, number: int, array, dtype: str, *, before: int = 3) -> TorchTensor:
    """Return an array as a tensor in a file, behind some other bytes."""
    path = folder / f"{number}"
    path.write_bytes(b"x" * before + array.tobytes())
    reader = LooseReader(str(path), before + array.nbytes)
    strides = [stride // array.itemsize for stride in array.strides]
    return TorchTensor(
        dtype=dtype, shape=array.shape, stride=tuple(strides), reader=reader, offset=before, length=array.nbytes
    )


def bytes_of(part: Part) -> bytes:
    return b"".join(bytes(block) for piece in part.pieces for block in stream(piece))


@st.composite
def joins(draw):
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    dimension = draw(st.integers(0, len(shape) - 1))
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    picks = draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=6))
    slices = []
    for pick in picks:
        start = draw(st.integers(0, lengths[pick]))
        slices.append((pick, start, draw(st.integers(start, lengths[pick]))))
    return dtype, shape, dimension, lengths, slices


@given(case=joins(), piece=st.sampled_from([64, 8 << 20]), block=st.sampled_from([16, 1 << 20]))
@settings(max_examples=300, deadline=None)
def test_a_join_has_the_bytes_of_a_concatenation(tmp_path_factory, case, piece, block):
    dtype, shape, dimension, lengths, slices = case
    folder = tmp_path_factory.mktemp("join")
    random = numpy.random.default_rng(0)
    arrays = []
    for length in lengths:
        full = (*shape[:dimension], length, *shape[dimension + 1 :])
        arrays.append(random.integers(0, 255, full).astype(DTYPES[dtype]))
    tensors = [stored(folder, number, array, dtype) for number, array in enumerate(arrays)]
    wanted = numpy.concatenate([arrays[at].take(range(a, b), dimension) for at, a, b in slices], dimension)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joining, "_PIECE_BYTES", piece)
        patch.setattr(joining, "_BLOCK_BYTES", block)
        part = joined([Slice(tensors[at], a, b) for at, a, b in slices], dimension)
        assert part.shape == wanted.shape
        assert part.dtype == dtype
        assert bytes_of(part) == wanted.tobytes()
        assert sum(map(length_of, part.pieces)) == wanted.nbytes
        row = wanted.itemsize * int(numpy.prod(wanted.shape[dimension:]))
        for made in part.pieces:
            assert isinstance(made, Span) or all(len(one) <= max(block, row) for one in made.blocks())


def test_along_the_first_dimension_bytes_are_copied_as_they_lie(tmp_path):
    tensors = [stored(tmp_path, number, numpy.zeros((4, 8), "uint16"), "BF16") for number in range(2)]
    part = joined([Slice(tensors[0], 0, 2), Slice(tensors[0], 2, 4), Slice(tensors[1], 1, 3)], 0)
    assert [(type(piece), piece.length) for piece in part.pieces] == [(Span, 64), (Span, 32)]


def test_one_whole_tensor_is_taken_as_it_is_along_any_dimension(tmp_path):
    tensor = stored(tmp_path, 0, numpy.zeros((4, 8), "uint16"), "BF16")
    for dimension, length in ((0, 4), (1, 8)):
        (piece,) = joined([Slice(tensor, 0, length)], dimension).pieces
        assert isinstance(piece, Span)


def test_a_large_join_along_rows_is_several_pieces_for_several_threads(tmp_path):
    arrays = [numpy.arange(3000 * 1000, dtype="uint32").reshape(3000, 1000) + number for number in range(2)]
    part = joined([Slice(stored(tmp_path, at, array, "F32"), 0, 1000) for at, array in enumerate(arrays)], 1)
    assert len(part.pieces) > 1
    assert all(isinstance(piece, Made) and piece.length <= 8 << 20 for piece in part.pieces)
    assert bytes_of(part) == numpy.concatenate(arrays, 1).tobytes()


@pytest.mark.parametrize(
    ("other", "dimension", "message"),
    [
        (numpy.zeros((4, 7), "uint16"), 0, "its parts have the shapes"),
        (numpy.zeros((4, 8, 1), "uint16"), 0, "its parts are BF16"),
        (numpy.zeros((4, 8), "uint16"), 2, "was cut along dimension 2"),
        (numpy.zeros((2, 8), "uint16"), 0, "0 to 4 of it are needed"),
        (numpy.zeros((8, 4), "uint16").T, 0, "not contiguous"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, other, dimension, message):
    first = stored(tmp_path, 0, numpy.zeros((4, 8), "uint16"), "BF16")
    second = stored(tmp_path, 1, other, "BF16")
    with pytest.raises(ValueError, match=message):
        joined([Slice(first, 0, 4), Slice(second, 0, 4)], dimension)


def test_a_tensor_of_another_type_is_refused(tmp_path):
    first = stored(tmp_path, 0, numpy.zeros((4, 8), "uint16"), "BF16")
    second = stored(tmp_path, 1, numpy.zeros((4, 8), "uint16"), "F16")
    with pytest.raises(ValueError, match=r"BF16 \[4, 8\] and F16"):
        joined([Slice(first, 0, 4), Slice(second, 0, 4)], 0)


def test_a_tensor_without_dimensions_is_taken_whole(tmp_path):
    part = whole(stored(tmp_path, 0, numpy.array(7, "uint32"), "F32"))
    assert (part.shape, bytes_of(part)) == ((), (7).to_bytes(4, "little"))
