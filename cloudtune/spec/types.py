"""Tables of classes by name, as dotted names: a class is imported when it is first asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Types(MutableMapping[str, "type[Value]"], Generic[Value]):
    """Classes by the ``type`` of the YAML; the table holds classes or ``module:Class``.

    A type that is not in the table is looked for among the entry points of ``group``, where other distributions add
    theirs; those are no part of the iteration.
    """

    def __init__(self, table: Mapping[str, str], group: str | None = None) -> None:
        self._table: dict[str, Any] = dict(table)
        self._group = group
        self._added: dict[str, Any] = {}

    def __getitem__(self, name: str) -> type[Value]:
        found = self._table.get(name) or self._added.get(name)
        if found is None:
            found = self._added[name] = self._plugin(name)
        elif isinstance(found, str):
            module, _, word = found.partition(":")
            found = self._table[name] = getattr(import_module(module), word)
        cls: type[Value] = found
        return cls

    def names(self) -> tuple[str, ...]:
        """Return the types there are, those of other distributions last; nothing is imported but the list of them."""
        added = _plugins().plugin_names(self._group) if self._group is not None else ()
        return tuple(dict.fromkeys((*self._table, *added)))

    def _plugin(self, name: str) -> Any:
        point = _plugins().plugin(self._group, name) if self._group is not None else None
        if point is None:
            raise KeyError(name)
        return _plugins().loaded(point)

    def __setitem__(self, name: str, cls: type[Value]) -> None:
        self._table[name] = cls

    def __delitem__(self, name: str) -> None:
        del self._table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def _plugins() -> Any:
    return import_module("cloudtune.spec.plugins")  # only a type that is unknown here costs a look at what is installed


def found(name: str, homes: Mapping[str, tuple[str, ...]], module: str) -> Any:
    """Return a name of a module from where it really lives, and keep it there."""
    for home, names in homes.items():
        if name in names:
            value = getattr(import_module(home), name)
            setattr(sys.modules[module], name, value)
            return value
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
