"""What leads the objects of a cluster on: controllers, asked about an object whenever something about it changed.

One thread asks them all, one object after another, so that two never meet at the same object. A controller compares
what is with what is wanted, takes the next step, and says when it wants to look again without being called.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from typing import Protocol

import attrs

from cloudtune.rehearsal.kubernetes.objects import Change, Object, Objects
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.stage import Stage
from cloudtune.rehearsal.state import Gone

#: Namespace and name; the namespace of what has none is empty.
Key = tuple[str, str]
#: Seconds of this machine after which the loop looks at the clock, whatever happens.
_LOOK_S = 0.1
#: Seconds of the clock after which a controller that was refused something tries again.
_AGAIN_S = 2.0


class Controller(Protocol):
    """One controller; ``kind`` is that of the objects which it leads."""

    kind: str

    def concerns(self, change: Change) -> Iterable[Key]:
        """Return which of its objects a change is about."""
        ...

    def sync(self, namespace: str, name: str) -> float | None:
        """Take the next step of an object, which may be gone; return after how many seconds to look again."""
        ...


@attrs.define(kw_only=True)
class _Waiting:
    """What a controller is to be asked about, and what not before a time of the clock."""

    controller: Controller
    now: dict[Key, None] = attrs.field(factory=dict)
    later: dict[Key, float] = attrs.field(factory=dict)

    def due(self, now_s: float) -> list[Key]:
        for key in [key for key, at in self.later.items() if at <= now_s]:
            del self.later[key]
            self.now[key] = None
        keys = list(self.now)
        self.now.clear()
        return keys


class Loop:
    """Asks controllers, from :meth:`run`'s beginning to the end of the stage."""

    def __init__(self, stage: Stage, objects: Objects, controllers: Iterable[Controller]) -> None:
        self._stage = stage
        self._objects = objects
        self._all = [_Waiting(controller=controller) for controller in controllers]

    def run(self) -> None:
        """Ask until the stage ends."""
        version = self._objects.version
        self._ask_about_all()
        while not self._stage.stopping.is_set():
            busy = any(one.now for one in self._all)
            try:
                changes, version = self._objects.changes(version, timeout_s=0.0 if busy else _LOOK_S)
            except Gone:
                changes, version = (), self._objects.version
                self._ask_about_all()
            for one in self._all:
                for change in changes:
                    one.now.update(dict.fromkeys(one.controller.concerns(change)))
            for one in self._all:
                for key in one.due(self._stage.clock.time_s()):
                    self._ask(one, key)

    def _ask_about_all(self) -> None:
        for one in self._all:
            if one.controller.kind in self._objects.kinds:
                one.now.update({key_of(thing): None for thing in self._objects.list(one.controller.kind)})

    def _ask(self, one: _Waiting, key: Key) -> None:
        if self._stage.stopping.is_set():
            return
        again_s: float | None
        try:
            again_s = one.controller.sync(*key)
        except Refused:  # a namespace is going, a name is taken: it may be otherwise later
            again_s = _AGAIN_S
        except Exception:  # noqa: BLE001 - it has no caller who could hear of it, and others go on
            what = f"controller of {one.controller.kind} {'/'.join(key)}"
            self._stage.record.add_error(f"{what}:\n{traceback.format_exc()}")
            again_s = None
        one.later.pop(key, None)
        if again_s is not None:
            one.later[key] = self._stage.clock.time_s() + again_s


def key_of(thing: Object) -> Key:
    """Return an object's namespace and name."""
    return thing["metadata"].get("namespace", ""), thing["metadata"]["name"]


def itself_or_owners(change: Change, kind: str) -> Iterator[Key]:
    """Yield the object of a change if it is of the kind, else those of the kind that control it."""
    if change.kind == kind:
        yield key_of(change.object)
        return
    for owner in change.object["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner["kind"] == kind:
            yield change.object["metadata"].get("namespace", ""), owner["name"]


def is_controlled_by(thing: Object, owner: Object) -> bool:
    """Whether an object is led by this very owner, and not by one of the same name before it."""
    uid = owner["metadata"]["uid"]
    return any(
        one.get("controller") and one.get("uid") == uid for one in thing["metadata"].get("ownerReferences") or ()
    )


def owner_reference(owner: Object) -> dict[str, object]:
    """Return the reference by which an object says who controls it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_going(thing: Object) -> bool:
    """Whether an object is being deleted."""
    return "deletionTimestamp" in thing["metadata"]
