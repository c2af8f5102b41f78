"""The files of a folder that travel: what git would list, less what ``.cloudtuneignore`` leaves out.

Two kinds of rules are asked, each with git's own precedence (deeper files beat higher ones, the last line that speaks
decides, nothing below a folder that is left out comes back):

* git's: ``.gitignore`` at any level, ``.git/info/exclude``, ``core.excludesFile``. Tracked files travel regardless.
* ``.cloudtuneignore`` at any level, which has the last word: it leaves out tracked files too, and its ``!`` lines
  bring back what git ignores.

The folder that was named travels even where a rule from above would leave it out (a training script installed in a
virtual environment whose ``.gitignore`` says ``*``): such a pattern is not in force. All others from above, up to the
top of its repository, hold for what lies in it. ``.git`` never travels. A repository inside the folder, submodules
included, is listed by its own rules. Empty folders do not travel.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import attrs

from cloudtune.errors import Fault
from cloudtune.workspace.ignore import Rules, first_verdict, lift, parse_rules
from cloudtune.workspace.repository import Repository, find_repository, is_top

GIT_RULES, OWN_RULES = ".gitignore", ".cloudtuneignore"
_HOPS = 40
_KINDS = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@attrs.frozen(kw_only=True)
class Tree:
    """What travels from a folder; paths are relative to it, with ``/``, sorted as bytes.

    ``links`` maps a link's path to where it leads, relative to the link. ``marked`` are the files that git's index
    calls executable, for systems whose files cannot say so. ``faults`` are the reasons not to go on.
    """

    files: tuple[str, ...] = ()
    links: Mapping[str, str] = attrs.field(factory=dict)
    marked: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()


def shown_path(path: str) -> str:
    """Return a path as people may see it: one line, valid text, whatever bytes it has."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def list_tree(root: Path) -> Tree:
    """Return what travels from a folder (a real, absolute path)."""
    walk = _Walk(root)
    walk.enter(root, walk.first_level())
    links, faults = _checked_links(root, walk.links, frozenset(walk.files))
    files = tuple(sorted(walk.files, key=os.fsencode))
    return Tree(
        files=files,
        links={path: links[path] for path in sorted(links, key=os.fsencode)},
        marked=frozenset(walk.marked),
        notes=tuple(walk.notes) if files else (*walk.notes, f"no file of {shown_path(str(root))} travels"),
        faults=(*walk.faults, *faults),
    )


@attrs.frozen(kw_only=True)
class _Level:
    """The rules in force in one folder, strongest first.

    ``path`` is the folder's own, from the top of the outermost repository, with a trailing slash; ``start`` is where
    the innermost repository's paths begin in it. ``tracked_only`` holds below a folder that git ignores.
    """

    path: bytes
    start: int
    repository: Repository | None
    tracked_folders: frozenset[bytes] = frozenset()
    git: tuple[Rules, ...] = ()
    own: tuple[Rules, ...] = ()
    tracked_only: bool = False


class _Walk:
    """One pass over a tree; it collects what it finds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.skip = 0
        self.files: list[str] = []
        self.links: dict[str, str] = {}
        self.marked: list[str] = []
        self.notes: list[str] = []
        self.faults: list[Fault] = []

    def first_level(self) -> _Level:
        """Return the rules that come from above the root."""
        repository = find_repository(self.root)
        if repository is None:
            return _Level(path=b"", start=0, repository=None)
        level = self.level_of(repository, b"")
        folder = repository.top
        for name in repository.prefix.split(b"/")[:-1]:
            level = self.with_rules_of(folder, level)
            path = level.path + name
            git, own = lift(level.git, path), lift(level.own, path)
            level = attrs.evolve(level, path=path + b"/", git=git, own=own)
            folder /= os.fsdecode(name)
        self.skip = len(repository.prefix)
        return level

    def level_of(self, repository: Repository, path: bytes, own: tuple[Rules, ...] = ()) -> _Level:
        """Return the level at the top of a repository."""
        if repository.note:
            self.notes.append(repository.note)
        return _Level(
            path=path,
            start=len(path),
            repository=repository,
            tracked_folders=repository.tracked_folders,
            git=repository.outside,
            own=own,
        )

    def with_rules_of(self, folder: Path, level: _Level) -> _Level:
        """Return the level with the folder's own ignore files added."""
        ignore_case = level.repository is not None and level.repository.ignore_case
        git = self.rules(folder / GIT_RULES, level.path[level.start :], ignore_case)
        own = self.rules(folder / OWN_RULES, level.path, ignore_case)
        return attrs.evolve(level, git=(*git, *level.git), own=(*own, *level.own))

    def rules(self, file: Path, base: bytes, ignore_case: bool) -> tuple[Rules, ...]:
        """Return the rules of an ignore file; like git's, a linked one does not count."""
        try:
            if not stat.S_ISREG(file.lstat().st_mode):
                return ()
            return (parse_rules(file.read_bytes(), base=base, ignore_case=ignore_case),)
        except FileNotFoundError:
            return ()
        except OSError as error:
            self.unreadable(file, error)
            return ()

    def unreadable(self, path: Path, error: OSError) -> None:
        """Record that something cannot be read."""
        name = shown_path(path.relative_to(self.root).as_posix() if self.root in path.parents else str(path))
        reason = error.strerror or type(error).__name__
        hint = f"make it readable, or name it in {OWN_RULES}"
        self.faults.append(Fault(file=name, message=f"cannot be read: {reason}", hint=hint))

    def enter(self, folder: Path, level: _Level) -> None:
        """Collect what travels from a folder and from those below it."""
        pending = [(folder, level)]
        while pending:
            pending.extend(self.visit(*pending.pop()))

    def visit(self, folder: Path, level: _Level) -> Iterator[tuple[Path, _Level]]:
        """Collect what travels from one folder, and yield the folders below it that are to be entered."""
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError as error:
            self.unreadable(folder, error)
            return
        level = self.with_rules_of(folder, level)
        for entry in entries:
            name = os.fsencode(entry.name)
            if name == b".git" or (name.lower() == b".git" and level.repository and level.repository.ignore_case):
                continue
            path = level.path + name
            if entry.is_dir(follow_symlinks=False):
                inner = self.level_below(Path(entry.path), path, level)
                if inner is not None:
                    yield Path(entry.path), inner
            elif _travels(path, level):
                try:
                    self.collect(entry, path, level)
                except OSError as error:  # it went away meanwhile
                    self.unreadable(Path(entry.path), error)

    def level_below(self, folder: Path, path: bytes, level: _Level) -> _Level | None:
        """Return the level of a folder that is to be entered, or None."""
        own = first_verdict(level.own, path, folder=True)
        if own:
            return None
        inside = path[level.start :]
        ignored = own is None and bool(first_verdict(level.git, inside, folder=True))
        tracked_only = level.tracked_only or ignored
        if tracked_only and inside not in level.tracked_folders:
            return None
        if is_top(folder):
            nested = find_repository(folder)
            if nested is not None and nested.top == folder:
                return self.level_of(nested, path + b"/", level.own)
        return attrs.evolve(level, path=path + b"/", tracked_only=tracked_only)

    def collect(self, entry: os.DirEntry[str], path: bytes, level: _Level) -> None:
        """Record a file or a link that travels; anything else gets a note."""
        name = os.fsdecode(path[self.skip :])
        if entry.is_symlink():
            self.links[name] = Path(entry.path).readlink().as_posix()
        elif entry.is_file(follow_symlinks=False):
            self.files.append(name)
            if level.repository and level.repository.tracked.get(path[level.start :]) == "100755":
                self.marked.append(name)
        else:
            kind = _KINDS.get(stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode), "no ordinary file")
            self.notes.append(f"{shown_path(name)} does not travel: it is {kind}")


def _travels(path: bytes, level: _Level) -> bool:
    own = first_verdict(level.own, path, folder=False)
    if own:
        return False
    inside = path[level.start :]
    if level.repository and inside in level.repository.tracked:
        return True
    if level.tracked_only:
        return False
    return own is False or not first_verdict(level.git, inside, folder=False)


def _checked_links(
    root: Path, links: Mapping[str, str], files: Collection[str]
) -> tuple[dict[str, str], tuple[Fault, ...]]:
    """Return the links as they travel, and a fault for each that would lead nowhere on a node.

    A link whose text leaves the folder but comes back to something that travels is rewritten to lead there directly.
    """
    folders = {""}
    for path in (*files, *links):
        parent = path.rpartition("/")[0]
        while parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    kept, faults = {}, []
    for path, target in links.items():
        parent = path.rpartition("/")[0]
        if not target.startswith("/") and _lands(f"{parent}/{target}", links, files, folders):
            kept[path] = target
            continue
        real = Path(os.path.realpath(root / path))
        inside = real.relative_to(root).as_posix() if real.is_relative_to(root) else None
        if inside == "." or inside in files or inside in folders:
            kept[path] = Path(os.path.relpath(real, root / parent)).as_posix()
            continue
        if not real.exists():
            message = f"is a link to {shown_path(target)}, which does not exist"
        elif inside is None:
            message = f"is a link that leads out of the folder, to {shown_path(target)}"
        else:
            message = f"is a link to {shown_path(target)}, which does not travel"
        hint = f"put what it leads to in its place, or name the link in {OWN_RULES}"
        faults.append(Fault(file=shown_path(path), message=message, hint=hint))
    return kept, tuple(faults)


def _lands(path: str, links: Mapping[str, str], files: Collection[str], folders: Collection[str]) -> bool:
    """Return whether a path, its links followed, ends at something that travels without leaving the folder."""
    pending = path.split("/")[::-1]
    done: list[str] = []
    hops = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not done:
                return False
            done.pop()
            continue
        here = "/".join([*done, part])
        if here in links:
            hops += 1
            if hops > _HOPS or links[here].startswith("/"):
                return False
            pending.extend(links[here].split("/")[::-1])
        elif here in folders or (here in files and not pending):
            done.append(part)
        else:
            return False
    return True
