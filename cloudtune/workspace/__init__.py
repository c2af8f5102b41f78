"""The code that travels with a job, as a value, and the archive it travels in.

:func:`gather` lists and reads it (which files: :mod:`cloudtune.workspace.tree`) and stops at whatever looks like a
credential; :func:`pack` writes it. Nothing is changed on the way: uncommitted and untracked files travel as they are.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import tarfile
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO, BinaryIO

import attrs

from cloudtune.errors import CloudtuneError, Fault, SpecError
from cloudtune.node.archives import is_archive
from cloudtune.plan import File
from cloudtune.workspace.credentials import LIMIT, looks_like
from cloudtune.workspace.tree import OWN_RULES, Tree, list_tree, shown_path

_CHUNK = 1 << 20
_LARGEST = 5


@attrs.frozen(kw_only=True)
class Workspace:
    """The files of a folder, or one file, as they were when they were read.

    ``files`` are sorted by path (as bytes), links included; ``notes`` say what was passed over and should be known.
    ``alone`` says that a file was named and not a folder.
    """

    root: Path
    files: tuple[File, ...] = ()
    alone: bool = False
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(file.bytes for file in self.files)

    @property
    def digest(self) -> str:
        """The SHA-256 over paths, contents, executable bits and links, in hex; where the files lie is no part of it."""
        total = hashlib.sha256()
        for file in self.files:
            kind = b"link" if file.link is not None else b"executable" if file.executable else b"file"
            for part in (kind, os.fsencode(file.path), bytes.fromhex(file.sha256)):
                total.update(len(part).to_bytes(8, "big") + part)
        return total.hexdigest()

    @property
    def is_archive(self) -> bool:
        """Whether this is one archive that the user named; it travels as it is."""
        return self.alone and is_archive(self.files[0].path)

    def summary(self) -> str:
        """Return how much travels, in one line: files, size, and the largest five."""
        count = len(self.files)
        line = f"{count} file{'' if count == 1 else 's'}, {_size(self.bytes)}"
        largest = sorted(self.files, key=lambda file: (-file.bytes, os.fsencode(file.path)))[:_LARGEST]
        if count > 1:
            line += f" (largest: {', '.join(f'{shown_path(file.path)} {_size(file.bytes)}' for file in largest)})"
        return line


def gather(path: Path, *, allow: Collection[str] = ()) -> Workspace:
    """Return the code that travels: a file alone, or what git would list of a folder.

    ``allow`` names files that travel although they look like a credential, relative to the folder.

    Raises:
        SpecError: with a fault for each file that looks like a credential, cannot be read, changes while it is read,
            or is a link that leads nowhere on a node.
    """
    absolute = Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111 - keeps a linked file's name
    if not os.access(absolute, os.F_OK):
        hint = f"relative paths start at the current folder, {shown_path(str(Path.cwd()))}"
        raise SpecError(f"there is no file or folder {shown_path(str(path))}", hint=hint)
    if absolute.is_dir():
        root = absolute.resolve()
        tree = list_tree(root)
    elif absolute.is_file():
        root, tree = absolute.parent, Tree(files=(absolute.name,))
    else:
        raise SpecError(f"{shown_path(str(path))} is neither a file nor a folder", hint="name the folder of your code")
    found = _read(root, tree, {_relative(root, each) for each in allow})
    return attrs.evolve(found, alone=not absolute.is_dir())


def _read(root: Path, tree: Tree, allowed: Collection[str]) -> Workspace:
    faults = list(tree.faults)
    files = [_linked(root, path, target) for path, target in tree.links.items()]
    for path in tree.files:
        try:
            file, kind = _read_file(root, path)
        except (OSError, _ChangedError) as error:
            faults.append(_unread(path, error))
            continue
        if kind is not None and path not in allowed:
            faults.append(_suspected(path, kind))
        files.append(attrs.evolve(file, executable=True) if os.name == "nt" and path in tree.marked else file)
    if faults:
        raise SpecError(sorted(set(faults), key=str))
    return Workspace(root=root, files=tuple(sorted(files, key=lambda file: os.fsencode(file.path))), notes=tree.notes)


def _linked(root: Path, path: str, target: str) -> File:
    text = os.fsencode(target)
    digest = hashlib.sha256(text).hexdigest()
    return File(path=path, bytes=len(text), sha256=digest, source=str(root / path), link=target)


class _ChangedError(Exception):
    """A file is not what it was a moment ago."""


def _read_file(root: Path, path: str) -> tuple[File, str | None]:
    """Return a file's facts, and what kind of credential it looks like."""
    source = root / path
    digest = hashlib.sha256()
    with source.open("rb") as file:
        before = os.fstat(file.fileno())
        small = file.read(LIMIT + 1)
        digest.update(small)
        count = len(small)
        if count > LIMIT:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                count += len(chunk)
        after = os.fstat(file.fileno())
    if count != before.st_size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _ChangedError
    kind = looks_like(f"{root.name}/{path}", small if count <= LIMIT else None)
    executable = os.name != "nt" and bool(before.st_mode & 0o100)
    digested = digest.hexdigest()
    return File(path=path, bytes=count, sha256=digested, source=str(source), executable=executable), kind


def _unread(path: str, error: Exception) -> Fault:
    if isinstance(error, _ChangedError):
        hint = f"wait until nothing writes to it, or name it in {OWN_RULES}"
        return Fault(file=shown_path(path), message="changed while it was read", hint=hint)
    reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
    hint = f"make it readable, or name it in {OWN_RULES}"
    return Fault(file=shown_path(path), message=f"cannot be read: {reason}", hint=hint)


def _suspected(path: str, kind: str) -> Fault:
    name = shown_path(path)
    hint = f"name it in {OWN_RULES}, or let it travel with --allow-file {name}"
    return Fault(file=name, message=f"looks like {kind}", hint=hint)


def _relative(root: Path, name: str) -> str:
    """Return a name relative to the folder; one that is not there may be relative to the current folder."""
    for start in (root, Path.cwd().resolve()):
        path = Path(os.path.normpath(start / name))
        if path.is_relative_to(root) and os.path.lexists(path):
            return path.relative_to(root).as_posix()
    return name


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def pack(files: Workspace | Iterable[File], target: Path | BinaryIO) -> File:
    """Write files as a ``.tar.gz``, and return the archive's own size and digest.

    The same files give the same archive: sorted, owned by nobody, dated 1970. The bytes of the tar inside depend on
    the files alone; those of the compressed archive also on the zlib that Python was built with (the classic one gives
    the same bytes everywhere, zlib-ng others). A target that is a path is complete or absent; files are streamed.

    Raises:
        CloudtuneError: a file is not what it was when it was gathered.
    """
    chosen = files.files if isinstance(files, Workspace) else tuple(files)
    if not isinstance(target, Path):
        return _write(chosen, target, name="code.tar.gz", source=None)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as stream:
            archive = _write(chosen, stream, name=target.name, source=str(target))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return archive


def _write(files: tuple[File, ...], stream: IO[bytes], *, name: str, source: str | None) -> File:
    squeezed = _Squeezed(stream)
    with tarfile.open(fileobj=squeezed, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
        for file in sorted(files, key=lambda file: os.fsencode(file.path)):
            _add(archive, file)
    squeezed.finish()
    return File(path=name, bytes=squeezed.sent, sha256=squeezed.digest.hexdigest(), source=source)


def _add(archive: tarfile.TarFile, file: File) -> None:
    entry = tarfile.TarInfo(file.path)
    entry.mode = 0o755 if file.executable else 0o644
    if file.link is not None:
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, file.link, 0o777
        archive.addfile(entry)
        return
    entry.size = file.bytes
    with _opened(file) as content:
        watched = _Watched(content)
        try:
            archive.addfile(entry, watched)
            intact = watched.digest.hexdigest() == file.sha256 and not content.read(1)
        except OSError as error:
            if error.errno is not None:
                raise
            intact = False  # tarfile's own: fewer bytes came than were announced
    if not intact:
        message = f"{shown_path(file.path)} changed after it was listed"
        raise CloudtuneError(message, hint=f"wait until nothing writes to it, or name it in {OWN_RULES}")


def _opened(file: File) -> BinaryIO:
    if file.source is None:
        raise CloudtuneError(f"{shown_path(file.path)} has no source to read", hint="plan the job again")
    try:
        return Path(file.source).open("rb")
    except OSError as error:
        message = f"{shown_path(file.path)} cannot be read any more: {error.strerror}"
        raise CloudtuneError(message, hint="start again") from error


class _Watched(io.RawIOBase):
    """Reads on, and digests what passes."""

    def __init__(self, content: BinaryIO) -> None:
        self.content, self.digest = content, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data = self.content.read(size)
        self.digest.update(data)
        return data


class _Squeezed(io.RawIOBase):
    """Writes gzip without name, date and system; Python's own writer writes once more when it is dropped half done."""

    HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.digest, self.sent = stream, hashlib.sha256(), 0
        self.deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        self.size, self.crc = 0, 0
        self._send(self.HEAD)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Take the next bytes."""
        self.size += len(data)
        self.crc = zlib.crc32(data, self.crc)
        self._send(self.deflate.compress(data))
        return len(data)

    def tell(self) -> int:
        """Return how many bytes have been taken."""
        return self.size

    def finish(self) -> None:
        """Write what is left."""
        self._send(self.deflate.flush() + struct.pack("<II", self.crc, self.size & 0xFFFFFFFF))

    def _send(self, data: bytes) -> None:
        self.stream.write(data)
        self.digest.update(data)
        self.sent += len(data)
