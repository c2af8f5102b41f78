"""Readers of files that are not kept open: many at a time, from many threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from cloudtune import ranges
from cloudtune.errors import ServiceError
from cloudtune.ranges import LooseReader
from tests.processes import open_below


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors in /proc")
def test_many_readers_have_few_files_open(tmp_path):
    readers = []
    for number in range(200):
        path = tmp_path / f"{number}"
        path.write_bytes(bytes([number]) * 100)
        readers.append(LooseReader(str(path), 100))
    wrong = []

    def read_all() -> None:
        for number, reader in [*enumerate(readers)] * 2:
            if reader.read(10, 90) != bytes([number]) * 90:
                wrong.append(number)
        wrong.extend([-1] * (len(open_below(tmp_path)) > 6 * 17))

    threads = [threading.Thread(target=read_all) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert open_below(tmp_path) == []  # a thread that ends gives back what it had open


def test_a_loose_reader_copies_in_the_kernel_as_any_other(tmp_path):
    (tmp_path / "source").write_bytes(bytes(range(100)))
    reader = LooseReader(str(tmp_path / "source"), 100)
    target = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT)
    ranges.copy(reader, 20, 30, target, 5)
    os.close(target)
    reader.close()
    assert (tmp_path / "target").read_bytes() == bytes(5) + bytes(range(20, 50))


def test_a_path_that_is_opened_anew_is_the_file_that_is_there_now(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    assert LooseReader(str(path), 3).read(0, 3) == b"old"
    path.unlink()
    path.write_bytes(b"new")
    assert LooseReader(str(path), 3).read(0, 3) == b"new"


def test_what_is_missing_or_cut_off_is_told(tmp_path):
    with pytest.raises(ServiceError, match="nothing at"):
        LooseReader(str(tmp_path / "none"), 3).read(0, 3)
    (tmp_path / "short").write_bytes(b"ab")
    with pytest.raises(ServiceError, match="shorter than it was"):
        LooseReader(str(tmp_path / "short"), 3).read(0, 3)


def test_elsewhere_it_reads_ranges():
    import fsspec

    fsspec.filesystem("memory").pipe_file("/loose/file", b"0123456789")
    reader = LooseReader("memory://loose/file", 10)
    assert reader.fileno() is None
    assert reader.read(2, 3) == b"234"
