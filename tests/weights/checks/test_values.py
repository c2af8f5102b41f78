"""Every number is looked at, in every type, wherever it stands; only ranges are read."""

from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cloudtune.errors import ServiceError
from cloudtune.weights.checks.examine import check
from cloudtune.weights.files import numbers as numbers_room
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.files.model import open_weights
from cloudtune.weights.files.numbers import FORMATS, Numbers, scan
from tests.weights.checks.checkable import adapter_tensors, llama_tensors, write_adapter, write_model, write_tensors

#: For each type some elements that are NaN and some that are infinite, as the format writes them.
NANS = {
    "F64": (b"\x00\x00\x00\x00\x00\x00\xf8\x7f", b"\x01\x00\x00\x00\x00\x00\xf0\xff"),
    "F32": (b"\x00\x00\xc0\x7f", b"\x01\x00\x80\xff"),
    "C64": (b"\x00\x00\x80\x3f\x00\x00\xc0\x7f", b"\x00\x00\xc0\xff\x00\x00\x00\x00"),
    "F16": (b"\x00\x7e", b"\x01\xfc"),
    "BF16": (b"\xc0\x7f", b"\x81\xff"),
    "F8_E5M2": (b"\x7e", b"\xfd"),
    "F8_E4M3": (b"\x7f", b"\xff"),
    "F8_E8M0": (b"\xff",),
}
INFINITIES = {
    "F64": (b"\x00\x00\x00\x00\x00\x00\xf0\x7f", b"\x00\x00\x00\x00\x00\x00\xf0\xff"),
    "F32": (b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff"),
    "F16": (b"\x00\x7c", b"\x00\xfc"),
    "BF16": (b"\x80\x7f", b"\x80\xff"),
    "F8_E5M2": (b"\x7c", b"\xfc"),
}
LARGEST = {"F64": b"\xff" * 6 + b"\xef\x7f", "F32": b"\xff\xff\x7f\xff", "F16": b"\xff\x7b", "BF16": b"\x7f\xff"}
COUNT = 1000


@pytest.fixture
def small_blocks(monkeypatch):
    """Let a thousand elements be several blocks and several portions."""
    monkeypatch.setattr(numbers_room, "_BLOCK_BYTES", 256)
    monkeypatch.setattr(numbers_room, "_PORTION_BYTES", 1024)


def found_in(weights):
    return scan((name, weights.tensor(name).dtype, weights.span(name)) for name in weights)


def scanned(folder, dtype, data):
    width = len(NANS[dtype][0])
    write_tensors(
        folder / "model.safetensors",
        {"other": ("BF16", (2,), b"\x80\x3f" * 2), "it": (dtype, (len(data) // width,), data)},
    )
    with open_weights(folder_at(str(folder))) as weights:
        return found_in(weights)["it"]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("where", [0, 31, 511, COUNT - 1])
@pytest.mark.parametrize("dtype", FORMATS)
def test_one_element_that_is_not_finite_is_found(tmp_path, dtype, where):
    width = len(NANS[dtype][0])
    good = LARGEST.get(dtype, b"\x01" * width) * COUNT
    assert scanned(tmp_path, dtype, good) == Numbers(zero=False)
    for kind, elements in (("nans", NANS[dtype]), ("infinities", INFINITIES.get(dtype, ()))):
        for element in elements:
            data = good[: where * width] + element + good[(where + 1) * width :]
            found = scanned(tmp_path, dtype, data)
            assert found == Numbers(**{kind: 1}, first=where, zero=False)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("dtype", "kind"), [("F16", "<f2"), ("F32", "<f4"), ("F64", "<f8"), ("BF16", None)])
def test_random_bits_are_counted_as_numpy_does(tmp_path, dtype, kind):
    width = len(NANS[dtype][0])
    random = np.random.default_rng(7)
    # exponents of all ones are rare by chance: the upper byte is one of four
    bits = random.integers(0, 256, (COUNT, width), dtype="u1")
    bits[:, -1] = random.choice([0x7F, 0xFF, 0x3F, 0x7C], COUNT)
    bits[::3, -2] |= 0xF0
    bits[::5, :-2] = 0
    if kind is None:
        wide = np.concatenate([np.zeros((COUNT, 2), "u1"), bits], axis=1).copy()
        numbers = wide.view("<f4").ravel()
    else:
        numbers = bits.copy().view(kind).ravel()
    found = scanned(tmp_path, dtype, bits.tobytes())
    assert found.nans == np.isnan(numbers).sum() > 0
    assert found.infinities == np.isinf(numbers).sum()
    assert found.first == np.argmin(np.isfinite(numbers))


def test_zeros_are_told_of_matrices_only(tmp_path):
    zeros = {"a": ("BF16", (4, 4), bytes(32)), "b": ("BF16", (4,), bytes(8)), "c": ("BF16", (0, 4), b"")}
    write_tensors(tmp_path / "model.safetensors", zeros)
    found = [one.where for one in check(str(tmp_path)).findings if one.rule == "values-zero"]
    assert found == ["model.safetensors: a"]
    # minus zero is zero, and 2**-127 of E8M0 is not
    assert scanned(tmp_path, "BF16", b"\x00\x80" * 9).zero
    assert not scanned(tmp_path, "F8_E8M0", b"\x00" * 9).zero


def test_types_without_nan_are_passed_over(tmp_path):
    write_tensors(tmp_path / "model.safetensors", {"a": ("I32", (2,), b"\xff" * 8), "b": ("BOOL", (1,), b"\x01")})
    with open_weights(folder_at(str(tmp_path))) as weights:
        assert found_in(weights) == {}


def test_an_adapter_that_was_never_trained_is_told(tmp_path):
    tensors = {
        name: (dtype, shape, bytes(len(data)) if "lora_B" in name else data)
        for name, (dtype, shape, data) in adapter_tensors().items()
    }
    found, _ = check(str(write_adapter(tmp_path / "a", tensors))).findings
    assert (found.rule, found.severity) == ("adapter-untrained", "error")
    assert check(str(write_adapter(tmp_path / "b"))).ok


def test_progress_counts_every_byte_once(tmp_path):
    folder, seen = write_model(tmp_path / "m"), []
    report = check(str(folder), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (report.bytes, report.bytes)
    seen.clear()
    check(str(folder), fast=True, progress=lambda done, total: seen.append((done, total)))
    assert seen == []


class Counted(MemoryFileSystem):
    """A bucket that counts what is read of it."""

    protocol = "counted"
    store: ClassVar = {}
    read = 0

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace(f"{cls.protocol}://", "memory://"))

    def cat_file(self, path, start=None, end=None, **options):
        data = super().cat_file(path, start=start, end=end, **options)
        type(self).read += len(data)
        return data


class Broken(Counted):
    """A bucket whose tensors cannot be read."""

    protocol = "brokenbucket"
    store: ClassVar = {}

    def cat_file(self, path, start=None, end=None, **options):
        if path.endswith(".safetensors") and start is not None and start > 4000:
            raise OSError(5, "the store is gone")
        return super().cat_file(path, start=start, end=end, **options)


@pytest.fixture
def bucket(tmp_path):
    """Return a bucket with a model whose weights are much larger than its other files."""
    tensors = {**llama_tensors(), "model.embed_tokens.weight": ("BF16", (64, 32), b"\x80\x3f" * 2048)}
    tensors["extra"] = ("F32", (1 << 19,), b"\x00\x00\x80\x3f" * (1 << 19))
    folder = write_model(tmp_path / "m", tensors)
    for kind in (Counted, Broken):
        fsspec.register_implementation(kind.protocol, kind, clobber=True)
        kind.store.clear()
        system = kind()
        for path in folder.iterdir():
            system.pipe_file(f"/m/{path.name}", path.read_bytes())
    return folder


def test_a_bucket_is_read_by_ranges(bucket):
    Counted.read = 0
    fast = check("counted://m", fast=True)
    small = sum(path.stat().st_size for path in bucket.iterdir() if path.suffix != ".safetensors")
    assert fast.bytes > 2 << 20
    assert Counted.read < small + 10_000
    Counted.read = 0
    whole = check("counted://m")
    assert fast.bytes <= Counted.read < fast.bytes + small + 10_000
    assert [one.rule for one in whole.findings] == ["dtype-mixed", "tensor-unknown"]


def test_a_bucket_that_fails_ends_the_check(bucket):
    with pytest.raises(ServiceError, match="the store is gone"):
        check("brokenbucket://m")
