"""The file system that a node sees: this machine's, with the cloud's own paths over it.

A new root is put together from mounts alone: every entry of ``/`` is bound into it, and where a path of the cloud has
no place on this machine (``/opt/ml``), its nearest folder is rebuilt in memory with the old entries bound beside the
new one. So nothing is ever created on the real file system, and nothing outlives the node.

Paths are text here: those of the room are relative to a root that is not this process's own yet.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, TypedDict

from cloudtune.rehearsal import syscalls

_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV
_MOST_LINKS = 40


class Bind(TypedDict):
    """One path of the node: a folder or file of this machine, or None for an empty folder in memory."""

    target: str
    source: str | None
    read_only: bool
    size_bytes: int | None


class _Mount(NamedTuple):
    """What a path of the room shows, None for memory, and whether entries may be created there for the node."""

    source: str | None
    own: bool


class Room:
    """The root of one node while it is built, at an empty folder.

    ``protect`` keeps the node from changing this machine's own files; ``protected`` says whether that was possible.
    """

    def __init__(self, root: str, *, protect: bool) -> None:
        self.root = root
        self.protected = self._protect = protect
        self._mounts: dict[str, _Mount] = {}

    def build(
        self, binds: Sequence[Bind], *, visible: Collection[str], hidden: Collection[str], fresh_proc: bool
    ) -> None:
        """Build the room, in a mount namespace of this process's own.

        ``visible`` are paths of this machine that no bind must cover, such as the interpreter's; ``hidden`` are those
        in whose place there is nothing.
        """
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("rehearsed", self.root, "tmpfs", _FLAGS, "mode=755")
        # what is bound into the room must not bring the room along
        syscalls.mount(None, self.root, None, syscalls.MS_UNBINDABLE)
        self._mounts[""] = _Mount(None, own=True)
        self._take_over("", "/", but={"proc"} if fresh_proc else ())
        if fresh_proc:
            os.mkdir(self.root + "/proc", 0o755)
            syscalls.mount("proc", self.root + "/proc", "proc", _FLAGS | syscalls.MS_NOEXEC)
        for path in hidden:
            self._hide(self._resolved(path))
        for bind in sorted(binds, key=lambda bind: bind["target"].rstrip("/").count("/")):
            self._place(bind)
        for path in visible:
            if os.path.exists(path) and not self._shows(self._resolved(path), path):
                self._place({"target": path, "source": path, "read_only": True, "size_bytes": None})
                for below in hidden:
                    if self._resolved(below).startswith(self._resolved(path) + "/"):
                        self._hide(self._resolved(below))

    def enter(self) -> None:
        """Make the room the root of this process."""
        syscalls.enter_root(self.root)

    def _shows(self, target: str, path: str) -> bool:
        return os.path.exists(self.root + target) and os.path.samefile(self.root + target, path)

    def _place(self, bind: Bind) -> None:
        target, source = self._resolved(bind["target"]), bind["source"]
        self._make(target, folder=source is None or os.path.isdir(source))
        if source is None:
            size = f",size={bind['size_bytes']}" if bind["size_bytes"] else ""
            syscalls.mount("rehearsed", self.root + target, "tmpfs", _FLAGS, f"mode=1777{size}")
        else:
            syscalls.bind(source, self.root + target)
        if bind["read_only"]:
            syscalls.make_read_only(self.root + target)
        self._mounts[target] = _Mount(source, own=not bind["read_only"])

    def _hide(self, target: str) -> None:
        full = self.root + target
        if os.path.isdir(full):
            syscalls.mount("rehearsed", full, "tmpfs", _FLAGS | syscalls.MS_RDONLY, "mode=755")
            self._mounts[target] = _Mount(None, own=False)
        elif os.path.exists(full):
            syscalls.bind("/dev/null", full)

    def _resolved(self, path: str) -> str:
        """Return a path of the room with its links followed in the room: ``/var/run/x`` is ``/run/x`` on most."""
        done, links = "", 0
        waiting = path.split("/")[::-1]
        while waiting:
            word = waiting.pop()
            here = f"{done}/{word}"
            if word in ("", "."):
                continue
            if word == "..":
                done = os.path.dirname(done) if done else ""
            elif os.path.islink(self.root + here):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(f"{path}: too many symbolic links")
                aim = os.readlink(self.root + here)
                done = "" if aim.startswith("/") else done
                waiting += aim.split("/")[::-1]
            else:
                done = here
        return done.rstrip("/")

    def _make(self, target: str, *, folder: bool) -> None:
        """See to it that a path exists, as a folder or a file, by changing the room alone."""
        here = ""
        words = target.split("/")[1:]
        for number, word in enumerate(words):
            parent, here = here, f"{here}/{word}"
            if os.path.lexists(self.root + here):
                continue
            if not self._mount_of(parent)[1].own:
                self._open(parent)
            if folder or number < len(words) - 1:
                os.mkdir(self.root + here, 0o755)
            else:
                _touch(self.root + here)

    def _mount_of(self, path: str) -> tuple[str, _Mount]:
        """Return the mount on which a path of the room lies: where it is, and what it shows."""
        while path not in self._mounts:
            path = os.path.dirname(path).rstrip("/")
        return path, self._mounts[path]

    def _open(self, path: str) -> None:
        """Rebuild a folder of the machine in memory, so that entries can be added."""
        place, mount = self._mount_of(path)
        origin = mount.source + path[len(place) :] if mount.source is not None else None
        mode = stat.S_IMODE(os.stat(origin).st_mode) if origin else 0o755
        syscalls.mount("rehearsed", self.root + path, "tmpfs", _FLAGS, f"mode={mode | 0o700:o}")
        self._mounts[path] = _Mount(None, own=True)
        if origin:
            self._take_over(path, origin)

    def _take_over(self, folder: str, origin: str, *, but: Collection[str] = ()) -> None:
        """Bind every entry of a folder of the machine into an empty folder of the room."""
        with os.scandir(origin) as entries:
            for entry in entries:
                if entry.name in but:
                    continue
                try:
                    self._take(entry, f"{folder}/{entry.name}")
                except FileNotFoundError:
                    pass  # removed while this was going on

    def _take(self, entry: os.DirEntry[str], target: str) -> None:
        full = self.root + target
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), full)
            return
        if entry.is_dir(follow_symlinks=False):
            os.mkdir(full, 0o755)
        else:
            _touch(full)
        syscalls.bind(entry.path, full)
        # writing to /proc changes processes, not files
        if self._protect and target != "/proc" and not syscalls.make_read_only(full):
            self.protected = False
        self._mounts[target] = _Mount(entry.path, own=False)


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def hosts_text(hosts: Mapping[str, str]) -> str:
    """Return the text of a node's ``/etc/hosts``: its loopback and the names of all nodes."""
    rows = ["# rehearsed", "127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    return "\n".join([*rows, *(f"{address}\t{name}" for name, address in hosts.items())]) + "\n"
