"""What a request to an API server aims at: a kind, a namespace, an object, a part of it, and what is to be done."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from cloudtune.rehearsal.kubernetes.kinds import Kind, Kinds
from cloudtune.rehearsal.messages import Request

#: What a server takes for a yes in a query.
YES = ("1", "t", "T", "true", "True", "TRUE")
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
#: Parts of a namespace, which are no kinds in it.
_PARTS_OF_NAMESPACES = {"status", "finalize"}


@attrs.frozen(kw_only=True)
class Target:
    """One aim. ``verb`` is the one that rights are granted for; ``part`` a sub-resource, as ``status`` or ``log``."""

    verb: str
    kind: Kind
    version: str
    namespace: str | None = None
    name: str = ""
    part: str = ""

    @property
    def api_version(self) -> str:
        """Group and version as the caller names them."""
        return self.kind.named(self.version)

    @property
    def resource(self) -> str:
        """The kind, and the part of it, as rights name them: ``jobs.batch``, ``pods/log``."""
        return f"{self.kind.key}/{self.part}" if self.part else self.kind.key

    @property
    def operation(self) -> str:
        """The name under which such calls are counted: ``create_jobs``, ``watch_pods``, ``read_log``."""
        if self.part == "log":
            return "read_log"
        return f"{self.verb}_{self.kind.plural}" + (f"_{self.part}" if self.part else "")


def target_of(request: Request, kinds: Kinds) -> Target | None:
    """Return what a request aims at, None where no kind is served there."""
    words = [word for word in request.path.split("/") if word]
    if words[:1] == ["api"] and len(words) > 2:
        api, rest = words[1], words[2:]
    elif words[:1] == ["apis"] and len(words) > 3:
        api, rest = f"{words[1]}/{words[2]}", words[3:]
    else:
        return None
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in _PARTS_OF_NAMESPACES:
        namespace, rest = rest[1], rest[2:]
    kind = kinds.served(api, rest[0])
    if kind is None or len(rest) > 3 or (namespace is not None and not kind.namespaced):
        return None
    name, part = _at(rest, 1), _at(rest, 2)
    return Target(
        verb=_verb(request, name),
        kind=kind,
        version=api.rpartition("/")[2],
        namespace=namespace,
        name=name,
        part=part,
    )


def _verb(request: Request, name: str) -> str:
    if request.method in ("GET", "HEAD"):
        if name:
            return "get"
        return "watch" if request.query.get("watch", "") in YES else "list"
    if request.method == "DELETE":
        return "delete" if name else "deletecollection"
    return _VERBS.get(request.method, request.method.lower())


def _at(words: Sequence[str], index: int) -> str:
    return words[index] if len(words) > index else ""
