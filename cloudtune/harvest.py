"""What runs have left: listed, downloaded, removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cloudtune import storage
from cloudtune.errors import UsageError
from cloudtune.runs import Run
from cloudtune.store import Record, Store
from cloudtune.uri import absolute, local_path


def files(run: Run) -> list[dict[str, Any]]:
    """Return the files that a run has left, as ``{uri, bytes}``."""
    return [
        {"uri": storage.join(uri, entry.path), "bytes": entry.bytes}
        for _, uri in _places(run)
        for entry in storage.listing(uri)
    ]


def download(run: Run, directory: Path, *, force: bool = False) -> None:
    """Download what a run has left into a folder; what the steps of a pipeline left into a folder for each step.

    Raises:
        UsageError: a file is there already and ``force`` is not given; nothing was written.
    """
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file", hint="name a folder for the outputs")
    moves: list[tuple[str, Path]] = []
    goals: dict[Path, str] = {}
    for step, uri in _places(run):
        folder = directory / step if step else directory
        entries = storage.listing(uri)
        if entries and not entries[0].path:  # the outputs are one file
            folder /= PurePosixPath(uri.rstrip("/")).name
        if entries:
            moves.append((uri, folder))
        for goal in (folder / entry.path if entry.path else folder for entry in entries):
            if goal in goals:
                raise UsageError(f"{goal.name} is in {goals[goal]} and in {uri}", hint="copy one of them yourself")
            goals[goal] = uri
    taken = sorted(path for path in goals if path.exists() or path.is_symlink())
    if taken and not force:
        more = f", and {len(taken) - 1} more of the run's files" if len(taken) > 1 else ""
        raise UsageError(f"{taken[0]} is there already{more}", hint="name another folder; --force writes over them")
    for uri, folder in moves:
        storage.download(uri, folder)


def remove(run: Run) -> tuple[str, ...]:
    """Remove what a run has left, wherever it lies, and return from where.

    Raises:
        UsageError: another run's outputs are in the same place, or they are on a volume of the nodes; nothing was
            removed.
    """
    there = next((uri for one in _parts(run) for uri in one.outputs() if _is_of_nodes(one, uri)), None)
    if there is not None:
        hint = f"remove them where the volume is mounted, and forget the run without them: cloudtune delete {run.id}"
        raise UsageError(f"{there} is on the nodes of {run.id}, not on this machine: it is not removed", hint=hint)
    found = [uri for _, uri in _places(run)]
    own = {run.id, *(step.id for step in run.steps)}
    for other in _records(run.store):
        shared = next((uri for uri in found for place in other.outputs if _overlap(uri, place)), None)
        if other.id not in own and shared is not None:
            hint = f"delete run {other.id} first, or remove the files yourself"
            raise UsageError(f"run {other.id} has its outputs in {shared} too: they are not removed", hint=hint)
    for uri in found:
        storage.remove(uri)
    return tuple(found)


def _places(run: Run) -> Iterator[tuple[str | None, str]]:
    """Yield every place where a run has left files, with the name of the step for a pipeline's.

    Raises:
        UsageError: they are on a volume of the nodes that this machine does not have.
    """
    for one in _parts(run):
        step = one.id.removeprefix(f"{run.id}-") if run.is_pipeline else None
        for uri in one.outputs():
            if storage.exists(uri):
                yield step, uri
            elif _is_of_nodes(one, uri):
                hint = "read them from a job that has the volume, or where it is mounted"
                raise UsageError(f"the outputs of {one.id} are at {uri} on its nodes, not on this machine", hint=hint)


def _parts(run: Run) -> tuple[Run, ...]:
    return run.steps if run.is_pipeline else (run,)


def _is_of_nodes(run: Run, uri: str) -> bool:
    """Whether a place is a path on machines elsewhere: a volume that the nodes of a run share."""
    backend = (
        run.record.backend if run.record is not None else run.handle.backend if run.handle is not None else "local"
    )
    return backend != "local" and local_path(uri) is not None


def _records(store: Store) -> Iterator[Record]:
    for record in store.runs():
        yield record
        yield from store.runs(parent=record.id)


def _overlap(one: str, other: str) -> bool:
    """Return whether two places are the same, or one lies in the other."""
    first, second = (f"{absolute(uri).rstrip('/')}/" for uri in (one, other))
    return first.startswith(second) or second.startswith(first)
