"""A model written to a folder of this machine: in a workplace aside, moved at the end.

Several threads write, each portion of a file at its place. Where it cannot be known whether the machine has gone down
meanwhile (macOS), every large file is forced to the disk before it gets its name.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from cloudtune import storage
from cloudtune.checksums import sha256
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.weights.files.assembly import Output, Piece, Progress, length_of, tasks_of, total_size, write_piece
from cloudtune.weights.target.locks import boot
from cloudtune.weights.target.workplace import Workplace
from cloudtune.weights.target.writing import (
    WORKERS,
    Meter,
    check_name,
    in_turn,
    place_in_order,
    run_all,
    workers_for,
)

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

_WHAT_TO_DO = {
    errno.ENOSPC: "make room, then ",
    errno.EDQUOT: "make room or ask for a larger quota, then ",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f; some file systems have their own), then ",
}


class FolderTarget:
    """A folder of this machine."""

    def __init__(self, path: Path, key: str) -> None:
        self.shown, self.path = path, Path(os.path.realpath(path))
        self.work = Workplace(path, key)
        self.names: set[str] = set()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the target, which no other process can claim meanwhile."""
        with self.work.claimed():
            yield

    def write(self, outputs: Sequence[Output], progress: Progress | None = None) -> None:
        """Write large files; those that an earlier try completed are left as they are."""
        for output in outputs:
            self._expect(output.name)
        with self._telling():
            self.work.begin()
            due = [output for output in outputs if not self._has(output.name, output.size)]
            meter = Meter(total_size(outputs), progress)
            meter.add(meter.total - total_size(due))
            self._check_space(due)
            workers = workers_for(due)
            run_all(in_turn([self._tasks(output, meter) for output in due], workers), workers, meter)

    def put(self, name: str, data: bytes) -> None:
        """Write a small file."""
        self._expect(name, data)
        with self._telling():
            self.work.begin()
            partial_path = self.work.folder / f"{name}.part"
            partial_path.write_bytes(data)
            partial_path.replace(self.work.folder / name)

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of every file written so far, by name, sorted."""
        sums: dict[str, str] = {}

        def add(name: str) -> None:
            meter.check()
            sums[name] = sha256(self._found(name))

        meter = Meter(0, None)
        with storage.told("read", str(self.shown)):
            largest_first = sorted(self.names, key=lambda name: -self._found(name).stat().st_size)
            run_all([partial(add, name) for name in largest_first], WORKERS, meter)
        return dict(sorted(sums.items()))

    def finish(self) -> None:
        """Let the files appear."""
        with self._telling():
            self.work.begin()
            for path in self.work.folder.iterdir():
                if path.name not in self.names:
                    path.unlink()  # of an earlier try
            if self.work.inside or not self._appeared():
                self._move()
        self.work.remove()

    def _appeared(self) -> bool:
        """Let the whole folder appear at once; return False if there is one by now."""
        try:
            self.work.folder.replace(self.path)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR} or not self.path.is_dir():
                raise
            self.work.inside = True
            self.work.refuse_model()
            return False
        return True

    def _move(self) -> None:
        due = sorted((name for name in self.names if (self.work.folder / name).exists()), key=place_in_order)
        for name in due:
            self._expect(name, self.work.folder / name)
        due = [name for name in due if name in self.work.moving or not os.path.lexists(self.path / name)]
        self.work.note_moving(due)
        for name in due:
            (self.work.folder / name).replace(self.path / name)

    def expect(self, names: Iterable[str]) -> None:
        """Raise UsageError if a file of one of these names is in the way; nothing is written."""
        for name in names:
            self._look_for(name, None)

    def _expect(self, name: str, new: bytes | Path | None = None) -> None:
        """Note that a file will be written; raises UsageError where that would replace one that is not equal to it."""
        self._look_for(name, new)
        self.names.add(name)

    def _look_for(self, name: str, new: bytes | Path | None) -> None:
        check_name(name)
        there = self.path / name
        if not self.work.inside or name in self.work.moving or not os.path.lexists(there):
            return
        if new is None or not there.is_file() or not _equal(there, new):
            raise UsageError(f"{there} is there already", hint="name another folder, or move that file away")

    def _found(self, name: str) -> Path:
        return next(path for path in (self.work.folder / name, self.path / name) if path.exists())

    def _has(self, name: str, size: int) -> bool:
        """Return whether an earlier try completed a file; it may have been moved already."""
        places = (self.work.folder, self.path) if name in self.work.moving else (self.work.folder,)
        return any((place / name).is_file() and (place / name).stat().st_size == size for place in places)

    def _tasks(self, output: Output, meter: Meter) -> list[Callable[[], None]]:
        """Return the tasks that write a file; the last of them to end gives it its name."""
        partial_path = self.work.folder / f"{output.name}.part"
        portions = list(tasks_of(output))
        left = len(portions)
        lock = threading.Lock()

        def write(start: int, pieces: tuple[Piece, ...]) -> None:
            nonlocal left
            meter.check()
            # every task has a descriptor of its own, so that no file stays open while others wait
            target = os.open(partial_path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                for piece in pieces:
                    write_piece(piece, target, start, meter.check)
                    start += length_of(piece)
                    meter.add(length_of(piece))
                with lock:
                    meter.check()  # whoever stopped all may have closed what was read
                    left -= 1
                    if not left:
                        os.ftruncate(target, output.size)  # whatever an earlier try has left behind the end
                        if not boot():
                            _force(target)
                        partial_path.replace(self.work.folder / output.name)
            finally:
                os.close(target)

        return [partial(write, start, pieces) for start, pieces in portions]

    def _check_space(self, due: Sequence[Output]) -> None:
        begun = [self.work.folder / f"{output.name}.part" for output in due]
        free = shutil.disk_usage(self.work.place).free + _held(path for path in begun if path.exists())
        needed = total_size(due)
        if needed <= free:
            return
        left = [path for path in self.work.place.iterdir() if path.is_dir() and path != self.work.folder]
        held = _held(path for folder in left for path in folder.rglob("*"))
        hint = "make room, or name a place with more"
        if held:
            hint += f"; {held / 1e9:.1f} GB are what was begun of another model: {left[0]}"
        raise UsageError(
            f"{self.shown} has {free / 1e9:.1f} GB free, and the model takes {needed / 1e9:.1f} more", hint=hint
        )

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Say of an error of the disk what to do about it."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            first = _WHAT_TO_DO.get(error.errno or 0, "")
            hint = f"{first}run the same again: it goes on where it stopped ({self.work.place} holds what is done)"
            raise CloudtuneError(f"{self.shown} cannot be written: {reason}", hint=hint) from error


def _held(paths: Iterable[Path]) -> int:
    """Return the bytes of the disk that files take."""
    return sum(path.stat().st_blocks * 512 for path in paths)


def _equal(there: Path, new: bytes | Path) -> bool:
    if isinstance(new, Path):
        return filecmp.cmp(there, new, shallow=False)
    return there.stat().st_size == len(new) and there.read_bytes() == new


def _force(descriptor: int) -> None:
    """Let the bytes of a file be on the disk itself."""
    os.fsync(descriptor)
    full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: the above leaves them in the disk's cache
    if full is not None:
        with suppress(OSError):
            fcntl.fcntl(descriptor, full)
