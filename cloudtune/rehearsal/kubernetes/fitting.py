"""Whether a pod fits a node, and why not, in the scheduler's own words.

Source: the default plugins of kube-scheduler, in the order in which they are asked; the first that says no is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import attrs

from cloudtune.rehearsal.kubernetes.objects import Object
from cloudtune.rehearsal.kubernetes.quantities import pod_requests, quantity

_HARD = ("NoSchedule", "NoExecute")
#: What preemption could help against; other reasons stay, whoever goes.
_CROWDED = ("Insufficient", "Too many pods")
_UNSCHEDULABLE = "node(s) were unschedulable"
_NO_MATCH = "node(s) didn't match Pod's node affinity/selector"


@attrs.frozen(kw_only=True)
class Machine:
    """A node, and what its pods ask for already."""

    node: Object
    used: Mapping[str, Decimal]
    pods: int

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.node["metadata"]["name"])

    def free(self, resource: str) -> Decimal:
        """Return how much of a resource is left."""
        allocatable = self.node.get("status", {}).get("allocatable") or {}
        return quantity(allocatable.get(resource, 0)) - self.used.get(resource, Decimal())


def machines(nodes: Iterable[Object], pods: Iterable[Object]) -> list[Machine]:
    """Return nodes with what is asked of them by pods that are not over."""
    used: dict[str, Counter[str]] = {}
    count: Counter[str] = Counter()
    for pod in pods:
        name = pod["spec"].get("nodeName")
        if name and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            rows: Counter[str] = used.setdefault(name, Counter())
            for resource, value in pod_requests(pod["spec"]).items():
                rows[resource] += value  # type: ignore[assignment]
            count[name] += 1
    found = []
    for node in nodes:
        name = node["metadata"]["name"]
        asked: Mapping[str, Any] = used.get(name, Counter())
        found.append(Machine(node=node, used=dict(asked), pods=count[name]))
    return found


def why_not(pod: Object, machine: Machine) -> list[str]:
    """Return why a pod cannot be on a node; nothing where it can."""
    spec, node = pod["spec"], machine.node
    if node.get("spec", {}).get("unschedulable"):
        return [_UNSCHEDULABLE]
    for taint in node.get("spec", {}).get("taints") or ():
        if taint["effect"] in _HARD and not any(tolerates(one, taint) for one in spec.get("tolerations") or ()):
            return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
    if not _is_chosen(spec, node):
        return [_NO_MATCH]
    return [
        "Too many pods" if resource == "pods" else f"Insufficient {resource}"
        for resource, value in sorted(pod_requests(spec).items())
        if value > 0 and value > machine.free(resource)
    ]


def told(reasons: Mapping[str, list[str]]) -> str:
    """Return the message of a pod that fits none of the nodes, by their names.

    >>> told({"a": ["Insufficient cpu"], "b": ["Insufficient cpu"]}).partition(" preemption")[0]
    '0/2 nodes are available: 2 Insufficient cpu.'
    """
    if not reasons:
        return "no nodes available to schedule pods"
    counted = Counter(reason for rows in reasons.values() for reason in rows)
    words = ", ".join(sorted(f"{count} {reason}" for reason, count in counted.items()))
    crowded = sum(all(row.startswith(_CROWDED) for row in rows) for rows in reasons.values())
    total = len(reasons)
    helps = [
        *([f"{crowded} No preemption victims found for incoming pod"] if crowded else []),
        *([f"{total - crowded} Preemption is not helpful for scheduling"] if crowded < total else []),
    ]
    available = f"0/{total} nodes are available"
    return f"{available}: {words}. preemption: {available}: {', '.join(sorted(helps))}."


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Whether a toleration is for a taint."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def _is_chosen(spec: Mapping[str, Any], node: Object) -> bool:
    labels = node["metadata"].get("labels") or {}
    if not (spec.get("nodeSelector") or {}).items() <= labels.items():
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    terms = (required or {}).get("nodeSelectorTerms") or ()
    return required is None or any(_fits(term, labels) for term in terms)


def _fits(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    rows = term.get("matchExpressions") or ()
    return bool(rows) and all(_holds(row, labels.get(row["key"])) for row in rows)


def _holds(row: Mapping[str, Any], value: str | None) -> bool:
    operator, values = row["operator"], list(row.get("values") or ())
    if operator in ("Exists", "DoesNotExist"):
        return (value is not None) is (operator == "Exists")
    if operator == "NotIn":
        return value not in values
    if value is None:
        return False
    if operator == "In":
        return value in values
    try:
        return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])
    except ValueError:
        return False
