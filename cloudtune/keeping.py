"""The logs of runs that are kept on this machine: of places where a log goes with the machines that wrote it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from cloudtune.home import is_name, runs_folder
from cloudtune.states import LogLine

Keep = Callable[[Iterable[LogLine]], None]


@contextmanager
def kept(run_id: str) -> Iterator[Keep]:
    """Give what writes down lines of a run, which are kept once the block is left; a full disk keeps none of them.

    Of a run that is ended twice, at once or one after the other, the longer log is kept: who came later found less.
    """
    path = _path(run_id)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    whole = True

    def keep(found: Iterable[LogLine]) -> None:
        nonlocal whole
        try:
            with part.open("a", encoding="utf-8") as file:
                file.writelines(f"{json.dumps(attrs.asdict(line))}\n" for line in found)
        except OSError:
            whole = False  # a part of them may be there

    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        yield keep
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    with suppress(OSError):
        if whole and not (path.exists() and path.stat().st_size > part.stat().st_size):
            part.replace(path)
        else:
            part.unlink(missing_ok=True)


def lines_of(run_id: str) -> Iterator[LogLine] | None:
    """Return the lines that were kept of a run, None if none were."""
    return _read(_path(run_id)) if is_name(run_id) and _path(run_id).is_file() else None


def forget(run_id: str) -> None:
    """Remove what was kept of a run."""
    path = _path(run_id)
    with suppress(OSError):
        for one in (path, *path.parent.glob(f"{path.name}.*.part")):  # who was killed has left a part
            one.unlink(missing_ok=True)
        path.parent.rmdir()  # unless something else is kept there


def _path(run_id: str) -> Path:
    return runs_folder() / run_id / "log.jsonl"


def _read(path: Path) -> Iterator[LogLine]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield LogLine(**json.loads(line))
