"""Where the files of a model are gathered before they are filed: a folder aside, and a journal of what is complete.

Whoever gathers holds a kernel lock on the journal. What a process left behind that was killed is therefore known: the
next one to file the same model goes on with it, and anything else that is left is cleared away.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import attrs

from cloudtune import storage
from cloudtune.checksums import sha256
from cloudtune.errors import CloudtuneError, NotAllowed, ServiceError, UsageError
from cloudtune.registries.source import Source, each
from cloudtune.storage import Entry

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: nothing is continued or cleared there
    fcntl = None  # type: ignore[assignment]

_FOLDER, _JOURNAL = ".part", ".journal"


@attrs.frozen(kw_only=True)
class Line:
    """What the journal says of a file that is complete: what it was copied from, and the SHA-256 of both."""

    path: str
    bytes: int
    modified: float | None
    sha256: str


class Workplace:
    """A folder in which one process gathers the files of one model."""

    def __init__(self, folder: Path, journal: IO[str], lines: Mapping[str, Line]) -> None:
        self.folder, self._journal, self._lines = folder, journal, lines
        self._writing, self._stopped = threading.Lock(), threading.Event()

    def gather(self, source: Source) -> dict[str, str]:
        """Copy the model's files into the folder and return their checksums; what is there already is verified only.

        Every file is hashed while it is read, and once more from where it was written. Nothing is linked: whoever
        writes over the source later must not change what was filed.

        Raises:
            UsageError: a file is not the one that the model's record names, or the disk is too small.
            CloudtuneError: a copied file does not have its source's checksum.
            ServiceError, NotAllowed: the source cannot be read; what is complete is kept for the next try.
        """
        kept = {entry.path: line for entry in source.files if (line := self._kept(source, entry)) is not None}
        self._clear_but(kept)
        needed = sum(entry.bytes for entry in source.files if entry.path not in kept)
        if needed > shutil.disk_usage(self.folder).free:
            hint = "make room, or name a home on another disk: CLOUDTUNE_HOME"
            raise UsageError(f"the model has {needed} bytes more than fit on the disk of {self.folder}", hint=hint)
        return each(lambda entry: self._one(source, entry, kept.get(entry.path)), source.files, self._stopped.set)

    def _kept(self, source: Source, entry: Entry) -> Line | None:
        """Return the line of a file that an earlier try completed, and that its source still is."""
        line = self._lines.get(entry.path)
        if line is None or (line.bytes, line.modified) != (entry.bytes, entry.modified):
            return None
        if line.modified is None and line.sha256 != source.recorded.get(line.path):
            return None  # nothing says that the source is what it was
        try:
            whole = (self.folder / line.path).stat().st_size == line.bytes
        except OSError:
            return None
        return line if whole else None

    def _clear_but(self, kept: Mapping[str, Line]) -> None:
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(self.folder).as_posix() not in kept:
                path.unlink()

    def _one(self, source: Source, entry: Entry, line: Line | None) -> str:
        """Return the checksum of one file that is in the folder when this returns."""
        target = self.folder / entry.path
        with storage.told("write", str(target)):
            if line is not None and sha256(target) == line.sha256:
                source.check(entry.path, line.sha256)
                return line.sha256
            target.unlink(missing_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            found = self._copied(source, entry, target)
            source.check(entry.path, found)
            if sha256(target) != found:
                hint = "check the disk, then register again"
                raise CloudtuneError(f"the copy of {entry.path} in {self.folder} is not equal to it", hint=hint)
            self._note(attrs.asdict(Line(path=entry.path, bytes=entry.bytes, modified=entry.modified, sha256=found)))
        return found

    def _copied(self, source: Source, entry: Entry, target: Path) -> str:
        total = hashlib.sha256()
        with target.open("wb") as file:
            for chunk in source.chunks(entry):
                if self._stopped.is_set():
                    raise CloudtuneError("stopped, because another file could not be copied")
                total.update(chunk)
                _write(file, chunk)
        return total.hexdigest()

    def _note(self, value: Mapping[str, object]) -> None:
        with self._writing:
            self._journal.write(json.dumps(value) + "\n")
            self._journal.flush()


@contextmanager
def claimed(shelf: Path, source: Source) -> Iterator[Workplace]:
    """Give a folder below ``shelf`` to gather a model in, with what a killed process left of the same model.

    What is in the folder at the end of the context is removed, unless a model from elsewhere could not be had or sent:
    then the next try goes on with it.
    """
    with storage.told("write", str(shelf)):
        shelf.mkdir(parents=True, exist_ok=True)
        folder, journal, lines = _left(shelf, source) or _fresh(shelf, source)
    keep = False
    try:
        yield Workplace(folder, journal, lines)
    except BaseException as error:
        # what comes from this machine is copied again in no time
        interrupted = isinstance(error, (ServiceError, NotAllowed)) or not isinstance(error, Exception)
        keep = interrupted and source.folder is None and fcntl is not None
        raise
    finally:
        if keep:
            journal.close()
        else:
            _clear(folder, journal)


def _left(shelf: Path, source: Source) -> tuple[Path, IO[str], dict[str, Line]] | None:
    """Return what was left of the same model, and clear away what else killed processes have left."""
    found: tuple[Path, IO[str], dict[str, Line]] | None = None
    names = {path.stem for path in shelf.glob(".cloudtune-*") if path.suffix in (_FOLDER, _JOURNAL)}
    for name in sorted(names) if fcntl is not None else ():
        folder = shelf / f"{name}{_FOLDER}"
        journal = _locked(shelf / f"{name}{_JOURNAL}")
        if journal is None:
            continue  # somebody works there
        lines = _lines_of(journal, source) if folder.is_dir() and found is None else None
        if lines is None:
            _clear(folder, journal)
        else:
            found = (folder, journal, lines)
    return found


def _fresh(shelf: Path, source: Source) -> tuple[Path, IO[str], dict[str, Line]]:
    while True:
        name = f".cloudtune-{secrets.token_hex(8)}"
        journal = _locked(shelf / f"{name}{_JOURNAL}")
        if journal is not None:  # else somebody looked at it just now, and took it for left behind
            break
    journal.write(json.dumps({"source": _identity(source)}) + "\n")
    journal.flush()
    folder = shelf / f"{name}{_FOLDER}"
    folder.mkdir()
    return folder, journal, {}


def _locked(path: Path) -> IO[str] | None:
    """Open a journal and lock it; None if a living process holds it, or removed it meanwhile."""
    journal = path.open("a+", encoding="utf-8")
    if fcntl is None:  # pragma: no cover - Windows
        return journal
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(journal.fileno()), path.stat()):
            return journal
    except OSError:
        pass
    journal.close()
    return None


def _clear(folder: Path, journal: IO[str]) -> None:
    """Remove a folder and then its journal, whose lock is held to the end."""
    shutil.rmtree(folder, ignore_errors=True)
    if fcntl is None:  # pragma: no cover - Windows cannot remove what is open
        journal.close()
    Path(journal.name).unlink(missing_ok=True)
    journal.close()


def _lines_of(journal: IO[str], source: Source) -> dict[str, Line] | None:
    """Return what a journal says is complete; None if it is of another model. Lines that were cut off count nothing."""
    journal.seek(0)
    text = journal.read()
    if text and not text.endswith("\n"):
        journal.write("\n")
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    if not found or found[0] != {"source": _identity(source)}:
        return None
    return {line["path"]: Line(**line) for line in found[1:]}


def _identity(source: Source) -> str:
    """Return what tells one place from another; a URI may hold a password, so it is not written down itself."""
    return hashlib.sha256(source.uri.encode(errors="surrogatepass")).hexdigest()


def _write(file: IO[bytes], chunk: bytes | memoryview) -> None:
    file.write(chunk)
