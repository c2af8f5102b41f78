"""One file at any URI, read by byte ranges and written in order, so that a large one never has to be here.

A :class:`Reader` gives exactly the bytes asked for or raises; a :class:`Writer` makes a file that is there whole once
it is closed, and not at all if it is abandoned. Both work with file systems of fsspec; on this machine with
descriptors, which :func:`copy` hands to the kernel. Readers may be shared by threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from cloudtune import storage
from cloudtune.errors import ServiceError, UsageError
from cloudtune.uri import local_path, scheme_of, shown

try:
    import resource
except ImportError:  # pragma: no cover - Windows, where nothing of this machine is read
    pass

#: Bytes asked of a store at a time: fewer requests than the blocks that are worked on.
FETCH_BYTES = 8 << 20
#: Bytes worked on at a time.
CHUNK_BYTES = 1 << 20
#: Bytes copied at a time on this machine: as many as the processor's cache holds.
COPY_BYTES = 256 << 10
#: Parts of a multipart upload, of which s3fs holds four copies; larger ones for files of more than 80 GB, because
#: object stores take 10,000 of them.
PART_BYTES = 8 << 20
_MAX_PARTS = 10_000
#: What reading a range is told beyond the range. ocifs 1.3 reads through a file that it opens for each range: it would
#: look the size up again, and read 5 MiB more than was asked for.
_RANGE_OPTIONS = {"oci": {"cache_type": "none"}, "ocilake": {"cache_type": "none"}}
#: Files that a thread has open of those that are not kept open.
_OPEN_FILES = 16
_COPY_RANGE = getattr(os, "copy_file_range", None)


class Reader:
    """The bytes of one file; ``size`` is its length in bytes."""

    def __init__(self, uri: str, size: int | None = None) -> None:
        self.uri = uri
        self._file: BinaryIO | None = None
        path = local_path(uri)
        with storage.told("read", uri):
            if path is not None:
                self._file = _opened(path)
                self.size = os.fstat(self._file.fileno()).st_size
            else:
                self._system, self._path = storage.file_system(uri)
                self.size = int(self._system.info(self._path)["size"]) if size is None else size
                self._options: dict[str, Any] = {}
                if scheme_of(uri) in _RANGE_OPTIONS:
                    self._options = {**_RANGE_OPTIONS[scheme_of(uri)], "size": self.size}

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset`` on.

        Raises:
            ServiceError: the file is shorter, or cannot be read.
        """
        if self.fileno() is not None:
            buffer = bytearray(length)
            self.readinto(offset, memoryview(buffer))
            return bytes(buffer)
        if not length:
            return b""
        with storage.told("read", self.uri):
            data = bytes(self._system.cat_file(self._path, start=offset, end=offset + length, **self._options))
        if len(data) < length:
            raise self._short()
        if len(data) > length:
            raise ServiceError(
                f"{shown(self.uri)} is not given in parts: {len(data)} bytes came where {length} were asked for",
                service="storage",
                operation="read",
                hint="download it first",
            )
        return data

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes from ``offset`` on; raises as :meth:`read` does."""
        buffer = buffer.cast("B")
        source = self.fileno()
        if source is None:
            buffer[:] = self.read(offset, len(buffer))
            return
        done = 0
        with storage.told("read", self.uri):
            while done < len(buffer):
                count = _read_at(source, buffer[done:], offset + done)
                if not count:
                    raise self._short()
                done += count

    def fileno(self) -> int | None:
        """Return the descriptor of a file of this machine, None for one that is elsewhere."""
        return None if self._file is None else self._file.fileno()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close()

    def _short(self) -> ServiceError:
        return ServiceError(
            f"{shown(self.uri)} is shorter than it was: it is cut off, or being written",
            service="storage",
            operation="read",
            hint="wait until it is whole, or copy it again",
        )


class LooseReader(Reader):
    """A file of ``size`` bytes that is not kept open, for checkpoints of more files than a process may have open.

    Each thread has the last few files open that it read; no other thread can close them while they are in use.
    """

    def __init__(self, uri: str, size: int) -> None:
        if local_path(uri) is None:
            super().__init__(uri, size)
        else:
            _check_platform()
            # no more than this, for there may be tens of thousands
            self.uri, self.size, self._file = uri, size, None

    def fileno(self) -> int | None:
        """Return the descriptor of a file of this machine, good until this thread has read many others."""
        if hasattr(self, "_system"):
            return None
        with storage.told("read", self.uri):
            return _OPEN.descriptor(self)

    def close(self) -> None:
        """Close the file, if this thread has it open."""
        _OPEN.files.pop(self, None)


class _Open(threading.local):
    """The files that one thread has open, least lately used first."""

    def __init__(self) -> None:
        # by reader, not by path: whoever opens a path anew means the file that is there now
        self.files: dict[Reader, _Descriptor] = {}

    def descriptor(self, reader: Reader) -> int:
        file = self.files.pop(reader, None)
        if file is None:
            path = local_path(reader.uri)
            assert path is not None
            file = _Descriptor(path)
        self.files[reader] = file
        if len(self.files) > _OPEN_FILES:
            del self.files[next(iter(self.files))]
        return file.number


class _Descriptor:
    """An open file that is closed when it is forgotten, at the latest when its thread ends."""

    def __init__(self, path: Path) -> None:
        self._file = _opened(path)
        self.number = self._file.fileno()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


_OPEN = _Open()


class Writer:
    """A file elsewhere, written in order by multipart upload; as a context it is closed, or abandoned on an error.

    ``size`` is its length in bytes, if that is known.
    """

    def __init__(self, uri: str, size: int = 0) -> None:
        self.uri = uri
        with storage.told("upload", uri):
            self._system, self._path = storage.file_system(uri)
            self._file: Any = self._system.open(self._path, "wb", block_size=max(PART_BYTES, -(-size // _MAX_PARTS)))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        with storage.told("upload", self.uri):
            self._file.write(data)

    def close(self) -> None:
        """Complete the file: from now on it is there. If that fails, it is abandoned."""
        try:
            with storage.told("upload", self.uri):
                self._file.close()
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Leave nothing of the file, also no parts that are paid for; never raises, for an error has led here."""
        with contextlib.suppress(Exception):
            if isinstance(self._file, import_module("fsspec.spec").AbstractBufferedFile):
                try:
                    self._file.discard()
                finally:
                    self._file.closed = True  # so that nothing completes it when it is collected
            else:  # a file system that shows a file while it is written
                self._file.close()
                self._system.rm_file(self._path)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def copy(reader: Reader, offset: int, length: int, target: int, position: int) -> None:
    """Copy bytes of a file to a position of a descriptor; on a network's file system by its server, where that can.

    Raises:
        ServiceError: the source is shorter or cannot be read.
        OSError: the target cannot be written.
    """
    source = reader.fileno()
    if source is not None and _COPY_RANGE is not None and _served(target):
        done = _copy_in_kernel(source, offset, length, target, position)
        offset, position, length = offset + done, position + done, length - done
    if source is None:
        for block in blocks(reader, offset, length, CHUNK_BYTES):
            write_at(target, block, position)
            position += len(block)
        return
    for start in range(0, length, COPY_BYTES):
        block = _BLOCK.bytes[: min(COPY_BYTES, length - start)]
        reader.readinto(offset + start, block)
        write_at(target, block, position + start)


class _Block(threading.local):
    """The bytes that a thread copies at a time."""

    def __init__(self) -> None:
        self.bytes = memoryview(bytearray(COPY_BYTES))


_BLOCK = _Block()


def _served(target: int) -> bool:
    """Return whether a file is on no disk of this machine, so that somebody else may copy it.

    On a disk copy_file_range goes through a pipe, page by page: a third more work than reading and writing blocks that
    stay in the processor's cache.
    """
    return os.major(os.fstat(target).st_dev) == 0


def blocks(reader: Reader, offset: int, length: int, block_bytes: int) -> Iterator[memoryview]:
    """Yield bytes of a file in blocks of one size (the last may be smaller), each good until the next is asked for.

    A store is asked for more than a block at a time.
    """
    if reader.fileno() is None:
        fetched = max(1, FETCH_BYTES // block_bytes) * block_bytes
        for start in range(0, length, fetched):
            # forgotten before the next is asked for, so that there is never more than one
            yield from _sliced(reader.read(offset + start, min(fetched, length - start)), block_bytes)
        return
    buffer = memoryview(bytearray(min(block_bytes, length)))
    for start in range(0, length, block_bytes):
        filled = buffer[: min(block_bytes, length - start)]
        reader.readinto(offset + start, filled)
        yield filled


def _sliced(data: bytes, block_bytes: int) -> Iterator[memoryview]:
    view = memoryview(data)
    for start in range(0, len(data), block_bytes):
        yield view[start : start + block_bytes]


def write_at(target: int, data: bytes | bytearray | memoryview, position: int) -> None:
    """Write all bytes at a position of a descriptor; raises OSError."""
    view = memoryview(data).cast("B")
    while view:
        count = os.pwrite(target, view, position)
        view, position = view[count:], position + count


def _opened(path: Path) -> BinaryIO:
    """Open a file of this machine for reading, past the soft limit of open files if that is in the way."""
    _check_platform()
    flags = os.O_RDONLY | os.O_NONBLOCK  # a pipe would wait for a writer
    try:
        number = os.open(path, flags)
    except OSError as error:
        if error.errno != errno.EMFILE or not _allow_more_files():
            raise
        number = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise UsageError(f"{path} is no file", hint="name a file, or a folder of files")
    return open(number, "rb", buffering=0)  # noqa: PTH123 - the caller closes it


def _check_platform() -> None:
    if not hasattr(os, "pread"):
        raise UsageError("weights are read on Linux and macOS", hint="run this there, or in the Linux that Windows has")


def _allow_more_files() -> bool:
    """Raise the soft limit of open files to what the administrator allows; return whether that changed anything."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    more = 1 << 16 if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= more:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
    return True


def _read_at(source: int, buffer: memoryview, offset: int) -> int:
    """Read into a buffer from a position of a descriptor, and return how many bytes."""
    if hasattr(os, "preadv"):
        return os.preadv(source, [buffer], offset)
    data = os.pread(source, len(buffer), offset)  # macOS before 11
    buffer[: len(data)] = data
    return len(data)


def _copy_in_kernel(source: int, offset: int, length: int, target: int, position: int) -> int:
    """Return how many bytes the kernel copied; it stops early between file systems that it cannot copy between."""
    assert _COPY_RANGE is not None
    done = 0
    while done < length:
        try:
            count = _COPY_RANGE(source, target, length - done, offset + done, position + done)
        except OSError:
            # EXDEV, EINVAL, ENOTSUP and their like: reading and writing says what is really wrong, if anything is
            return done
        if not count:
            return done
        done += count
    return done
