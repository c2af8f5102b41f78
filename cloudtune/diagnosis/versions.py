"""Requirements of packages, as far as they can be read without a library: names, extras, plain version comparisons.

https://packaging.python.org/en/latest/specifications/version-specifiers/; what is not plain is not decided.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import zip_longest

import attrs

_REQUIREMENT = re.compile(
    r"\s*(?P<name>[A-Za-z0-9][\w.-]*)\s*(?:\[(?P<extras>[^\]]*)\])?\s*\(?(?P<versions>[^;()]*)\)?\s*(?:;(?P<marker>.*))?"
)
_COMPARISON = re.compile(r"(~=|==|!=|<=|>=|<|>)\s*v?([0-9]+(?:\.[0-9]+)*)(\.\*)?")
_RELEASE = re.compile(r"v?(?:\d+!)?(\d+(?:\.\d+)*)(.*)", re.DOTALL)
_EXTRA = re.compile(r"extra\s*==\s*['\"]([\w.-]+)['\"]")

Release = tuple[int, ...]


@attrs.frozen(kw_only=True)
class Requirement:
    """What a package needs: another one, of certain versions, perhaps for one of its extras only.

    ``plain`` is False where surroundings decide (``python_version``, ``sys_platform``): those are left to pip.
    """

    name: str
    extras: tuple[str, ...]
    versions: str
    extra: str | None
    plain: bool


def requirement(text: str) -> Requirement | None:
    """Return a line of a package's metadata, None for one that is not understood."""
    found = _REQUIREMENT.fullmatch(text)
    if found is None or "@" in found["versions"]:
        return None
    marker = (found["marker"] or "").strip()
    extra = _EXTRA.fullmatch(marker)
    return Requirement(
        name=normal(found["name"]),
        extras=tuple(normal(one) for one in (found["extras"] or "").split(",") if one.strip()),
        versions=found["versions"].strip(),
        extra=normal(extra[1]) if extra else None,
        plain=not marker or extra is not None,
    )


def normal(name: str) -> str:
    """Return the name by which a package is known, however it is spelt."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def satisfies(version: str, wanted: str) -> bool | None:
    """Return whether a version is one of those wanted, None where that is not plain.

    >>> satisfies("1.43.117", ">=1.35,<2"), satisfies("0.4.2", ">=2025.3")
    (True, False)
    """
    release = _RELEASE.fullmatch(version)
    if release is None:
        return None
    numbers = _numbers(release[1])
    for part in filter(None, (part.strip() for part in wanted.split(","))):
        found = _COMPARISON.fullmatch(part)
        if found is None:
            return None
        if not _COMPARED[found[1]](numbers, _numbers(found[2]), found[3] is not None):
            # a pre-release or a local version of the very number is a matter for those who count further
            return None if release[2] and _numbers(found[2]) == numbers else False
    return True


def _numbers(text: str) -> Release:
    return tuple(int(part) for part in text.split("."))


def _order(one: Release, other: Release) -> int:
    for a, b in zip_longest(one, other, fillvalue=0):
        if a != b:
            return -1 if a < b else 1
    return 0


def _equal(one: Release, other: Release, prefix: bool) -> bool:
    return one[: len(other)] == other if prefix else _order(one, other) == 0


_COMPARED: dict[str, Callable[[Release, Release, bool], bool]] = {
    "==": _equal,
    "!=": lambda one, other, prefix: not _equal(one, other, prefix),
    ">=": lambda one, other, _: _order(one, other) >= 0,
    "<=": lambda one, other, _: _order(one, other) <= 0,
    ">": lambda one, other, _: _order(one, other) > 0,
    "<": lambda one, other, _: _order(one, other) < 0,
    "~=": lambda one, other, _: _order(one, other) >= 0 and one[: len(other) - 1] == other[:-1],
}
