"""What git knows about a folder: its top, the files it tracks, and the ignore rules kept outside the tree.

Git is asked where it is installed. Without it, or where it refuses (a folder of another owner in a container), the
rules are still read, and a note says what could not be known: files that are tracked although ignored, and a
configured ``core.excludesFile``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import attrs

from cloudtune.workspace.ignore import Rules, parse_rules

_SUBMODULE = "160000"
#: Set inside git's own hooks; they would make git answer for another repository than the folder's.
_MISLEADING = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
)


@attrs.frozen(kw_only=True)
class Repository:
    """The repository that a folder lies in.

    ``top`` is its top folder and ``prefix`` the folder's own place below it (``b""`` or ``b"a/b/"``). ``tracked`` maps
    the tracked paths below the folder, relative to ``top``, to git's mode (``"100755"`` is executable).
    ``outside`` holds the rules kept outside the tree, strongest first.
    """

    top: Path
    prefix: bytes = b""
    tracked: Mapping[bytes, str] = attrs.field(factory=dict)
    outside: tuple[Rules, ...] = ()
    ignore_case: bool = False
    note: str | None = None

    @property
    def tracked_folders(self) -> frozenset[bytes]:
        """The folders, relative to ``top``, that hold something tracked, submodules themselves included."""
        folders = {path for path, mode in self.tracked.items() if mode == _SUBMODULE}
        for path in self.tracked:
            parent = path.rpartition(b"/")[0]
            while parent and parent not in folders:
                folders.add(parent)
                parent = parent.rpartition(b"/")[0]
        return frozenset(folders)


def is_top(folder: Path) -> bool:
    """Return whether the folder is the top of a repository: a clone, a linked work tree or a submodule."""
    marker = folder / ".git"
    if os.path.isdir(marker):  # noqa: PTH112 - unlike pathlib's it says no to a folder that may not be entered
        return os.path.lexists(marker / "HEAD")
    try:
        with marker.open("rb") as file:
            return file.read(8) == b"gitdir: "
    except OSError:
        return False


def find_repository(folder: Path) -> Repository | None:
    """Return the repository that a real, absolute folder lies in, or None."""
    top = next((each for each in (folder, *folder.parents) if is_top(each)), None)
    if top is None:
        return None
    try:
        asked = _git(folder, "rev-parse", "--show-prefix")
    except OSError:
        return _read_without_git(folder, top, "git is not installed")
    if asked.returncode == 0:
        return _read_with_git(folder, asked.stdout.removesuffix(b"\n"))
    if b"not a git repository" in asked.stderr:
        return None  # a broken one, or one beyond a mount point: git does not see it either
    return _read_without_git(folder, top, asked.stderr.decode(errors="replace").partition("\n")[0])


def _read_with_git(folder: Path, prefix: bytes) -> Repository:
    top = folder.parents[prefix.count(b"/") - 1] if prefix else folder
    ignore_case = _line(top, "config", "--type=bool", "--get", "core.ignoreCase") == b"true"
    files = [top / os.fsdecode(_line(top, "rev-parse", "--git-path", "info/exclude"))]
    configured = _git(top, "config", "--type=path", "--null", "--get", "core.excludesFile")
    own = configured.stdout.removesuffix(b"\0")
    if configured.returncode != 0:
        files.append(_default_excludes())
    elif own:
        files.append(top / os.fsdecode(own))
    listed = _git(folder, "ls-files", "-z", "--stage")
    return Repository(
        top=top,
        prefix=prefix,
        tracked=_tracked(listed.stdout, prefix),
        outside=_rules(files, ignore_case),
        ignore_case=ignore_case,
        note=_unknown(listed.stderr.decode(errors="replace")) if listed.returncode else None,
    )


def _read_without_git(folder: Path, top: Path, reason: str) -> Repository:
    return Repository(
        top=top,
        prefix=os.fsencode(folder.relative_to(top).as_posix()) + b"/" if folder != top else b"",
        outside=_rules([top / ".git" / "info" / "exclude", _default_excludes()], ignore_case=False),
        note=_unknown(reason),
    )


def _unknown(reason: str) -> str:
    return f"files that git tracks although they are ignored stay behind, for git could not say which: {reason.strip()}"


def _tracked(records: bytes, prefix: bytes) -> dict[bytes, str]:
    tracked = {}
    for record in filter(None, records.split(b"\0")):
        facts, _, path = record.partition(b"\t")
        tracked[prefix + path] = facts[:6].decode()
    return tracked


def _rules(files: list[Path], ignore_case: bool) -> tuple[Rules, ...]:
    return tuple(parse_rules(_content(file), ignore_case=ignore_case) for file in files)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""  # most people have neither file; git passes over one that it cannot read, too


def _default_excludes() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser(), "git", "ignore")


def _line(folder: Path, *words: str) -> bytes:
    return _git(folder, *words).stdout.removesuffix(b"\n")


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    environment["LC_ALL"] = "C"
    return subprocess.run(
        ["git", "-C", os.fspath(folder), *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
