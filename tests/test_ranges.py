"""Files read by ranges and written in order, on this machine and elsewhere."""

from __future__ import annotations

import errno
import gc
import os
import resource
import subprocess
import sys
import threading
import uuid

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune import ranges
from cloudtune.errors import CloudtuneError, ServiceError, UsageError
from cloudtune.ranges import Reader, Writer
from tests.processes import open_below

DATA = bytes(range(256)) * 16


@pytest.fixture(params=["file", "memory"])
def uri(request, tmp_path):
    """Return the URI of a file with 4,096 bytes, here and elsewhere."""
    if request.param == "file":
        (tmp_path / "a b.bin").write_bytes(DATA)
        return f"file://{tmp_path}/a b.bin"
    place = f"/{uuid.uuid4().hex}/a b.bin"
    fsspec.filesystem("memory").pipe_file(place, DATA)
    return f"memory:/{place}"


# --- reading


def test_any_range_is_read_exactly(uri):
    with Reader(uri) as reader:
        assert reader.size == len(DATA)
        for offset in (0, 1, 255, 4000, 4095, 4096):
            for length in {0, 1, 7, 96, len(DATA) - offset}:
                if offset + length <= len(DATA):
                    assert reader.read(offset, length) == DATA[offset : offset + length]
                    filled = bytearray(length)
                    reader.readinto(offset, memoryview(filled))
                    assert filled == DATA[offset : offset + length]


@pytest.mark.parametrize(("offset", "length"), [(0, 4097), (4096, 1), (4095, 2), (10**9, 1)])
def test_more_than_there_is_raises(uri, offset, length):
    with Reader(uri) as reader, pytest.raises(ServiceError, match="shorter than it was") as raised:
        reader.read(offset, length)
    assert raised.value.hint


def test_a_file_that_is_cut_off_meanwhile_raises(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(DATA)
    with Reader(str(path)) as reader:
        assert reader.read(0, 4096) == DATA
        os.truncate(path, 100)
        with pytest.raises(ServiceError, match="shorter"):
            reader.read(0, 4096)
        with pytest.raises(ServiceError, match="shorter"):
            ranges.copy(reader, 0, 4096, os.open(tmp_path / "copy", os.O_CREAT | os.O_WRONLY), 0)


def test_what_cannot_be_read_is_told(tmp_path):
    with pytest.raises(ServiceError, match="nothing at"):
        Reader(str(tmp_path / "none"))
    with pytest.raises(ServiceError, match="nothing at"):
        Reader("memory://nowhere/none")
    with pytest.raises(UsageError, match="is no file"):
        Reader(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is no file"):
        Reader(str(tmp_path / "pipe"))  # does not wait for a writer


def test_elsewhere_the_size_may_be_known():
    fsspec.filesystem("memory").pipe_file("/known/file", DATA)
    reader = Reader("memory://known/file", 5)
    assert reader.size == 5
    assert reader.read(0, 5) == DATA[:5]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 700), st.integers(1, 2000))
def test_blocks_are_the_bytes_in_order(offset, length, block, fetch):
    offset = min(offset, len(DATA))
    length = min(length, len(DATA) - offset)
    fsspec.filesystem("memory").pipe_file("/blocks/file", DATA)
    before, ranges.FETCH_BYTES = ranges.FETCH_BYTES, fetch
    try:
        found = [bytes(part) for part in ranges.blocks(Reader("memory://blocks/file"), offset, length, block)]
    finally:
        ranges.FETCH_BYTES = before
    assert b"".join(found) == DATA[offset : offset + length]
    assert all(len(part) == block for part in found[:-1])


def test_blocks_end_with_an_error_where_the_file_does(uri):
    with Reader(uri) as reader:
        blocks = ranges.blocks(reader, 4000, 200, 90)
        with pytest.raises(ServiceError, match="shorter"):
            list(blocks)


def test_threads_share_a_reader(uri):
    wrong = []

    def read() -> None:
        offsets = range(0, 4000, 37)
        wrong.extend(offset for offset in offsets if reader.read(offset, 96) != DATA[offset : offset + 96])

    with Reader(uri) as reader:
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_the_soft_limit_of_open_files_is_no_limit(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    code = (
        "import resource, sys\n"
        "from cloudtune.ranges import Reader\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "readers = [Reader(sys.argv[1]) for _ in range(60)]\n"
        "assert all(reader.read(1, 1) == b'\\1' for reader in readers)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=True)


class Whole(MemoryFileSystem):
    """Ignores ranges, as some web servers do."""

    protocol = "whole"

    def cat_file(self, path, start=None, end=None, **kwargs):
        return DATA


def test_a_place_that_ignores_ranges_is_refused():
    fsspec.register_implementation("whole", Whole, clobber=True)
    with pytest.raises(ServiceError, match="4096 bytes came where 5 were asked for"):
        Reader("whole://whole/file", 4096).read(1, 5)


# --- writing


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (1, 2, 3), (5000,) * 7])
def test_what_is_written_is_there(sizes):
    uri = f"memory://{uuid.uuid4().hex}/file"
    with Writer(uri) as writer:
        for number, size in enumerate(sizes):
            writer.write(memoryview(bytes([number]) * size))
    assert Reader(uri).size == sum(sizes)
    assert Reader(uri).read(0, sum(sizes)) == b"".join(bytes([number]) * size for number, size in enumerate(sizes))


def test_what_is_abandoned_is_not_there_and_the_error_is_told():
    uri = f"memory://{uuid.uuid4().hex}/file"
    with pytest.raises(ZeroDivisionError):
        written(uri, b"x" * 100, number=0)
    with pytest.raises(ServiceError, match="nothing at"):
        Reader(uri)


def written(uri: str, data: bytes, number: int = 1) -> None:
    """Write seven bytes at a time; nothing is divided by no number."""
    with Writer(uri) as writer:
        for start in range(0, len(data), 7):
            writer.write(data[start : start + 7])
        assert 1 / number


class PartsFile(AbstractBufferedFile):
    """A file that comes to be when its last part has been sent, as in object stores."""

    def _initiate_upload(self):
        self.fs.log.append("begin")
        self.parts = []

    def _upload_chunk(self, final=False):
        self.parts.append(self.buffer.getvalue())
        self.fs.log.append(f"part {len(self.parts[-1])}")
        if self.fs.fails == len(self.parts):
            raise OSError(errno.ECONNRESET, "reset")
        if final:
            if self.fs.fails == "end":
                raise OSError(errno.ECONNRESET, "reset")
            self.fs.store[self.path] = b"".join(self.parts)
        return True

    def discard(self):
        self.fs.log.append("discard")


class Parts(AbstractFileSystem):
    """Remembers what is asked of it."""

    protocol = "parts"
    cachable = False
    store: dict[str, bytes] = {}  # noqa: RUF012 - shared, as a store is
    log: list[object] = []  # noqa: RUF012
    fails: object = None

    def _open(self, path, mode="rb", block_size=None, autocommit=True, cache_options=None, **kwargs):
        if "r" in mode:
            self.log.append(kwargs)
        return PartsFile(self, path, mode, block_size or 100, autocommit, cache_options=cache_options, **kwargs)

    def info(self, path, **kwargs):
        self.log.append("info")
        if path not in self.store:
            raise FileNotFoundError(path)
        return {"name": path, "size": len(self.store[path]), "type": "file"}


@pytest.fixture
def parts(monkeypatch):
    """Return a stand-in for an object store with parts of 16 bytes."""
    fsspec.register_implementation("parts", Parts, clobber=True)
    monkeypatch.setattr(ranges, "PART_BYTES", 16)
    monkeypatch.setattr(Parts, "store", {})
    monkeypatch.setattr(Parts, "log", [])
    monkeypatch.setattr(Parts, "fails", None)
    return Parts


def test_a_file_is_sent_in_parts_and_appears_at_the_end(parts):
    with Writer("parts://b/file") as writer:
        for _ in range(10):
            writer.write(b"0123456")
            assert parts.store == {}
    assert parts.store == {"b/file": b"0123456" * 10}
    assert parts.log == ["begin", "part 21", "part 21", "part 21", "part 7"]


def test_parts_grow_with_the_file_so_that_their_number_is_bounded(parts):
    assert Writer("parts://b/file")._file.blocksize == 16
    assert Writer("parts://b/file", 160_000)._file.blocksize == 16
    assert Writer("parts://b/file", 160_001)._file.blocksize == 17
    assert 10_000 * Writer("parts://b/file", 2**40)._file.blocksize >= 2**40


@pytest.mark.parametrize("fails", [1, 2, "end"])
def test_a_file_that_cannot_be_sent_is_discarded(parts, monkeypatch, fails):
    monkeypatch.setattr(parts, "fails", fails)
    with pytest.raises(ServiceError, match="reset"):
        written("parts://b/file", b"0123456" * 10)
    gc.collect()  # nothing completes it when it is collected
    assert parts.store == {}
    assert parts.log.count("discard") == 1


def test_an_error_elsewhere_discards_what_was_sent(parts):
    with pytest.raises(ZeroDivisionError):
        written("parts://b/file", b"0" * 50, number=0)
    gc.collect()
    assert parts.store == {}
    assert parts.log[-1] == "discard"


def test_ocifs_is_asked_for_the_range_alone(parts, monkeypatch):
    """It opens a file for each range: without a size it would look that up, with its own cache it would read ahead."""
    parts.store["b/file"] = DATA
    monkeypatch.setattr(PartsFile, "_fetch_range", lambda self, start, end: self.fs.store[self.path][start:end])
    monkeypatch.setitem(ranges._RANGE_OPTIONS, "parts", ranges._RANGE_OPTIONS["oci"])
    reader = Reader("parts://b/file", 4096)
    assert reader.read(300, 50) == DATA[300:350]
    assert parts.log == [{"cache_type": "none", "size": 4096}]


# --- copying


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 4096), st.integers(0, 4096), st.integers(0, 100), st.booleans(), st.booleans())
def test_copying_puts_the_bytes_where_they_belong(tmp_path_factory, offset, length, position, kernel, here):
    length = min(length, len(DATA) - offset)
    folder = tmp_path_factory.getbasetemp()
    (folder / "source").write_bytes(DATA)
    fsspec.filesystem("memory").pipe_file("/copying/file", DATA)
    (folder / "target").write_bytes(b"-" * 50)
    target = os.open(folder / "target", os.O_WRONLY)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranges, "_served", lambda _: kernel)
            with Reader(str(folder / "source") if here else "memory://copying/file") as reader:
                ranges.copy(reader, offset, length, target, position)
    finally:
        os.close(target)
    expected = bytearray(b"-" * 50)
    if length:
        expected[position : position + length] = DATA[offset : offset + length]
        if position > 50:
            expected = bytearray(b"-" * 50 + bytes(position - 50) + DATA[offset : offset + length])
    assert (folder / "target").read_bytes() == expected


def test_a_kernel_that_copies_a_part_is_helped(tmp_path, monkeypatch):
    """Between file systems and at some limits, the kernel stops with an error or short of the end."""
    (tmp_path / "source").write_bytes(DATA)
    calls = []

    def copy_some(source: int, target: int, count: int, offset: int, position: int) -> int:
        calls.append(count)
        if len(calls) == 3:
            raise OSError(errno.EXDEV, "another file system")
        os.pwrite(target, os.pread(source, 1000, offset), position)
        return 1000

    monkeypatch.setattr(ranges, "_COPY_RANGE", copy_some)
    monkeypatch.setattr(ranges, "_served", lambda _: True)
    with Reader(str(tmp_path / "source")) as reader:
        target = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT)
        ranges.copy(reader, 0, 4096, target, 0)
        os.close(target)
    assert (tmp_path / "target").read_bytes() == DATA
    assert calls == [4096, 3096, 2096]


def test_a_target_that_takes_no_more_says_so(tmp_path):
    (tmp_path / "source").write_bytes(DATA)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    target = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with Reader(str(tmp_path / "source")) as reader, pytest.raises(OSError, match="too large") as raised:
            ranges.copy(reader, 0, 4096, target, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        os.close(target)
    assert raised.value.errno == errno.EFBIG
    assert not isinstance(raised.value, CloudtuneError)


def test_descriptors_are_given_back(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    for _ in range(50):
        Reader(str(tmp_path / "file")).close()
        with pytest.raises(UsageError):
            Reader(str(tmp_path))
        with pytest.raises(ServiceError):
            Reader(str(tmp_path / "none"))
    assert open_below(tmp_path) == []
