"""Which right each operation of a service needs, in the words of its policies; the same that infrastructure/ grants.

The tables are data, one a cloud (``oci.json``): a right is one statement, an operation is the SDK's name of a request
and lists the rights of all who have a part in it. In a cluster (``kubernetes.json``) a right says itself which requests
it is for: verbs on resources. Tests hold them against ``infrastructure/`` and against what is really called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import attrs

_BLANK = re.compile(r"\{(\w+)\}")
#: What stands in a statement for a fact that is not known here.
_UNKNOWN = {
    "users": "<your group>",
    "job_runs": "<dynamic group of job runs>",
    "deployments": "<dynamic group of model deployments>",
    "network": "<compartment of the network>",
    "vault": "<compartment of the vault>",
    "images": "<account of the images>",
    "secrets": "",
}


#: By service, the table that has it where it is not that of its cloud.
_ELSEWHERE = {"aws.eks": "kubernetes"}


@attrs.frozen(kw_only=True)
class Right:
    """One statement of a policy: who may do what, for which feature of cloudtune, and why.

    In the words of OCI it is ``may``; in AWS's, ``actions`` on ``resources`` under a ``condition``; in a cluster's,
    ``verbs`` on ``resources`` of ``groups``, of some ``names`` alone or of all, of the whole ``cluster`` or of one
    namespace. They have blanks: ``{compartment}``, ``{bucket}`` and such. ``feature`` is the key under which
    infrastructure/ has it.
    """

    id: str
    subject: str
    feature: str
    why: str
    may: str = ""
    actions: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    resources: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    condition: Mapping[str, Any] | None = None
    groups: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    verbs: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    names: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    cluster: bool = False

    @property
    def who(self) -> str:
        """Whose right it is: ``users``, the nodes of jobs, deployments, or a service of the cloud."""
        return self.id.partition(".")[0]

    def statement(self, facts: Mapping[str, str | None] = {}) -> str:
        """Return the statement with the facts filled in; an unknown one is left to the reader as ``<...>``."""

        def filled(blank: re.Match[str]) -> str:
            name = blank[1]
            return facts.get(name) or _UNKNOWN.get(name, f"<{name.replace('_', ' ')}>")

        if self.verbs:
            return _BLANK.sub(filled, json.dumps(self.rule()))
        return _BLANK.sub(filled, self._policy() if self.actions else f"allow {self.subject} to {self.may}")

    def rule(self) -> dict[str, list[str]]:
        """Return the statement as a rule of a cluster's Role."""
        parts = {
            "apiGroups": self.groups,
            "resources": self.resources,
            "verbs": self.verbs,
            "resourceNames": self.names,
        }
        return {name: list(value) for name, value in parts.items() if value}

    def _policy(self) -> str:
        """Return the statement as JSON on one line."""
        parts = {"Effect": "Allow", "Action": self.actions, "Resource": self.resources, "Condition": self.condition}
        return json.dumps({name: value for name, value in parts.items() if value is not None})


@cache
def rights(cloud: str = "oci") -> Mapping[str, Right]:
    """Return the rights that cloudtune can need in a cloud, by id."""
    table = _table(cloud)
    return {
        name: Right(id=name, subject=table["subjects"][name.partition(".")[0]], **row)
        for name, row in table["rights"].items()
    }


def needed_for(service: str, operation: str, *, who: str | None = None) -> tuple[Right, ...]:
    """Return the rights that an operation needs, of everybody or of one; none for an operation that is not known."""
    cloud = _ELSEWHERE.get(service, service.partition(".")[0])
    found = (rights(cloud)[name] for name in _table(cloud).get("operations", {}).get(f"{service}.{operation}", ()))
    return tuple(right for right in found if who in {None, right.who})


def allowing(verb: str, resource: str, group: str = "") -> tuple[Right, ...]:
    """Return the rights by which somebody may do a verb on a resource of a cluster; none where cloudtune needs none.

    >>> [right.id for right in allowing("get", "pods/log")]
    ['users.logs']
    """
    every = rights("kubernetes").values()
    return tuple(one for one in every if verb in one.verbs and resource in one.resources and group in one.groups)


def operations(cloud: str = "oci") -> Mapping[str, tuple[str, ...]]:
    """Return the ids of the rights by operation, ``service.operation``."""
    return {name: tuple(needed) for name, needed in _table(cloud)["operations"].items()}


@cache
def _table(cloud: str) -> dict[str, Any]:
    file = resources.files(__name__).joinpath(f"{cloud}.json")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found
