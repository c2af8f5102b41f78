"""What a stand-in remembers: resources by kind and id, each change with a version, so that it can be waited for.

Data are copied on their way in and out: nobody holds a piece of the store in hand.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import attrs

from cloudtune.rehearsal.clock import Clock

#: Changes that are kept for those who follow them.
_HISTORY = 10_000


@attrs.frozen(kw_only=True)
class Resource:
    """One thing at one moment; ``version`` is the number of the store's change that made it so."""

    kind: str
    id: str
    data: dict[str, Any]
    version: int
    created_s: float
    changed_s: float


@attrs.frozen(kw_only=True)
class Change:
    """One step in the store's history: what came of it, and what was ``before``.

    Of a removal, ``resource`` is what was removed.
    """

    version: int
    deed: Literal["added", "changed", "removed"]
    resource: Resource
    before: Resource | None = None


class Gone(Exception):
    """The changes that were asked for are no longer kept: whoever follows must list anew."""


class Store:
    """The resources of a stand-in. Its methods may be called by any thread."""

    def __init__(self, clock: Clock | None = None, *, history: int = _HISTORY) -> None:
        self.clock = clock or Clock()
        self._things: dict[tuple[str, str], Resource] = {}
        self._changes: deque[Change] = deque(maxlen=history)
        self._version = 0
        self._change = threading.Condition(threading.RLock())

    @property
    def version(self) -> int:
        """The number of the last change."""
        with self._change:
            return self._version

    def add(self, kind: str, identity: str, data: Mapping[str, Any]) -> Resource:
        """Remember something new; KeyError if there is one of this id."""
        with self._change:
            if (kind, identity) in self._things:
                raise KeyError(f"{kind} {identity} exists")
            return self._note("added", kind, identity, data, self.clock.time_s())

    def get(self, kind: str, identity: str) -> Resource | None:
        """Return a resource, None if there is none of this id."""
        with self._change:
            found = self._things.get((kind, identity))
            return copy.deepcopy(found)

    def all(self, kind: str, where: Callable[[Resource], bool] = lambda _: True) -> tuple[Resource, ...]:
        """Return the resources of a kind, in the order in which they were added."""
        with self._change:
            found = (thing for (each, _), thing in self._things.items() if each == kind and where(thing))
            return tuple(copy.deepcopy(thing) for thing in found)

    def change(
        self, kind: str, identity: str, *, when: Callable[[dict[str, Any]], bool] = lambda _: True, **fields: Any
    ) -> Resource | None:
        """Set fields; return the new resource, or None if there is none or ``when`` says no of its data.

        ``when`` is asked and the change is made in one step: two threads cannot both lead the same state on.
        """
        return self.update(kind, identity, lambda data: fields if when(data) else None)

    def update(
        self, kind: str, identity: str, deed: Callable[[dict[str, Any]], Mapping[str, Any] | None]
    ) -> Resource | None:
        """Set the fields that the deed makes of the data; None if there is no resource or the deed returns None."""
        with self._change:
            old = self._things.get((kind, identity))
            fields = deed(copy.deepcopy(old.data)) if old is not None else None
            if old is None or fields is None:
                return None
            return self._note("changed", kind, identity, {**old.data, **fields}, old.created_s)

    def remove(self, kind: str, identity: str) -> Resource | None:
        """Forget a resource; return it, None if there was none."""
        with self._change:
            old = self._things.pop((kind, identity), None)
            if old is not None:
                self._version += 1
                self._changes.append(Change(version=self._version, deed="removed", resource=old))
                self._change.notify_all()
            return old

    def wait_for(self, true: Callable[[Store], Any], *, timeout_s: float) -> Any:
        """Return the first true answer, asked after each change; the last answer when the time is over."""
        deadline = time.monotonic() + timeout_s
        with self._change:
            while True:
                answer = true(self)
                left_s = deadline - time.monotonic()
                if answer or left_s <= 0:
                    return answer
                self._change.wait(left_s)

    def wait_for_field(self, kind: str, identity: str, field: str, values: tuple[Any, ...], *, timeout_s: float) -> Any:
        """Return a field's value once it is one of these; None when the time is over or the resource is gone."""

        def look(_: Store) -> Any:
            thing = self._things.get((kind, identity))
            if thing is None:
                return (None,)
            return (thing.data.get(field),) if thing.data.get(field) in values else None

        answer = self.wait_for(look, timeout_s=timeout_s)
        return answer[0] if answer else None

    def changes(
        self, since: int, *, kinds: Collection[str] | None = None, timeout_s: float = 0.0
    ) -> tuple[Change, ...]:
        """Return the changes after a version, waiting for one if there is none yet; Gone where they are not kept.

        Of other kinds than the given ones none is returned, but the waiting ends.
        """
        with self._change:
            self._change.wait_for(lambda: self._version > since, timeout_s)
            if self._changes and since < self._changes[0].version - 1:
                raise Gone(f"changes are kept from version {self._changes[0].version - 1} on, not from {since}")
            found: list[Change] = []
            for change in reversed(self._changes):
                if change.version <= since:
                    break
                if kinds is None or change.resource.kind in kinds:
                    found.append(copy.deepcopy(change))
            return tuple(reversed(found))

    def held(self) -> AbstractContextManager[Any]:
        """Return the lock of the store: while this thread holds it, nobody else changes anything."""
        return self._change

    def _note(
        self, deed: Literal["added", "changed"], kind: str, identity: str, data: Mapping[str, Any], created_s: float
    ) -> Resource:
        self._version += 1
        thing = Resource(
            kind=kind,
            id=identity,
            data=copy.deepcopy(dict(data)),
            version=self._version,
            created_s=created_s,
            changed_s=self.clock.time_s(),
        )
        before = self._things.get((kind, identity))
        self._things[kind, identity] = thing
        self._changes.append(Change(version=self._version, deed=deed, resource=thing, before=before))
        self._change.notify_all()
        return copy.deepcopy(thing)
