"""What a recipe is to read on this machine: it would find out only after its imports that nothing is there."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from cloudtune.launch.options import Finding, kebab
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtime import Runtime

#: The options that name what is read, as flags.
_READ = ("model", "train-data", "eval-data", "data", "test-data")


def absent(job: JobSpec) -> Iterator[Finding]:
    """Yield the options of a recipe that name nothing which a local run could read: (YAML path, message, hint).

    Nothing is said of text with ``$``, which is filled in later, and of names that something on the Hub may have.
    """
    if job.runtime is None or job.infrastructure.type != "local":
        return
    for key, named in reads(job.runtime):
        found = _fault(key, named.removeprefix("file://"), job.runtime.inputs.values()) if "$" not in named else None
        if found is not None:
            yield f"spec.runtime.spec.recipe.args.{key}", *found


def reads(runtime: Runtime) -> Iterator[tuple[str, str]]:
    """Yield the options of a runtime's recipe that name what it reads, as the job writes them, with their values."""
    args = runtime.recipe.args if runtime.recipe is not None else {}
    yield from ((key, named) for key, named in args.items() if kebab(key) in _READ and isinstance(named, str))


def _fault(key: str, named: str, fetched: Collection[str]) -> tuple[str, str] | None:
    """Return why nothing is to be read there, and what to do; ``fetched`` is where inputs are put."""
    path = Path(os.path.expanduser(named))  # noqa: PTH111 - ~ of an option
    if any(map(path.is_relative_to, fetched)):
        return None
    if "://" in named:
        name = PurePosixPath(named).name or "rows"
        return (
            f"{named} is not fetched by the recipe",
            f"write inputs: {{{named}: {name}}} beside it, and {key}: {name}",
        )
    if path.is_absolute():
        told = f"nothing is at {path} on this machine"
        return None if path.exists() else (told, "look at the path; files elsewhere are fetched by inputs: {URI: path}")
    told = f"{named} is looked up in the run's own folder, not here"
    if path.exists() and not (kebab(key) == "model" and named.count("/") == 1):  # that may be a name on the Hub
        return told, f"write the full path: {path.absolute()}"
    if named.startswith(".") or path.suffix in {".json", ".jsonl"}:
        return told, "write the full path, or have it fetched by inputs: {URI: path}"
    return None
