"""Files at any URI that fsspec knows: up, down, listed, removed.

What is written is there whole or not at all (a temporary name and a rename on this machine; object stores work that
way themselves), and transfers never nest: a folder's contents land directly below the URI, also the second time.
Object stores have no folders, so an empty one is nothing: it is not transferred, and lists like one that is missing.

Every error names the URI without its secrets: :class:`~cloudtune.errors.NotAllowed`,
:class:`~cloudtune.errors.MissingExtra`, or :class:`~cloudtune.errors.ServiceError`. fsspec is imported when something
is elsewhere: it takes longer than all the rest.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import attrs

from cloudtune.errors import CloudtuneError, MissingExtra, NotAllowed, ServiceError, UsageError
from cloudtune.uri import filled, join, local_path, scheme_of, shown

__all__ = ["Entry", "download", "exists", "file_system", "join", "listing", "remove", "told", "upload"]

#: Called with the bytes done and the bytes in all; perhaps from another thread.
Progress = Callable[[int, int], None]

_EXTRAS = {"s3": "aws", "s3a": "aws", "oci": "oci", "ocilake": "oci", "hf": "local"}
_SERVICES = {"s3": "aws.s3", "s3a": "aws.s3", "oci": "oci.object_storage", "ocilake": "oci.object_storage"}
#: What opens the file system of a scheme, by dotted name: the client of that cloud knows who the user is there.
_OPENERS = {
    "oci": "cloudtune.clients.oci_storage:file_system",
    "s3": "cloudtune.clients.aws_storage:file_system",
    "s3a": "cloudtune.clients.aws_storage:file_system",
}
_SIGN_IN = {
    "aws.s3": "sign in to AWS: aws configure",
    "oci.object_storage": "set up a profile: oci setup config, or sign in again: oci session authenticate",
}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "InvalidConfig", "ConfigFileNotFound"}
#: Where fsspec's own way of counting bytes is.
_CALLBACKS = "cloudtune.callbacks"
_BATCH = 64
_PARTIAL = re.compile(r"\.cloudtune-[0-9a-f]{16}\.part")
_MAGIC = re.compile(r"[*?\[]")


@attrs.frozen(kw_only=True)
class Entry:
    """A file below a URI: its path from there (empty for the URI itself), size, and Unix time of writing.

    ``tag`` is what a store calls the content, an ETag or the id of a blob; the Hub says no time.
    """

    path: str
    bytes: int
    modified: float | None = None
    tag: str | None = attrs.field(default=None, eq=False)

    @property
    def state(self) -> tuple[str, int, float | None, str | None]:
        """What tells it from another file in its place."""
        return self.path, self.bytes, self.modified, self.tag


def upload(source: Path, uri: str, *, progress: Progress | None = None) -> tuple[Entry, ...]:
    """Copy a file to a URI, or a folder's contents below it, and return what was copied.

    A file goes to the URI itself, or below it under its own name if the URI ends with a slash. Links to files and
    folders are followed. What else lies below the URI stays.
    """
    source = Path(os.path.abspath(source))  # noqa: PTH100 - a link keeps its own name
    if not source.is_dir() and not source.is_file():
        raise UsageError(f"there is no file or folder {source}", hint="nothing was copied")
    with told("read", str(source)):
        found = list(_local_entries(source))
    if not source.is_dir() and uri.endswith("/"):
        uri = join(uri, source.name)
    folder = local_path(uri)
    meter = _meter(found, progress, here=folder is not None)
    pairs = [(source / entry.path if entry.path else source, entry.path) for entry in found]
    with told("upload", uri):
        if folder is not None:
            for (path, below), entry in zip(pairs, found, strict=True):
                _copy(path, folder / below if below else folder)
                meter.add(entry.bytes)
        elif pairs:
            files, start = file_system(uri)
            targets = [f"{start.rstrip('/')}/{below}" if below else start for _, below in pairs]
            files.put([str(path) for path, _ in pairs], targets, callback=meter)
    meter.finish()
    return tuple(found)


def download(uri: str, target: Path, *, progress: Progress | None = None) -> tuple[Entry, ...]:
    """Copy the file at a URI to a path, or what lies below it into a folder, and return what was copied.

    A file goes to the path itself, or into it if it is a folder. What else lies in the folder stays.
    """
    found = listing(uri)
    if not found:
        raise _nothing("download", uri)
    if found[0].path == "" and target.is_dir():
        target /= PurePosixPath(uri.rstrip("/")).name
    source = local_path(uri)
    meter = _meter(found, progress, here=source is not None)
    pairs = [(entry.path, _below(target, entry.path, uri)) for entry in found]
    with told("download", uri):
        if source is not None:
            for (path, goal), entry in zip(pairs, found, strict=True):
                _copy(source / path if path else source, goal)
                meter.add(entry.bytes)
        else:
            files, start = file_system(uri)
            for first in range(0, len(pairs), _BATCH):
                _fetch(files, start, pairs[first : first + _BATCH], meter)
    meter.finish()
    return found


def listing(uri: str) -> tuple[Entry, ...]:
    """Return every file below a URI, sorted by path; a file lists as itself, with an empty path.

    What is not there lists as nothing. ``join(uri, entry.path)`` is the file's own URI.
    """
    path = local_path(uri)
    with told("list", uri):
        if path is not None:
            return tuple(sorted(_local_entries(path), key=lambda entry: entry.path))
        files, start = file_system(uri)
        entries = (_entry(start, name, info) for name, info in _find(files, start).items())
        return tuple(sorted(filter(None, entries), key=lambda entry: entry.path))


def exists(uri: str) -> bool:
    """Return whether there is a file, or something below, at a URI."""
    path = local_path(uri)
    with told("look up", uri):
        if path is not None:
            return os.path.exists(path)  # noqa: PTH110 - says no below a file, too
        files, start = file_system(uri)
        try:
            files.info(start)
        except FileNotFoundError:
            return bool(_find(files, start))
        return True


def remove(uri: str) -> None:
    """Remove a file or everything below a URI; what is not there is fine.

    Raises:
        UsageError: it is a whole bucket, the root or home folder of this machine, or holds the current folder.
    """
    path = local_path(uri)
    with told("remove", uri):
        if path is not None:
            _remove_local(path)
            return
        files, start = file_system(uri)
        place = start.strip("/")
        if not place or ("/" not in place and scheme_of(uri) != "memory"):
            raise UsageError(f"{shown(uri)} is a whole bucket, which is not removed", hint="name a path in it")
        if not _MAGIC.search(start):
            try:
                files.rm(start, recursive=True)
            except FileNotFoundError:
                return
        else:
            for name in _find(files, start):  # rm would read the name as a pattern
                files.rm_file(name)


# --- this machine


def _local_entries(path: Path, below: str = "", above: tuple[str, ...] = ()) -> Iterator[Entry]:
    """Yield the files at a path; links are followed, but never round in a circle."""
    if not path.is_dir():
        if path.is_file():
            facts = path.stat()
            yield Entry(path=below, bytes=facts.st_size, modified=facts.st_mtime)
        return
    real = os.path.realpath(path)
    if real in above:
        return
    for child in path.iterdir():
        if not _PARTIAL.fullmatch(child.name):
            yield from _local_entries(child, f"{below}/{child.name}" if below else child.name, (*above, real))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(target)
    try:
        shutil.copyfile(source, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _partial(target: Path) -> Path:
    return target.with_name(f".cloudtune-{secrets.token_hex(8)}.part")


def _remove_local(path: Path) -> None:
    named = {path, path.parent.resolve() / path.name}  # a link is removed itself, but may lie behind others
    home = Path("~").expanduser()
    for kept in (Path.cwd(), home, home.resolve()):
        if not named.isdisjoint((kept, *kept.parents)):
            raise UsageError(f"{path} is not removed, {kept} is part of it", hint="name a folder below it")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# --- elsewhere


def file_system(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path there; nothing remembered from before is trusted.

    A password that the record of a run leaves out of its URI is taken from the environment.
    """
    scheme = scheme_of(uri)
    if scheme in _OPENERS:
        import_module("fsspec").get_filesystem_class(scheme)  # says which package is missing
        module, _, name = _OPENERS[scheme].partition(":")
        files, start = getattr(import_module(module), name)(filled(uri, os.environ))
    else:
        files, start = import_module("fsspec.core").url_to_fs(filled(uri, os.environ))
    files.invalidate_cache()
    return files, start


def _find(files: Any, start: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the files below a path, with their facts; nothing for what is not there."""
    waiting: Any = import_module("fsspec.asyn").AsyncFileSystem
    if isinstance(files, waiting):
        walks = type(files)._find is waiting._find  # noqa: SLF001 - to see whether it is overridden
    else:
        walks = type(files).find is import_module("fsspec").AbstractFileSystem.find
    # fsspec's own walk passes over folders that it may not read or that did not answer, unless told otherwise
    options = {"on_error": "raise"} if walks else {}
    try:
        found: Mapping[str, Mapping[str, Any]] = files.find(start, detail=True, **options)
    except FileNotFoundError:
        return {}
    return {name: facts or files.info(name) for name, facts in found.items()}


def _entry(start: str, name: str, info: Mapping[str, Any]) -> Entry | None:
    if info.get("type") == "directory" or name.endswith("/"):
        return None  # the markers that some tools leave for folders
    # a file system may answer with a longer name of the same place: bucket becomes bucket@namespace
    start = start.rstrip("/")
    same = name == start or name.startswith(f"{start}/")
    inside, key = (name, start) if same else (name.partition("/")[2], start.partition("/")[2])
    if inside != key and not inside.startswith(f"{key}/" if key else ""):
        return None
    tag = next((value for name in ("ETag", "etag", "blob_id") if isinstance(value := info.get(name), str)), None)
    size = int(info.get("size") or 0)
    return Entry(path=inside[len(key) :].lstrip("/"), bytes=size, modified=_modified(info), tag=tag)


def _modified(info: Mapping[str, Any]) -> float | None:
    for key in ("mtime", "LastModified", "last_modified", "timeModified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return None


def _below(target: Path, path: str, uri: str) -> Path:
    """Return where a listed file goes; names come from elsewhere and may try to leave the folder."""
    parts = path.split("/") if path else []
    if any(part in ("", ".", "..") or (os.name == "nt" and set(part) & set('\\:"<>|')) for part in parts):
        message = f"{path!r} below {shown(uri)} cannot be a file's name here"
        raise ServiceError(message, service=_service(uri), operation="download", hint="rename it there")
    return target.joinpath(*parts)


def _fetch(files: Any, start: str, pairs: Iterable[tuple[str, Path]], meter: Any) -> None:
    jobs = [(f"{start.rstrip('/')}/{path}" if path else start, goal, _partial(goal)) for path, goal in pairs]
    for _, goal, _ in jobs:
        goal.parent.mkdir(parents=True, exist_ok=True)
    try:
        files.get([name for name, _, _ in jobs], [str(partial) for _, _, partial in jobs], callback=meter)
        for _, goal, partial in jobs:
            partial.replace(goal)
    finally:
        for _, _, partial in jobs:
            partial.unlink(missing_ok=True)


def _meter(found: Sequence[Entry], progress: Progress | None, *, here: bool) -> Any:
    """Return what adds up the bytes of all files of a transfer: on this machine, or through fsspec."""
    kind: Any = Tally if here else import_module(_CALLBACKS).Meter
    return kind(sum(entry.bytes for entry in found), progress)


class Tally:
    """Adds up the bytes of all files of a transfer."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.done, self.progress = total, 0, progress

    def add(self, count: int) -> None:
        """Note bytes that have passed; a part that is sent again counts once."""
        self.done = min(self.total, self.done + count)
        if self.progress is not None and count:
            self.progress(self.done, self.total)

    def finish(self) -> None:
        """Note that everything has passed, also where a file system did not say so."""
        self.add(self.total - self.done)


# --- errors


def _service(uri: str) -> str:
    return _SERVICES.get(scheme_of(uri), "storage")


def _nothing(operation: str, uri: str) -> ServiceError:
    hint = "check its spelling" if local_path(uri) else "check its spelling, and that you may see it"
    return ServiceError(f"there is nothing at {shown(uri)}", service=_service(uri), operation=operation, hint=hint)


def _nowhere(uri: str, error: FileNotFoundError) -> ServiceError:
    if error.filename is not None and Path(os.fspath(error.filename)).is_absolute():
        message, hint = f"{error.filename} went away while it was copied to {shown(uri)}", "try again"
    else:
        message, hint = f"there is no place for {shown(uri)}", "create its bucket, or check its name and your rights"
    return ServiceError(message, service=_service(uri), operation="upload", hint=hint)


@contextmanager
def told(operation: str, uri: str) -> Iterator[None]:
    """Turn whatever a file system raises into an error that names the URI and says what to do."""
    try:
        yield
    except CloudtuneError:
        raise
    except FileNotFoundError as error:
        raise (_nowhere(uri, error) if operation == "upload" else _nothing(operation, uri)) from error
    except ImportError as error:
        raise _missing(operation, uri, error) from error
    except Exception as error:  # every file system has errors of its own
        raise _failed(operation, uri, error) from error


def _missing(operation: str, uri: str, error: ImportError) -> CloudtuneError:
    extra = _EXTRAS.get(scheme_of(uri))
    if extra is not None:
        return MissingExtra(extra, f"to {operation} {shown(uri)}")
    return CloudtuneError(
        f"to {operation} {shown(uri)}: {shown(str(error))}", hint="install that package beside cloudtune"
    )


def _failed(operation: str, uri: str, error: Exception) -> CloudtuneError:
    service = _service(uri)
    in_the_way = _file_in_the_way(error)
    if in_the_way is not None:
        hint = "name another place, or move that file away"
        return UsageError(
            f"{in_the_way} is a file, and a folder is needed there to {operation} {shown(uri)}", hint=hint
        )
    said = shown(str(error).strip().partition("\n")[0]) or type(error).__name__
    if isinstance(error, PermissionError):
        hint = "ask whoever owns it for the right to read and write there"
        if "authentication" in said:  # not what the user may do is in question, but who that is
            hint = _SIGN_IN.get(service, hint)
        return NotAllowed(f"you may not {operation} {shown(uri)}: {said}", hint=hint)
    if type(error).__name__ in _NO_CREDENTIALS:
        return NotAllowed(f"no credentials to {operation} {shown(uri)}: {said}", hint=_SIGN_IN.get(service, "sign in"))
    if isinstance(error, ValueError) and "Protocol not known" in said:
        known = "a local path, file://, s3:// and oci:// are"
        return UsageError(f"{scheme_of(uri)}:// is no kind of storage that is known here", hint=known)
    hint = "end the URI with a slash to copy into it" if isinstance(error, IsADirectoryError) else "try again"
    return ServiceError(f"{shown(uri)}: {said}", service=service, operation=operation, hint=hint)


def _file_in_the_way(error: Exception) -> Path | None:
    """Return the file of this machine that stands where a folder was to be made, if that is what went wrong."""
    if not isinstance(error, (FileExistsError, NotADirectoryError)) or error.filename is None:
        return None
    path = Path(os.fsdecode(error.filename)).absolute()
    return next((one for one in (path, *path.parents) if one.is_file()), None)
