"""Quantities of a cluster: ``500m`` processors, ``64Gi`` of memory, ``8`` accelerators.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

_QUANTITY = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))(?P<suffix>[numkMGTPE]?|[KMGTPE]i|[eE][+-]?\d+)")
_THOUSANDS = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_BINARY = "KMGTPE"


def amount(quantity: object) -> Decimal | None:
    """Return the number that a quantity is, None if it is none.

    >>> amount("1500m"), amount("2Ki"), amount("many")
    (Decimal('1.5'), Decimal('2048'), None)
    """
    found = _QUANTITY.fullmatch(str(quantity).strip())
    if found is None:
        return None
    number, suffix = Decimal(found["number"]), found["suffix"]
    if suffix in _THOUSANDS:
        return number * Decimal(1000) ** _THOUSANDS[suffix] if suffix else number
    if suffix.endswith("i"):
        return number * Decimal(1024) ** (_BINARY.index(suffix[0]) + 1)
    return number * Decimal(10) ** int(suffix[1:])


def total(several: Iterable[Mapping[str, object]]) -> dict[str, Decimal]:
    """Return the sums by name; what is no quantity counts nothing."""
    sums: dict[str, Decimal] = {}
    for one in several:
        for name, quantity in one.items():
            sums[name] = sums.get(name, Decimal(0)) + (amount(quantity) or 0)
    return sums


def shown(name: str, number: Decimal) -> str:
    """Return a number as people read it: memory in GiB, processors and devices as they are counted.

    >>> shown("memory", Decimal(2**34)), shown("cpu", Decimal("3.50")), shown("nvidia.com/gpu", Decimal(8))
    ('16Gi', '3.5', '8')
    """
    if name.endswith(("memory", "storage")) or "hugepages-" in name:
        return f"{float(number / 2**30):.4g}Gi"
    return f"{float(number):.6g}"
