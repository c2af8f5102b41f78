"""What other distributions add by entry points: named without being imported, and named as the culprit when broken."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cloudtune.errors import CloudtuneError


def plugin_names(group: str) -> tuple[str, ...]:
    """Return the names of what is added to a group; nothing is imported."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def plugin(group: str, name: str) -> EntryPoint | None:
    """Return what is added to a group under a name, or None; raises CloudtuneError if two distributions add it."""
    owners = {(_owner(point), point.value): point for point in entry_points(group=group, name=name)}
    if len(owners) > 1:
        (first, _), (second, _) = sorted(owners)[:2]
        message = f"both {first} and {second} add {name!r} to {group}"
        raise CloudtuneError(message, hint=f"remove one of them: pip uninstall {second}")
    return next(iter(owners.values()), None)


def loaded(point: EntryPoint) -> Any:
    """Return the object of an entry point; raises CloudtuneError, which names its distribution, if it is broken."""
    try:
        return point.load()
    except Exception as error:
        raise broken(point, error) from error


def broken(point: EntryPoint, error: Exception) -> CloudtuneError:
    """Return the error that blames the distribution of an entry point."""
    owner = _owner(point)
    return CloudtuneError(
        f"{point.name!r}, which the package {owner} adds to {point.group}, is broken: {type(error).__name__}: {error}",
        hint=f"update the package, or remove it: pip uninstall {owner}",
    )


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value.partition(".")[0]
