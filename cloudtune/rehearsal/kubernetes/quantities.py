"""Quantities of Kubernetes as numbers: ``500m``, ``2Gi``, ``1e3``.

Source: the format in the documentation of ``resource.Quantity`` in ``k8s.io/apimachinery``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([KMGTPE]i)|([numkMGTPE]))?")
_BINARY = {f"{letter}i": Decimal(1024) ** (number + 1) for number, letter in enumerate("KMGTPE")}
_DECIMAL = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{letter: Decimal(1000) ** (number + 1) for number, letter in enumerate("kMGTPE")},
}


def quantity(text: object) -> Decimal:
    """Return a quantity as a number; ValueError for what is none.

    >>> quantity("500m"), int(quantity("2Gi"))
    (Decimal('0.500'), 2147483648)
    """
    found = _FORM.fullmatch(str(text).strip()) if not isinstance(text, bool) else None
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    number = Decimal(found[1])
    if found[2]:
        return number * Decimal(10) ** int(found[2][1:])
    return number * (_BINARY[found[3]] if found[3] else _DECIMAL[found[4]] if found[4] else 1)


def whole(text: object) -> int:
    """Return a quantity rounded up to a whole number, as extended resources and bytes are counted."""
    return int(quantity(text).to_integral_value(rounding=ROUND_CEILING))


def requests_of(container: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return what a container asks for: what has a limit alone asks for as much."""
    resources = container.get("resources") or {}
    both = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: quantity(value) for name, value in both.items()}


def pod_requests(spec: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return what a pod asks for of a node: its containers together, or the largest init container if that is more."""
    total: dict[str, Decimal] = {"pods": Decimal(1)}
    for container in spec.get("containers") or ():
        for name, value in requests_of(container).items():
            total[name] = total.get(name, Decimal()) + value
    for container in spec.get("initContainers") or ():
        for name, value in requests_of(container).items():
            total[name] = max(total.get(name, Decimal()), value)
    return total


def quality_of_service(spec: Mapping[str, Any]) -> str:
    """Return the class by which the kubelet of a node chooses whom to evict first."""
    rows = [container.get("resources") or {} for container in spec.get("containers") or ()]
    named = [{**(row.get("requests") or {}), **(row.get("limits") or {})} for row in rows]
    if not any(name in row for row in named for name in ("cpu", "memory")):
        return "BestEffort"
    for row in rows:
        limits, requests = row.get("limits") or {}, row.get("requests") or {}
        for name in ("cpu", "memory"):
            if name not in limits or quantity(requests.get(name, limits[name])) != quantity(limits[name]):
                return "Burstable"
    return "Guaranteed"
