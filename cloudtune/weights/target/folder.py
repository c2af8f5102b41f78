"""A model written to a folder of this machine: in a workplace aside, moved at the end.

The workplace is a hidden folder beside a target that is not there yet, and inside one that is: that may be a mount,
which nothing can be renamed into from beside it. It belongs to the target, whatever is written: its lock is held by the
one process that writes there. In it, files that are complete lie in a folder called after the key, those that are not
as ``NAME.part``; what was begun of other models stays until one of them is whole.

A machine that went down may have files of the right length with holes for contents, because nothing is forced to the
disk before the next step. Therefore a note says when the machine was started, and what is from before is made again.
Where that cannot be known (macOS), every large file is forced to the disk before it gets its name.
"""

from __future__ import annotations

import errno
import filecmp
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from cloudtune import storage
from cloudtune.checksums import sha256
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.weights.files.assembly import Output, Piece, Progress, length_of, tasks_of, total_size, write_piece
from cloudtune.weights.target.locks import KNOWN, LOCK, OWNER, Lock, boot
from cloudtune.weights.target.writing import (
    GOES_ON,
    WORKERS,
    Meter,
    check_name,
    holds_model,
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
        self.shown, self.path, self.key = path, Path(os.path.realpath(path)), key
        self.names: set[str] = set()
        self.inside = False
        self.place = self.folder = self.path
        #: Names that are being moved, or were when an earlier try ended.
        self.moving: frozenset[str] = frozenset()

    # --- the workplace

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the target, which no other process can claim meanwhile."""
        if not KNOWN:
            hint = "run this there, or name a place elsewhere"
            raise UsageError("models are written to folders of Linux and macOS", hint=hint)
        with storage.told("upload", str(self.shown)):
            lock = self._claim()
        with lock:
            try:
                with storage.told("upload", str(self.shown)):
                    self._look()
                yield
            except KeyboardInterrupt as error:
                raise KeyboardInterrupt(self._what_is_left()) from error
            finally:
                self._leave(lock)

    def _claim(self) -> Lock:
        """Return the workplace's lock, taken; makes the workplace."""
        while True:
            if self.path.exists() and not self.path.is_dir():
                raise UsageError(f"{self.shown} is a file", hint="name a new folder for the model")
            self.inside = self.path.is_dir()
            self.place = self._beside() if not self.inside else self.path / f".cloudtune-{0:016x}.part"
            self.folder = self.place / self.key
            try:
                self._refuse_model()  # before anything is made
            except UsageError:
                self._tidy()
                raise
            self.place.mkdir(parents=True, exist_ok=True)
            try:
                lock = Lock(self.place)
            except FileNotFoundError:
                continue  # whoever was here has just finished
            with ExitStack() as stack:
                stack.enter_context(lock)
                if self._taken(lock):
                    stack.callback(self._leave, lock)
                    if self.inside == self.path.is_dir():
                        stack.pop_all()
                        return lock

    def _taken(self, lock: Lock) -> bool:
        """Take the lock; False if whoever had it has removed it meanwhile."""
        lock.take(self.shown)
        return lock.is_there()

    def _beside(self) -> Path:
        name = hashlib.sha256(os.fsencode(self.path.name)).hexdigest()[:16]
        return self.path.parent / f".cloudtune-{name}.part"

    def _look(self) -> None:
        """Find out what an earlier try has left, and forget what cannot be trusted."""
        if self.inside:
            self._adopt()
        note = self._note()
        self.moving = frozenset(note.get("moving", ()))
        self._refuse_model()
        if (note or self.folder.is_dir()) and note.get("boot") != boot():
            for name in self.moving:
                (self.path / name).unlink(missing_ok=True)
            if self.folder.is_dir():
                shutil.rmtree(self.folder)
            self._note_path().unlink(missing_ok=True)
            self.moving = frozenset()

    def _adopt(self) -> None:
        """Take over what was begun beside the target when that was not there yet."""
        beside = self._beside()
        if not beside.is_dir():
            return
        with Lock(beside) as lock:
            if not self._taken(lock):
                return
            for name in (self.key, f"{self.key}.json"):
                if (beside / name).exists() and not (self.place / name).exists():
                    with suppress(OSError):  # another file system
                        (beside / name).rename(self.place / name)
            _remove_if_empty(beside)

    def _refuse_model(self) -> None:
        moving = self.moving or self._note().get("moving", ())
        if self.inside and not moving and holds_model(path.name for path in self.path.iterdir()):
            hint = "name another folder, or remove that one"
            if any("moving" in _json(note) for note in self.place.glob("*.json")):
                hint = "what wrote it was interrupted, and the same command completes it; or name another folder"
            raise UsageError(f"{self.shown} holds a model already", hint=hint)

    def _tidy(self) -> None:
        """Remove what was begun for a target that holds a model by now, unless a process is at it."""
        for place in (self.place, self._beside()):
            with suppress(OSError, UsageError):
                if place.is_dir() and not any("moving" in _json(note) for note in place.glob("*.json")):
                    with Lock(place) as lock:
                        if self._taken(lock):
                            shutil.rmtree(place)

    def _leave(self, lock: Lock) -> None:
        """Remove the workplace if nothing in it can be continued."""
        with suppress(OSError):
            if not lock.is_there():
                return  # it is gone; if there is one, it is somebody else's
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()
                self._note_path().unlink(missing_ok=True)
            _remove_if_empty(self.place)

    def _what_is_left(self) -> str:
        """Return what to tell whoever interrupted: how it goes on, and where what is done lies meanwhile."""
        begun = self.folder.is_dir() and any(self.folder.iterdir())
        return GOES_ON + (f" ({self.place} holds what is done)" if begun else "")

    def _begin(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir()
            self._write_note()

    def _note_path(self) -> Path:
        return self.place / f"{self.key}.json"

    def _note(self) -> dict[str, Any]:
        return _json(self._note_path())

    def _write_note(self, **facts: object) -> None:
        partial_path = self._note_path().with_suffix(".part")
        partial_path.write_text(json.dumps({"boot": boot(), **facts}))
        partial_path.replace(self._note_path())

    # --- files

    def write(self, outputs: Sequence[Output], progress: Progress | None = None) -> None:
        """Write large files; those that an earlier try completed are left as they are."""
        for output in outputs:
            self._expect(output.name)
        with self._telling():
            self._begin()
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
            self._begin()
            partial_path = self.folder / f"{name}.part"
            partial_path.write_bytes(data)
            partial_path.replace(self.folder / name)

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
            self._begin()
            for path in self.folder.iterdir():
                if path.name not in self.names:
                    path.unlink()  # of an earlier try
            if self.inside or not self._appeared():
                self._move()
        shutil.rmtree(self.place, ignore_errors=True)

    def _appeared(self) -> bool:
        """Let the whole folder appear at once; return False if there is one by now."""
        try:
            self.folder.replace(self.path)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR} or not self.path.is_dir():
                raise
            self.inside = True
            self._refuse_model()
            return False
        return True

    def _move(self) -> None:
        due = sorted((name for name in self.names if (self.folder / name).exists()), key=place_in_order)
        for name in due:
            self._expect(name, self.folder / name)
        due = [name for name in due if name in self.moving or not os.path.lexists(self.path / name)]
        self.moving |= frozenset(due)
        self._write_note(moving=sorted(self.moving))
        for name in due:
            (self.folder / name).replace(self.path / name)

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
        if not self.inside or name in self.moving or not os.path.lexists(there):
            return
        if new is None or not there.is_file() or not _equal(there, new):
            raise UsageError(f"{there} is there already", hint="name another folder, or move that file away")

    def _found(self, name: str) -> Path:
        return next(path for path in (self.folder / name, self.path / name) if path.exists())

    def _has(self, name: str, size: int) -> bool:
        """Return whether an earlier try completed a file; it may have been moved already."""
        places = (self.folder, self.path) if name in self.moving else (self.folder,)
        return any((place / name).is_file() and (place / name).stat().st_size == size for place in places)

    def _tasks(self, output: Output, meter: Meter) -> list[Callable[[], None]]:
        """Return the tasks that write a file; the last of them to end gives it its name."""
        partial_path = self.folder / f"{output.name}.part"
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
                        partial_path.replace(self.folder / output.name)
            finally:
                os.close(target)

        return [partial(write, start, pieces) for start, pieces in portions]

    # --- what may be wrong

    def _check_space(self, due: Sequence[Output]) -> None:
        begun = (self.folder / f"{output.name}.part" for output in due)
        free = shutil.disk_usage(self.place).free + sum(path.stat().st_blocks * 512 for path in begun if path.exists())
        needed = total_size(due)
        if needed <= free:
            return
        left = [path for path in self.place.iterdir() if path.is_dir() and path != self.folder]
        held = sum(path.stat().st_blocks * 512 for folder in left for path in folder.rglob("*"))
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
            hint = f"{first}run the same again: it goes on where it stopped ({self.place} holds what is done)"
            raise CloudtuneError(f"{self.shown} cannot be written: {reason}", hint=hint) from error


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


def _remove_if_empty(place: Path) -> None:
    """Remove a workplace, whose lock is held, if nothing is in it but that."""
    if {path.name for path in place.iterdir()} <= {LOCK, OWNER}:
        shutil.rmtree(place, ignore_errors=True)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
