"""Tables of classes by name, as dotted names: a class is imported when it is first asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Types(Mapping[str, "type[Value]"], Generic[Value]):
    """Classes by the ``type`` of the YAML; the table holds ``module:Class``."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self._table = dict(table)

    def __getitem__(self, name: str) -> type[Value]:
        module, _, word = self._table[name].partition(":")
        cls: type[Value] = getattr(import_module(module), word)
        return cls

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def found(name: str, homes: Mapping[str, tuple[str, ...]], module: str) -> Any:
    """Return a name of a module from where it really lives, and keep it there."""
    for home, names in homes.items():
        if name in names:
            value = getattr(import_module(home), name)
            setattr(sys.modules[module], name, value)
            return value
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
