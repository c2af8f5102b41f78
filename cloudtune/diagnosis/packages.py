"""The packages of cloudtune's extras: which are installed, and whether those that are fit together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata

import attrs

from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.versions import Requirement, normal, requirement, satisfies

#: Extras that are environments of their own, or collections of the others.
_APART = ("all", "neuron", "sagemaker")


@attrs.frozen(kw_only=True)
class Package:
    """An installed package: its version and what it says it needs."""

    version: str
    needs: tuple[Requirement, ...]


#: Returns an installed package by name, None if it is not installed.
Shelf = Callable[[str], Package | None]


def installed(name: str) -> Package | None:
    """Return a package of this environment."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    return Package(version=found.version, needs=tuple(filter(None, map(requirement, found.requires or ()))))


def check_packages(shelf: Shelf = installed) -> Iterator[Finding]:
    """Say which extras are complete, and find packages in them that others do not go together with."""
    own = shelf("cloudtune")
    if own is None:
        message = "cloudtune is not installed as a package: what its extras need is not known"
        yield Finding(check="packages", status="unknown", message=message, hint="pip install -e . in its folder")
        return
    extras = {name: wanted_by(name, own) for name in _names_of(own)}
    missing = {name: [one.name for one in needs if shelf(one.name) is None] for name, needs in extras.items()}
    whole = [name for name in extras if not missing[name]]
    rest = [f"{name} (without {', '.join(missing[name])})" for name in extras if missing[name]]
    said = f"extras that are installed: {', '.join(whole) or 'none'}" + (f"; not: {', '.join(rest)}" if rest else "")
    yield Finding(check="packages", status="ok", message=said)
    seen: set[tuple[str, str]] = set()
    roots = {"cloudtune": [one for one in own.needs if one.extra is None]}
    for root, needs in {**roots, **{f"cloudtune[{name}]": extras[name] for name in whole}}.items():
        for culprit, message in _contradictions(root, needs, shelf, seen):
            hint = f'pip install --upgrade "{root}" in this environment, or make a new one'
            yield Finding(check="packages", status="problem", message=message, hint=hint, where=culprit)


def lacking(extra: str, shelf: Shelf = installed) -> Sequence[str]:
    """Return the packages of an extra that are not installed."""
    own = shelf("cloudtune")
    return [one.name for one in wanted_by(extra, own) if shelf(one.name) is None] if own is not None else ()


def wanted_by(extra: str, own: Package) -> list[Requirement]:
    """Return what an extra of a package needs, also by way of its other extras (``cloudtune[weights]``)."""
    found: list[Requirement] = []
    for need in own.needs:
        if need.extra == normal(extra):
            if need.name == "cloudtune":
                found += [one for inner in need.extras for one in wanted_by(inner, own)]
            else:
                found.append(need)
    return list(dict.fromkeys(found))


def _names_of(own: Package) -> list[str]:
    names = dict.fromkeys(need.extra for need in own.needs if need.extra is not None)
    return [name for name in names if name not in _APART]


def _contradictions(
    root: str, needs: Sequence[Requirement], shelf: Shelf, seen: set[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """Yield (package, what is wrong) for every version that somebody below a package does not go together with."""
    waiting = deque((root, need) for need in needs)
    while waiting:
        who, need = waiting.popleft()
        found = shelf(need.name)
        if (who, need.name) in seen or found is None:
            continue
        seen.add((who, need.name))
        if satisfies(found.version, need.versions) is False:
            yield need.name, f"{who} needs {need.name}{need.versions}, and {found.version} is installed"
        inner = f"{need.name} {found.version}"
        waiting += ((inner, one) for one in found.needs if _counts(one, {need.name: need.extras}))


def _counts(need: Requirement, extras: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a requirement holds: always, or for an extra that was asked for."""
    asked = {extra for names in extras.values() for extra in names}
    return need.plain and (need.extra is None or need.extra in asked)
