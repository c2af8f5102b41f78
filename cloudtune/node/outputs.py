"""The job's files, kept while it runs and at its end, also when it failed; and the node's log beside them."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, Protocol

from cloudtune.node.errors import NodeError
from cloudtune.node.log import Log
from cloudtune.node.masks import shown
from cloudtune.node.transfer import Courier, copy_file
from cloudtune.node.uris import scheme_of

#: Failing files after which the rest is not tried any more.
_MOST_FAILURES = 5


class Store(Protocol):
    """A place that keeps files by relative names; its URI is shown to people."""

    uri: str

    def put(self, source: Path, name: str) -> None:
        """Keep a file under a name; whoever looks finds all of it or nothing."""

    def remove(self, name: str) -> None:
        """Remove a file."""


class FolderStore:
    """A folder of this node: a disk, a mount, a volume."""

    def __init__(self, root: Path, uri: str) -> None:
        self.root = root
        self.uri = uri

    def put(self, source: Path, name: str) -> None:
        """Copy a file into the folder."""
        copy_file(source, self.root / name)

    def remove(self, name: str) -> None:
        """Remove a file of the folder."""
        path = self.root / name
        path.unlink()
        if path.parent != self.root and not any(path.parent.iterdir()):
            path.parent.rmdir()


class RemoteStore:
    """Any place that fsspec reaches."""

    def __init__(self, uri: str, courier: Courier) -> None:
        self._uri = uri.rstrip("/")
        self.uri = shown(self._uri)
        self._courier = courier

    def put(self, source: Path, name: str) -> None:
        """Upload a file."""
        self._courier.ask(scheme_of(self._uri), do="put", uri=f"{self._uri}/{name}", **{"from": str(source)})

    def remove(self, name: str) -> None:
        """Remove an uploaded file."""
        self._courier.ask(scheme_of(self._uri), do="remove", uri=f"{self._uri}/{name}")


class Look(NamedTuple):
    """What was seen of the folder: files by relative name with size and time, and folders left out."""

    files: dict[str, tuple[int, int]]
    skipped: tuple[str, ...]


def look(root: Path, *, excluded: Collection[Path] = ()) -> Look:
    """Return the regular files below a folder; a link to a file counts as one, a link to a folder is left out."""
    files: dict[str, tuple[int, int]] = {}
    skipped: list[str] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError:
            continue  # removed meanwhile, as trainers do with old checkpoints
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    if root / name not in excluded:
                        waiting.append(name)
                elif entry.is_file():
                    status = entry.stat()
                    files[name] = (status.st_size, status.st_mtime_ns)
                elif entry.is_symlink() and entry.is_dir():
                    skipped.append(name)
            except OSError:
                continue
    return Look(files, tuple(skipped))


class Outputs:
    """Keeps the files below ``folder`` in a store: those at rest every few seconds, all at the end."""

    def __init__(self, folder: Path, store: Store, log: Log, *, node: int, layout: str, interval_s: float) -> None:
        self.folder = folder
        self.store = store
        self.log = log
        self.node = node
        self.prefix = f"node-{node}/" if node and layout == "perNode" else ""
        self._interval_s = interval_s
        self._kept: dict[str, tuple[int, int]] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._kept_log_size = 0
        self._warned = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        root = store.root.absolute() if isinstance(store, FolderStore) else None
        #: The job writes where its files are kept: there is nothing to copy.
        self.in_place = root is not None and not self.prefix and root == folder.absolute()
        self._excluded = {root} if root is not None else set()

    def probe(self, run_id: str, scratch: Path) -> None:
        """Write and remove a small file, so that a wrong place is found out before hours of training."""
        sample = scratch / "probe"
        name = f"{self.prefix}.cloudtune-probe-{run_id}-{self.node}"
        try:
            sample.write_text(run_id, encoding="utf-8")
            self.store.put(sample, name)
            self.store.remove(name)
        except (OSError, NodeError) as error:
            raise NodeError(f"outputs cannot be kept at {self.store.uri}: {_words(error)}") from error
        finally:
            sample.unlink(missing_ok=True)

    def start(self) -> None:
        """Begin to keep files that rest."""
        self._thread = threading.Thread(target=self._keep_on, name="outputs", daemon=True)
        self._thread.start()

    def finish(self) -> str | None:
        """Keep all files that are not kept yet; return what went wrong, or None."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self.in_place:
            return None
        now = look(self.folder, excluded=self._excluded)
        for name in now.skipped:
            self.log.say(f"outputs: {name} is a link to a folder and is not kept")
        changed = [name for name, state in now.files.items() if self._kept.get(name) != state]
        failures: list[str] = []
        for name in sorted(changed):
            failure = self._keep(name, now.files[name])
            if failure:
                failures.append(failure)
            if len(failures) >= _MOST_FAILURES or (failure and _full(failure)):
                break
        if failures:
            return f"outputs could not be kept at {self.store.uri}: {failures[0]} ({len(changed)} files were to go)"
        return None

    def keep_log(self) -> str | None:
        """Keep the node's log; return what went wrong, or None."""
        return self.keep_beside(self.log.path, f"logs/node-{self.node}.log")

    def keep_beside(self, path: Path, name: str) -> str | None:
        """Keep a file of the agent's own; return what went wrong, or None."""
        try:
            if path.exists():
                self.store.put(path, name)
        except (OSError, NodeError) as error:
            return f"{name} could not be kept at {self.store.uri}: {_words(error)}"
        return None

    def _keep_on(self) -> None:
        while not self._over.wait(self._interval_s):
            now = {} if self.in_place else look(self.folder, excluded=self._excluded).files
            for name, state in now.items():
                if self._over.is_set():
                    return
                if self._seen.get(name) == state and self._kept.get(name) != state:
                    self._warn(self._keep(name, state))
            self._seen = now
            self._keep_grown_log()

    def _keep_grown_log(self) -> None:
        # a long log goes more rarely: each time it has grown by a tenth
        size = self.log.path.stat().st_size if self.log.path.exists() else 0
        if size > self._kept_log_size * 1.1:
            self._warn(self.keep_log())
            self._kept_log_size = size

    def _keep(self, name: str, state: tuple[int, int]) -> str | None:
        try:
            self.store.put(self.folder / name, self.prefix + name)
        except (OSError, NodeError) as error:
            if not (self.folder / name).exists():
                return None  # removed meanwhile, as trainers do with old checkpoints
            return f"{name}: {_words(error)}"
        self._kept[name] = state
        return None

    def _warn(self, failure: str | None) -> None:
        if failure and not self._warned:
            self._warned = True
            self.log.say(f"warning: outputs: {failure}; it is tried again at the end")


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        hint = "; the disk there is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return error.strerror + hint
    return str(error) or type(error).__name__


def _full(failure: str) -> bool:
    return "the disk there is full" in failure
