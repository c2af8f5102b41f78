"""Where a model is written: whole or not at all, and continued where it was interrupted.

On this machine the files are written in a folder aside, named after what is being written, and moved at the end.
Object stores show a file only when it is complete, so there the files appear one by one, under a marker, the ones
without which no program takes them for a model last.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from cloudtune import ranges, storage
from cloudtune.checksums import sha256
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.node.supervisor import take
from cloudtune.ranges import Reader, Writer
from cloudtune.uri import join, local_path, shown
from cloudtune.weights.assembly import Output, Piece, Progress, length_of, stream, tasks_of, total_size, write_piece

#: The record that cloudtune leaves in every model it makes, always written last.
RECORD = "cloudtune.json"
#: Without these no program takes a folder for a model; written after everything else, in this order.
LAST = ("model.safetensors.index.json", "config.json", RECORD)
_WORKERS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
_UPLOADS = 4


class Target(Protocol):
    """A place for the files of one model."""

    def write(self, outputs: Sequence[Output], progress: Progress | None = None) -> None:
        """Write large files; those that an earlier try completed are left as they are."""

    def put(self, name: str, data: bytes) -> None:
        """Write a small file."""

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of every file written so far, by name, sorted."""


@contextmanager
def open_target(uri: str, key: str) -> Iterator[Target]:
    """Give a place to write a model in; at the end of the context all its files are there.

    ``key`` (16 hex digits) names what is written, so that only the same thing is ever continued. What has been written
    is kept when the context ends with an error: the next try goes on from there.

    Raises:
        UsageError: a model is there already, another process writes there, or the disk is too small.
    """
    path = local_path(uri)
    target = _Here(path, key) if path is not None else _There(uri, key)
    with target.claimed():
        yield target
        target.finish()


class _Meter:
    """Adds up bytes over threads, and stops all of them when one fails."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.done, self.progress = total, 0, progress
        self.lock, self.stopped = threading.Lock(), threading.Event()

    def add(self, count: int) -> None:
        with self.lock:
            self.done += count
            if self.progress is not None:
                self.progress(self.done, self.total)

    def check(self) -> None:
        if self.stopped.is_set():
            raise _Stopped


class _Stopped(Exception):
    """Another thread has failed."""


def _run_all(tasks: Sequence[Callable[[], None]], workers: int, meter: _Meter) -> None:
    """Run tasks on threads; the first error stops the others and is raised."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="weights")
    futures: list[Future[None]] = [pool.submit(task) for task in tasks]
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        errors = [error for future in done if (error := future.exception()) is not None]
        for error in (*(one for one in errors if not isinstance(one, _Stopped)), *errors):
            raise error
    finally:
        meter.stopped.set()
        pool.shutdown(cancel_futures=True)


class _Here:
    """A folder of this machine."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        # a folder that is there may be a mount, which nothing can be renamed into from beside it
        self.inside = path.is_dir()
        self.partial = (path if self.inside else path.parent) / f".cloudtune-{key}.part"
        self.names: set[str] = set()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        if self.path.exists() and not self.inside:
            raise UsageError(f"{self.path} is a file", hint="name a new folder for the model")
        if not self.partial.is_dir() and _holds_model(path.name for path in _entries(self.path)):
            raise UsageError(f"{self.path} holds a model already", hint="name another folder, or remove that one")
        with storage.told("upload", str(self.path)):
            self.partial.mkdir(parents=True, exist_ok=True)
            lock = (self.partial / "lock").open("a")
        with lock:
            if not take(lock) or not self.partial.is_dir():
                raise UsageError(f"another process is writing {self.path}", hint="wait for it, or name another folder")
            try:
                yield
            except UsageError:
                # nothing is wrong with what was begun before; what was not even begun leaves no trace
                if {path.name for path in _entries(self.partial)} <= {"lock"}:
                    shutil.rmtree(self.partial, ignore_errors=True)
                raise

    def write(self, outputs: Sequence[Output], progress: Progress | None = None) -> None:
        self.names |= {output.name for output in outputs}
        due = [output for output in outputs if not self._has(output.name, output.size)]
        meter = _Meter(total_size(outputs), progress)
        meter.add(meter.total - total_size(due))
        self._check_space(total_size(due))
        tasks = [task for output in due for task in self._tasks(output, meter)]
        try:
            _run_all(tasks, _WORKERS, meter)
        except OSError as error:
            raise self._failed(error) from error

    def put(self, name: str, data: bytes) -> None:
        self.names.add(name)
        try:
            partial = self.partial / f"{name}.part"
            partial.write_bytes(data)
            partial.replace(self.partial / name)
        except OSError as error:
            raise self._failed(error) from error

    def checksums(self) -> dict[str, str]:
        found = {path.name: path for place in reversed(self._places()) for path in self._written(place)}
        sums: dict[str, str] = {}
        meter = _Meter(0, None)

        def add(path: Path) -> None:
            sums[path.name] = sha256(path)

        largest_first = sorted(found.values(), key=lambda path: -path.stat().st_size)
        _run_all([lambda path=path: add(path) for path in largest_first], _WORKERS, meter)  # type: ignore[misc]
        return dict(sorted(sums.items()))

    def finish(self) -> None:
        names = [path.name for path in _entries(self.partial) if path.name != "lock"]
        with storage.told("upload", str(self.path)):
            if not self.inside:
                (self.partial / "lock").unlink()
                self.partial.replace(self.path)
                return
            for name in sorted(names, key=_place_in_order):
                (self.partial / name).replace(self.path / name)
            shutil.rmtree(self.partial)

    def _has(self, name: str, size: int) -> bool:
        """Return whether an earlier try completed a file; it may have been moved already."""
        return any((place / name).is_file() and (place / name).stat().st_size == size for place in self._places())

    def _written(self, place: Path) -> Iterator[Path]:
        """Yield the files of the model in one of its places; the place itself may hold other things, too."""
        for path in _entries(place):
            ours = place == self.partial or path.name in self.names
            if path.is_file() and ours and path.name != "lock" and path.suffix != ".part":
                yield path

    def _places(self) -> tuple[Path, ...]:
        return (self.partial, self.path) if self.inside else (self.partial,)

    def _tasks(self, output: Output, meter: _Meter) -> list[Callable[[], None]]:
        """Return the tasks that write a file; the last of them to end gives it its name."""
        partial = self.partial / f"{output.name}.part"
        portions = list(tasks_of(output))
        left = len(portions)
        lock = threading.Lock()

        def write(start: int, pieces: tuple[Piece, ...]) -> None:
            nonlocal left
            meter.check()
            # every task has a descriptor of its own, so that no file stays open while others wait
            target = os.open(partial, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            try:
                for piece in pieces:
                    write_piece(piece, target, start, meter.check)
                    start += length_of(piece)
                    meter.add(length_of(piece))
                with lock:
                    left -= 1
                    if not left:
                        os.ftruncate(target, output.size)  # whatever an earlier try has left behind the end
                        partial.replace(self.partial / output.name)
            finally:
                os.close(target)

        return [lambda start=start, pieces=pieces: write(start, pieces) for start, pieces in portions]  # type: ignore[misc]

    def _check_space(self, needed: int) -> None:
        begun = sum(path.stat().st_blocks * 512 for path in self.partial.glob("*.part"))
        free = shutil.disk_usage(self.partial).free + begun
        if needed > free:
            message = f"{self.path.parent} has {free / 1e9:.1f} GB free, and the model takes {needed / 1e9:.1f} more"
            raise UsageError(message, hint="make room, or name a place with more")

    def _failed(self, error: OSError) -> CloudtuneError:
        reason = error.strerror or str(error)
        first = "make room, then " if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
        hint = f"{first}run the same again: it goes on where it stopped ({self.partial} holds what is done)"
        return CloudtuneError(f"{self.path} cannot be written: {reason}", hint=hint)


class _There:
    """A prefix of an object store, or whatever else fsspec knows."""

    def __init__(self, uri: str, key: str) -> None:
        self.uri = uri
        self.marker = f".cloudtune-{key}.part"
        self.sizes: dict[str, int] = {}
        self.sums: dict[str, str] = {}
        self.names: set[str] = set()
        self.last: dict[str, bytes] = {}

    @contextmanager
    def claimed(self) -> Iterator[None]:
        if storage.exists(join(self.uri, self.marker)):
            self.sizes = {entry.path: entry.bytes for entry in storage.listing(self.uri)}
        elif _holds_model(entry.path for entry in storage.listing(self.uri)):
            hint = "name another place, or remove that one; one that was begun is continued by the same command only"
            raise UsageError(f"{shown(self.uri)} holds a model already, or a part of one", hint=hint)
        yield

    def write(self, outputs: Sequence[Output], progress: Progress | None = None) -> None:
        self.names |= {output.name for output in outputs}
        self._upload(self.marker, b"{}\n")
        due = [output for output in outputs if self.sizes.get(output.name) != output.size]
        meter = _Meter(total_size(outputs), progress)
        meter.add(meter.total - total_size(due))
        _run_all([lambda output=output: self._write(output, meter) for output in due], _UPLOADS, meter)  # type: ignore[misc]

    def put(self, name: str, data: bytes) -> None:
        self.sums[name] = hashlib.sha256(data).hexdigest()
        if name in LAST:
            self.last[name] = data
        else:
            self._upload(name, data)

    def checksums(self) -> dict[str, str]:
        for name in self.names - self.sums.keys():  # completed by an earlier try
            with Reader(join(self.uri, name)) as reader:
                digest = hashlib.sha256()
                for block in ranges.blocks(reader, 0, reader.size, ranges.CHUNK_BYTES):
                    digest.update(block)
            self.sums[name] = digest.hexdigest()
        return dict(sorted(self.sums.items()))

    def finish(self) -> None:
        for name in sorted(self.last, key=_place_in_order):
            self._upload(name, self.last[name])
        storage.remove(join(self.uri, self.marker))

    def _write(self, output: Output, meter: _Meter) -> None:
        digest = hashlib.sha256()
        with Writer(join(self.uri, output.name)) as writer:
            for block in (block for piece in output.pieces for block in stream(piece)):
                meter.check()
                digest.update(block)
                writer.write(block)
                meter.add(len(block))
        self.sums[output.name] = digest.hexdigest()

    def _upload(self, name: str, data: bytes) -> None:
        with Writer(join(self.uri, name)) as writer:
            writer.write(data)


def _holds_model(names: Iterator[str]) -> bool:
    return any(name in LAST or name.endswith(".safetensors") for name in names)


def _place_in_order(name: str) -> tuple[int, str]:
    return (LAST.index(name) + 1 if name in LAST else 0, name)


def _entries(folder: Path) -> Iterator[Path]:
    yield from folder.iterdir() if folder.is_dir() else ()


def record_text(record: dict[str, object]) -> bytes:
    """Return a JSON object as people and programs read it."""
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()
