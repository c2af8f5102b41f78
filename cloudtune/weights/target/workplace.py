"""Where a model is gathered before it appears in a folder of this machine, and who may do so.

The workplace is a hidden folder beside a target that is not there yet, and inside one that is: that may be a mount,
which nothing can be renamed into from beside it. It belongs to the target, whatever is written: its lock is held by the
one process that writes there. In it, files that are complete lie in a folder called after the key, those that are not
as ``NAME.part``; what was begun of other models stays until one of them is whole.

A machine that went down may have files of the right length with holes for contents, because nothing is forced to the
disk before the next step. Therefore a note says when the machine was started, and what is from before is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from cloudtune import storage
from cloudtune.errors import UsageError
from cloudtune.weights.target.locks import KNOWN, LOCK, OWNER, Lock, boot
from cloudtune.weights.target.writing import GOES_ON, holds_model


class Workplace:
    """The workplace of one target: ``inside`` it or beside; ``folder`` in it has the files that are complete."""

    def __init__(self, path: Path, key: str) -> None:
        self.shown, self.target, self.key = path, Path(os.path.realpath(path)), key
        self.inside = False
        self.place = self.folder = self.target
        #: Names that are being moved, or were when an earlier try ended.
        self.moving: frozenset[str] = frozenset()

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
                raise KeyboardInterrupt(self.what_is_left()) from error
            finally:
                self._leave(lock)

    def _claim(self) -> Lock:
        """Return the workplace's lock, taken; makes the workplace."""
        while True:
            if self.target.exists() and not self.target.is_dir():
                raise UsageError(f"{self.shown} is a file", hint="name a new folder for the model")
            self.inside = self.target.is_dir()
            self.place = self._beside() if not self.inside else self.target / f".cloudtune-{0:016x}.part"
            self.folder = self.place / self.key
            try:
                self.refuse_model()  # before anything is made
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
                    if self.inside == self.target.is_dir():
                        stack.pop_all()
                        return lock

    def _taken(self, lock: Lock) -> bool:
        """Take the lock; False if whoever had it has removed it meanwhile."""
        lock.take(self.shown)
        return lock.is_there()

    def _beside(self) -> Path:
        name = hashlib.sha256(os.fsencode(self.target.name)).hexdigest()[:16]
        return self.target.parent / f".cloudtune-{name}.part"

    def _look(self) -> None:
        """Find out what an earlier try has left, and forget what cannot be trusted."""
        if self.inside:
            self._adopt()
        note = self._note()
        self.moving = frozenset(note.get("moving", ()))
        self.refuse_model()
        if (note or self.folder.is_dir()) and note.get("boot") != boot():
            for name in self.moving:
                (self.target / name).unlink(missing_ok=True)
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

    def refuse_model(self) -> None:
        """Raise UsageError if a model is there already that is not being moved there by this very key."""
        moving = self.moving or self._note().get("moving", ())
        if self.inside and not moving and holds_model(path.name for path in self.target.iterdir()):
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

    def what_is_left(self) -> str:
        """Return what to tell whoever interrupted: how it goes on, and where what is done lies meanwhile."""
        begun = self.folder.is_dir() and any(self.folder.iterdir())
        return GOES_ON + (f" ({self.place} holds what is done)" if begun else "")

    def begin(self) -> None:
        """Make the folder for complete files, unless an earlier try has left one."""
        if not self.folder.is_dir():
            self.folder.mkdir()
            self._write_note()

    def _note_path(self) -> Path:
        return self.place / f"{self.key}.json"

    def _note(self) -> dict[str, Any]:
        return _json(self._note_path())

    def note_moving(self, names: Iterable[str]) -> None:
        """Note that files are being moved, and were, if the process should end meanwhile."""
        self.moving |= frozenset(names)
        self._write_note(moving=sorted(self.moving))

    def remove(self) -> None:
        """Remove the workplace with all that is in it: the model is whole."""
        shutil.rmtree(self.place, ignore_errors=True)

    def _write_note(self, **facts: object) -> None:
        partial_path = self._note_path().with_suffix(".part")
        partial_path.write_text(json.dumps({"boot": boot(), **facts}))
        partial_path.replace(self._note_path())


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
