"""Of a checkpoint elsewhere little is fetched, in few requests."""

from __future__ import annotations

import numpy as np
import pytest

from cloudtune.errors import UsageError
from cloudtune.ranges import Reader
from cloudtune.weights.consolidate.layouts import distcp
from cloudtune.weights.consolidate.layouts.distcp import Chunk
from cloudtune.weights.files import pickles
from cloudtune.weights.files.torchfiles import EDGE_BYTES
from tests.weights import forging


class Counting(Reader):
    """A file that says which ranges were asked for; here, or elsewhere."""

    def __init__(self, data: bytes, *, here: bool) -> None:
        self.uri, self.size, self.data, self.here = "x://file", len(data), data, here
        self.asked: list[tuple[int, int]] = []

    def fileno(self) -> int | None:
        return 0 if self.here else None

    def read(self, offset: int, length: int) -> bytes:
        self.asked.append((offset, length))
        return self.data[offset : offset + length]


def chunks(*lengths: int) -> list[tuple[str, Chunk]]:
    found, at = [], 0
    for number, length in enumerate(lengths):
        found.append((str(number), Chunk(offsets=(), sizes=(), file="file", offset=at, length=length)))
        at += length
    return found


def read_ends(reader: Counting, listed: list[tuple[str, Chunk]]) -> None:
    """Read both ends of every chunk, as a file of torch.save is read."""
    for _, chunk, near in distcp._with_edges(reader, listed):
        for place, length in ((0, 200), (chunk.length - 150, 150), (0, min(EDGE_BYTES, chunk.length))):
            at = chunk.offset + place
            assert near.read(at, length) == reader.data[at : at + length]


@pytest.mark.parametrize(("here", "requests"), [(True, 4), (False, 4)])
def test_ends_that_touch_are_one_request(here, requests):
    data = np.random.default_rng(1).bytes(3_000_000)
    reader = Counting(data, here=here)
    read_ends(reader, chunks(1_000_000, 1_000_000, 1_000_000))
    assert len(reader.asked) == requests
    assert sum(length for _, length in reader.asked) == 6 * EDGE_BYTES


def test_small_ones_are_fetched_together_from_afar():
    data = np.random.default_rng(1).bytes(100_000)
    reader = Counting(data, here=False)
    read_ends(reader, chunks(*[5_000] * 20))
    assert reader.asked == [(0, 100_000)]


def test_only_so_much_is_kept(monkeypatch):
    monkeypatch.setattr(distcp, "_BATCH_BYTES", 10_000)
    data = np.random.default_rng(1).bytes(100_000)
    reader = Counting(data, here=False)
    read_ends(reader, chunks(*[5_000] * 20))
    assert len(reader.asked) == 7
    assert max(length for _, length in reader.asked) <= 15_000


def test_what_is_not_near_is_read(monkeypatch):
    data = np.random.default_rng(1).bytes(100_000)
    reader = Counting(data, here=True)
    (_, _, near), *_ = distcp._with_edges(reader, chunks(100_000))
    assert near.read(500, 5_000) == data[500:5_500]
    assert near.read(50_000, 10) == data[50_000:50_010]
    assert reader.asked[-2:] == [(500, 5_000), (50_000, 10)]


ENUM = "torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING"


def test_members_of_enums_as_older_releases_of_python_3_11_pickle_them():
    pickled = forging.dumps(forging.Call("builtins.getattr", forging.Name(ENUM), "TORCH_CONTIGUOUS_FORMAT"))
    found = pickles.load(pickled, distcp._ALLOWED)
    assert (found.kind, found.arguments) == (ENUM, ("TORCH_CONTIGUOUS_FORMAT",))


@pytest.mark.parametrize(
    ("of", "name"),
    [
        (forging.Name("torch.bfloat16"), "__class__"),
        (forging.Name(f"{forging.DCP}.metadata.Metadata"), "__init__"),
        (forging.Name(ENUM), forging.Name(ENUM)),
        ("a text", "format"),
    ],
)
def test_no_other_attribute_is_taken(of, name):
    with pytest.raises(UsageError, match=r"asks for an attribute of .*nothing was executed"):
        pickles.load(forging.dumps(forging.Call("builtins.getattr", of, name)), distcp._ALLOWED)
