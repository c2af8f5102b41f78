"""The objects of a rehearsed cluster: made, changed, deleted and followed, by the API server and by controllers alike.

Objects are plain JSON data, copied on their way in and out. They lie in the stage's store, whose numbers are the
resource versions. Times are this machine's, whatever the stage's clock does: clients compare them with their own.
"""

from __future__ import annotations

import copy
import secrets
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timezone
from typing import Any, Literal

import attrs

from cloudtune.rehearsal.kubernetes import speech
from cloudtune.rehearsal.kubernetes.kinds import Kind, Kinds
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.state import Change as StoreChange
from cloudtune.rehearsal.state import Gone, Resource, Store

Object = dict[str, Any]
Things = list[Object]
#: Edits a copy of an object in place; False leaves the object as it was.
Edit = Callable[[Object], "bool | None"]
#: Sets defaults of a new object (the old one is given where it is changed), and raises Refused where it cannot be.
Admission = Callable[[Kind, Object, "Object | None"], None]
Propagation = Literal["Background", "Foreground", "Orphan"]
FOREGROUND = "foregroundDeletion"
#: Letters of generated names: no vowels, so that no words come of it.
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_GRACE_S = 30
#: What nobody can change of an object's metadata.
_FIXED = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
)


@attrs.frozen(kw_only=True)
class Change:
    """One step in the history of an object; of a removal, ``object`` is what was removed, with the removal's version.

    ``before`` is the object as it was before it was changed.
    """

    version: int
    deed: Literal["added", "changed", "removed"]
    kind: str
    object: Object
    before: Object | None = None


def moment(time_s: float | None = None) -> str:
    """Return a time as objects have it, in whole seconds; now, if none is given."""
    when = datetime.fromtimestamp(time.time() if time_s is None else time_s, timezone.utc)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def suffix() -> str:
    """Return the five letters that make a generated name unique."""
    return "".join(secrets.choice(_LETTERS) for _ in range(5))


class Objects:
    """The objects of a cluster. Its methods may be called by any thread; kinds are given by name (``Pod``).

    ``admission`` is asked for everything that is made or changed; the API server's validation is put in there.
    """

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self.kinds = kinds
        self.admission: Admission = lambda _kind, _new, _old: None
        self._store = store
        self._oldest = 0

    @property
    def version(self) -> int:
        """The number of the last change of anything."""
        return self._store.version

    def create(
        self, manifest: Mapping[str, Any], *, status: Mapping[str, Any] | None = None, dry: bool = False
    ) -> Object:
        """Make an object, in the namespace of its metadata, and return it; Refused where that cannot be.

        A status in the manifest is dropped, as the API server does; controllers give it apart. A ``dry`` one is
        checked in every respect and not kept.
        """
        kind = self._kind(manifest)
        thing: Object = copy.deepcopy(dict(manifest))
        thing["apiVersion"] = kind.api_version
        meta = thing["metadata"] = dict(thing.get("metadata") or {})
        if kind.namespaced:
            meta["namespace"] = meta.get("namespace") or "default"
        else:
            meta.pop("namespace", None)
        for name in ("resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
            meta.pop(name, None)
        if kind.status:
            thing.pop("status", None)
        generated = not meta.get("name") and bool(meta.get("generateName"))
        for _ in range(8 if generated else 1):
            if generated:
                meta["name"] = f"{meta['generateName'][:58]}{suffix()}"
            meta.update(uid=str(uuid.uuid4()), creationTimestamp=moment(), generation=1)
            self._check_namespace(kind, meta)
            self.admission(kind, thing, None)
            if status is not None:
                thing["status"] = copy.deepcopy(dict(status))
            if self._find(kind, meta) is None:
                if dry:
                    return {**thing, "metadata": {**meta, "resourceVersion": ""}}
                try:
                    made = _shown(self._store.add(kind.key, _identity(meta), {"object": thing}))
                except KeyError:  # another thread has made it at this very moment
                    continue
                if kind.kind == "Namespace":
                    account = {"name": "default", "namespace": meta["name"]}
                    self.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
                return made
        raise speech.already_exists(kind, meta["name"])

    def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Return an object, None if there is none; the namespace of a kind that has none is not looked at."""
        found = self._store.get(self.kinds[kind].key, self._place(kind, namespace, name))
        return None if found is None else _shown(found)

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        where: Callable[[Object], bool] = lambda _: True,
    ) -> Things:
        """Return the objects of a kind, of one namespace or all, with these labels, in the order of their making."""
        wanted = set((labels or {}).items())

        def is_meant(resource: Resource) -> bool:
            meta = resource.data["object"]["metadata"]
            here = namespace is None or meta.get("namespace", namespace) == namespace
            return here and wanted <= set((meta.get("labels") or {}).items())

        found = (_shown(one) for one in self._store.all(self.kinds[kind].key, is_meant))
        return [one for one in found if where(one)]

    def listed(
        self, kind: str, namespace: str | None = None, *, where: Callable[[Object], bool] = lambda _: True
    ) -> tuple[int, Things]:
        """Return the version of a list and the list, read in one step."""
        with self._store.held():
            return self._store.version, self.list(kind, namespace, where=where)

    def update(self, kind: str, namespace: str | None, name: str, edit: Edit, *, dry: bool = False) -> Object | None:
        """Let ``edit`` change a copy of an object, all but its status; None if there is none or it was left alone.

        What comes of it is admitted like a new object. The whole is one step: nobody else changes it meanwhile.
        """
        return self._change(kind, namespace, name, edit, part="", dry=dry)

    def update_status(
        self, kind: str, namespace: str | None, name: str, edit: Edit, *, dry: bool = False
    ) -> Object | None:
        """Let ``edit`` change the status of an object, and nothing else of it; else as :meth:`update`."""
        return self._change(kind, namespace, name, edit, part="status", dry=dry)

    def delete(
        self,
        kind: str,
        namespace: str | None,
        name: str,
        *,
        propagation: Propagation | None = None,
        grace_s: int | None = None,
        dry: bool = False,
    ) -> Object | None:
        """Delete an object; return it as it is then, None if there is none.

        A pod that runs on a node is only marked, with the seconds that it has: its kubelet ends it and calls
        :meth:`remove`. So is what has finalizers, or is deleted after its dependents (``Foreground``): the collector
        of garbage removes it. ``Orphan`` lets dependents live, and is the default of Jobs, as it is of the real ones.
        """
        chosen = propagation or ("Orphan" if kind == "Job" else "Background")
        there = self.get(kind, namespace, name)
        if there is None or dry:
            return there
        if chosen == "Orphan":
            self._orphan(there)
        grace = _grace_s(there, grace_s)
        finalizers = there["metadata"].get("finalizers") or []
        waits = grace > 0 or finalizers or chosen == "Foreground" or kind == "Namespace"
        if not waits:
            return self.remove(kind, namespace, name) or there

        def mark(thing: Object) -> None:
            meta = thing["metadata"]
            left = min(grace, meta.get("deletionGracePeriodSeconds", grace))
            meta["deletionTimestamp"] = meta.get("deletionTimestamp") or moment(time.time() + left)
            meta["deletionGracePeriodSeconds"] = left
            if chosen == "Foreground" and FOREGROUND not in (meta.get("finalizers") or []):
                meta["finalizers"] = [*(meta.get("finalizers") or []), FOREGROUND]
            if kind == "Namespace":
                thing["status"] = {**thing.get("status", {}), "phase": "Terminating"}

        marked = self._change(kind, namespace, name, mark, part="all", dry=False)
        if kind == "Namespace":
            self._empty(name)
        return marked or self.get(kind, namespace, name) or there

    def remove(self, kind: str, namespace: str | None, name: str, *, uid: str | None = None) -> Object | None:
        """Let an object be gone at once; return it, None if there was none, or one of another uid than is given."""
        key, place = self.kinds[kind].key, self._place(kind, namespace, name)
        with self._store.held():
            there = self._store.get(key, place)
            if there is None or uid not in (None, there.data["object"]["metadata"]["uid"]):
                return None
            gone = self._store.remove(key, place)
        assert gone is not None
        thing = _shown(gone)
        if "namespace" in thing["metadata"]:
            self._end_namespace(thing["metadata"]["namespace"])
        return thing

    def dependents(self, uid: str) -> Things:
        """Return the objects that name this one as an owner."""
        return [
            thing
            for kind in self.kinds.all
            for thing in self.list(kind.kind)
            if any(owner.get("uid") == uid for owner in thing["metadata"].get("ownerReferences") or [])
        ]

    def changes(
        self, since: int, *, kinds: Collection[str] | None = None, timeout_s: float = 0.0
    ) -> tuple[tuple[Change, ...], int]:
        """Return the changes after a version, and the version up to which they are: where to go on.

        Where there is none yet, one of any kind is waited for: what is returned may be none of the given kinds.

        Raises:
            Gone: changes so old are no longer kept.
        """
        if since < self._oldest:
            raise Gone(f"changes are kept from version {self._oldest} on, not from {since}")
        names = {kind.key: kind.kind for kind in self.kinds.all if kinds is None or kind.kind in kinds}
        self._store.wait_for(lambda store: store.version > since, timeout_s=timeout_s)
        with self._store.held():
            found, version = self._store.changes(since, kinds=names), self._store.version
        return tuple(_told(one, names[one.resource.kind]) for one in found), max(version, since)

    def forget_changes(self) -> None:
        """Keep no change that has been so far: whoever follows from before is told that they are gone."""
        self._oldest = self._store.version

    @property
    def oldest(self) -> int:
        """The version from which on changes are kept."""
        return self._oldest

    def wait_for(self, true: Callable[[], Any], *, timeout_s: float) -> Any:
        """Return the first true answer, asked after each change of anything; the last one when the time is over."""
        return self._store.wait_for(lambda _: true(), timeout_s=timeout_s)

    def tell(self, about: Object, reason: str, message: str, *, warning: bool = False, component: str = "") -> None:
        """Write an event about an object; one that is repeated is counted."""
        meta = about["metadata"]
        namespace = meta.get("namespace", "default")
        kind = "Warning" if warning else "Normal"
        involved = {"kind": about["kind"], "apiVersion": about["apiVersion"], "name": meta["name"], "uid": meta["uid"]}
        if "namespace" in meta:
            involved["namespace"] = namespace

        def same(event: Object) -> bool:
            told = (event["involvedObject"].get("uid"), event["reason"], event["message"], event["type"])
            return told == (meta["uid"], reason, message, kind)

        def again(event: Object) -> None:
            event["count"] += 1
            event["lastTimestamp"] = moment()

        for known in self.list("Event", namespace, where=same):
            if self.update("Event", namespace, known["metadata"]["name"], again) is not None:
                return
        now = moment()
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name'][:200]}.{secrets.token_hex(8)}", "namespace": namespace},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "source": {"component": component},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": kind,
            "eventTime": None,
            "reportingComponent": component,
            "reportingInstance": "",
        }
        try:
            self.create(event)
        except Refused:
            pass  # the namespace is going: nobody will read it

    def _kind(self, manifest: Mapping[str, Any]) -> Kind:
        kind = self.kinds.of(manifest)
        if kind is None:
            what = f'no matches for kind "{manifest.get("kind")}" in version "{manifest.get("apiVersion")}"'
            raise speech.bad_request(what)
        return kind

    def _place(self, kind: str, namespace: str | None, name: str) -> str:
        return f"{namespace or 'default'}/{name}" if self.kinds[kind].namespaced else name

    def _find(self, kind: Kind, meta: Mapping[str, Any]) -> Resource | None:
        return self._store.get(kind.key, _identity(meta))

    def _check_namespace(self, kind: Kind, meta: Mapping[str, Any]) -> None:
        if not kind.namespaced:
            return
        name = meta["namespace"]
        there = self.get("Namespace", None, name)
        if there is None:
            raise speech.not_found(self.kinds["Namespace"], name)
        if "deletionTimestamp" in there["metadata"]:
            words = f"unable to create new content in namespace {name} because it is being terminated"
            raise speech.forbidden(kind, meta.get("name", ""), words)

    def _change(
        self, kind: str, namespace: str | None, name: str, edit: Edit, *, part: str, dry: bool
    ) -> Object | None:
        known, place = self.kinds[kind], self._place(kind, namespace, name)
        with self._store.held():
            there = self._store.get(known.key, place)
            if there is None:
                return None
            old = _shown(there)
            new = copy.deepcopy(old)
            if edit(new) is False:
                return None
            new = _kept(old, new, part, has_status=known.status)
            if new == old:
                return old
            if part != "all":
                self.admission(known, new, old)
            if dry:
                return new
            del new["metadata"]["resourceVersion"]
            changed = self._store.change(known.key, place, object=new)
            assert changed is not None
            meta = new["metadata"]
            waits = kind == "Namespace" or (kind == "Pod" and meta.get("deletionGracePeriodSeconds", 0))
            if part != "all" and "deletionTimestamp" in meta and not meta.get("finalizers") and not waits:
                self.remove(kind, namespace, name)
        return _shown(changed)

    def _orphan(self, owner: Object) -> None:
        uid = owner["metadata"]["uid"]

        def leave(thing: Object) -> None:
            meta = thing["metadata"]
            meta["ownerReferences"] = [one for one in meta["ownerReferences"] if one.get("uid") != uid]

        for thing in self.dependents(uid):
            self.update(thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"], leave)

    def _empty(self, namespace: str) -> None:
        for kind in self.kinds.all:
            if kind.namespaced:
                for thing in self.list(kind.kind, namespace):
                    self.delete(kind.kind, namespace, thing["metadata"]["name"], propagation="Background")
        self._end_namespace(namespace)

    def _end_namespace(self, name: str) -> None:
        there = self.get("Namespace", None, name)
        if there is None or "deletionTimestamp" not in there["metadata"]:
            return
        if not any(self.list(kind.kind, name) for kind in self.kinds.all if kind.namespaced):
            self.remove("Namespace", None, name)


def _identity(meta: Mapping[str, Any]) -> str:
    return f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else str(meta["name"])


def _shown(resource: Resource, version: int | None = None) -> Object:
    """Return an object with its version."""
    thing: Object = resource.data["object"]
    thing["metadata"]["resourceVersion"] = str(resource.version if version is None else version)
    return thing


def _told(change: StoreChange, kind: str) -> Change:
    return Change(
        version=change.version,
        deed=change.deed,
        kind=kind,
        object=_shown(change.resource, change.version),
        before=None if change.before is None else _shown(change.before),
    )


def _kept(old: Object, new: Object, part: str, *, has_status: bool) -> Object:
    """Return what becomes of an object: what may not be changed is as it was, a new specification is counted."""
    if part == "all":
        return new
    if part == "status":
        return {**old, "status": new.get("status", {})}
    new["apiVersion"], new["kind"] = old["apiVersion"], old["kind"]
    meta = new["metadata"] = dict(new.get("metadata") or {})
    for name in _FIXED:
        meta.pop(name, None)
        if name in old["metadata"]:
            meta[name] = old["metadata"][name]
    if has_status:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    apart = ("metadata", "status")
    if {key: new[key] for key in new if key not in apart} != {key: old[key] for key in old if key not in apart}:
        meta["generation"] = old["metadata"].get("generation", 0) + 1
    return new


def _grace_s(thing: Object, given: int | None) -> int:
    """Return the seconds that an object has before it is removed: none, but for a pod that runs on a node."""
    spec, phase = thing.get("spec") or {}, (thing.get("status") or {}).get("phase")
    if thing["kind"] != "Pod" or not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    return int(spec.get("terminationGracePeriodSeconds", _GRACE_S) if given is None else given)
