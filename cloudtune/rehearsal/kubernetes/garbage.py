"""The collector of garbage: deletes what belonged to an owner that is gone, and lets owners go that wait for theirs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudtune.rehearsal.kubernetes.loop import Key, is_going, key_of
from cloudtune.rehearsal.kubernetes.objects import FOREGROUND, Change, Object, Objects

#: Kinds that own nothing and belong to nobody.
_ALONE = ("Event", "Lease", "Namespace", "Node")
_OWNER = "owner"


class Garbage:
    """A controller of everything; a key is the kind and the place of an object, or the uid of an owner that is gone."""

    kind = "*"

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def concerns(self, change: Change) -> Iterable[Key]:
        """Return the owner that is gone, or the object that may have to go."""
        if change.kind in _ALONE:
            return []
        meta = change.object["metadata"]
        found: list[Key] = []
        if change.deed == "removed":
            found.append((_OWNER, meta["uid"]))
            found += [
                (f"{one['kind']}/{meta.get('namespace', '')}", one["name"]) for one in meta.get("ownerReferences") or ()
            ]
        elif is_going(change.object) or (change.deed == "added" and meta.get("ownerReferences")):
            found.append((f"{change.kind}/{meta.get('namespace', '')}", meta["name"]))
        return found

    def sync(self, namespace: str, name: str) -> float | None:
        """Delete dependents, or an object whose owners are gone."""
        if namespace == _OWNER:
            self._leave(name)
            return None
        kind, _, place = namespace.partition("/")
        thing = self._objects.get(kind, place, name) if kind in self._objects.kinds else None
        if thing is None:
            return None
        if FOREGROUND in (thing["metadata"].get("finalizers") or ()):
            self._finish(thing)
        elif thing["metadata"].get("ownerReferences") and not any(self._is_there(thing, one) for one in _owners(thing)):
            self._delete(thing)
        return None

    def _leave(self, uid: str) -> None:
        """Delete what belonged to an owner that is gone, unless it has another."""
        for thing in self._objects.dependents(uid):
            if any(self._is_there(thing, one) for one in _owners(thing)):
                continue
            self._delete(thing)

    def _finish(self, owner: Object) -> None:
        """Delete the dependents of an owner that waits for it, and let it go when there are none."""
        left = self._objects.dependents(owner["metadata"]["uid"])
        for thing in left:
            if not is_going(thing):
                self._delete(thing, foreground=True)
        if left:
            return

        def let_go(thing: dict[str, Any]) -> None:
            thing["metadata"]["finalizers"] = [one for one in thing["metadata"]["finalizers"] if one != FOREGROUND]

        self._objects.update(owner["kind"], *key_of(owner), let_go)

    def _delete(self, thing: Object, *, foreground: bool = False) -> None:
        propagation = "Foreground" if foreground and thing["kind"] != "Pod" else "Background"
        self._objects.delete(thing["kind"], *key_of(thing), propagation=propagation)  # type: ignore[arg-type]

    def _is_there(self, thing: Object, owner: dict[str, Any]) -> bool:
        if owner["kind"] not in self._objects.kinds:
            return True
        found = self._objects.get(owner["kind"], thing["metadata"].get("namespace"), owner["name"])
        return found is not None and found["metadata"]["uid"] == owner.get("uid")


def _owners(thing: Object) -> list[dict[str, Any]]:
    return list(thing["metadata"].get("ownerReferences") or ())
