"""What a cluster's nodes have to give: whether some have what each node of a job takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

from cloudtune.diagnosis.checks import Surroundings
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.kubernetes_mending import PLUGINS, for_cluster
from cloudtune.diagnosis.kubernetes_questions import KubernetesQuestions, get, listing
from cloudtune.diagnosis.kubernetes_wanted import Nodes, Wanted
from cloudtune.diagnosis.quantities import amount, shown
from cloudtune.diagnosis.questions import Question, Refused

#: Labels by which nodes are chosen, and the health that HyperPod gives its own.
_INSTANCE_TYPE = "node.kubernetes.io/instance-type"
_HEALTH = "sagemaker.amazonaws.com/node-health-status"
#: The class of devices of Neuron's driver for resource claims.
_CLAIMED = "neuron.aws.com"
_KEEPING_OUT = frozenset({"NoSchedule", "NoExecute"})


def nodes(wanted: Wanted, questions: KubernetesQuestions, _: Surroundings) -> Iterator[Finding]:
    """Compare what nodes of the job take with what those of the cluster have."""
    for group in wanted.nodes:
        if not questions.first_time("nodes", str(group)):
            continue
        where = wanted.at("instanceType")
        question = listing("Node", check="nodes", about="nodes of the cluster", where=where)
        yield from questions.settled(question, partial(_judged, wanted, questions, group))


def _judged(
    wanted: Wanted,
    questions: KubernetesQuestions,
    group: Nodes,
    question: Question,
    reply: Mapping[str, Any],
) -> Iterator[Finding]:
    rows = reply.get("items", ())
    chosen = [row for row in rows if _has(row, group.selector)]
    called = group.selector.get(_INSTANCE_TYPE) or "the job's choice"
    if not chosen:
        yield _none(wanted, group, question, rows)
        return
    lacking = [name for name in group.takes if not any(_gives(row, name) for row in chosen)]
    for name in lacking:
        yield _without(wanted, questions, question, name, f"{len(chosen)} x {called}")
    if lacking:
        return
    refusing = {row["metadata"]["name"]: reason for row in chosen if (reason := _refusal(row, group))}
    small = [name for name, need in group.takes.items() if all(_gives(row, name) < need for row in chosen)]
    for name in small:
        most = max(_gives(row, name) for row in chosen)
        message = f"each node takes {shown(name, group.takes[name])} {name}, and {called} has {shown(name, most)} of it"
        yield question.finding("problem", message, _lower(name))
    if small:
        return
    fit = [row for row in chosen if row["metadata"]["name"] not in refusing and _fits(row, group)]
    yield _counted(wanted, group, question, len(fit), len(chosen), refusing)


def _counted(
    wanted: Wanted, group: Nodes, question: Question, fit: int, chosen: int, refusing: Mapping[str, str]
) -> Finding:
    """Say how many nodes could take one of the job's; whether others use them now is not looked at."""
    order = sorted(group.takes.items(), key=lambda one: ("/" in one[0], one[0]))
    takes = ", ".join(f"{shown(name, number)} {name}" for name, number in order)
    each = f", each with {takes}" if takes else ""
    many = "1 node" if group.count == 1 else f"{group.count} nodes"
    said = f"the job takes {many}{each}; {fit} of {chosen} that it chooses could give that"
    if fit >= group.count:
        return question.finding("ok", said)
    whys = ", ".join(f"{name}: {why}" for name, why in list(refusing.items())[:3])
    message = f"{said}{f' ({whys})' if whys else ''}"
    taints = sorted({why for why in refusing.values() if why.startswith("taint ")})
    if fit == 0 and len(taints) == 1 and len(refusing) == chosen:
        key = taints[0].removeprefix("taint ").partition("=")[0].partition(":")[0]
        return question.finding("problem", message, f"tolerations: [{{key: {key}, operator: Exists}}] in the spec")
    status = "problem" if fit == 0 and refusing else "warning"
    return question.finding(status, message, f"the job waits until there are more: {_scaling(wanted)}")


def _none(wanted: Wanted, group: Nodes, question: Question, rows: Sequence[Mapping[str, Any]]) -> Finding:
    """Say that no node is there now: a group may be scaled to none, and grow when the job asks for nodes."""
    selector = ", ".join(f"{key}={text}" for key, text in group.selector.items())
    types = sorted({row["metadata"].get("labels", {}).get(_INSTANCE_TYPE, "unnamed") for row in rows})
    asked = group.selector.get(_INSTANCE_TYPE, "")
    other = asked.removeprefix("ml.") if asked.startswith("ml.") else f"ml.{asked}"
    if other in types:
        message = f"no node is {asked}, and some are {other}"
        return question.finding("problem", message, f"instanceType: {other}")
    message = f"no node with {selector or 'any label'} is there now; there are {', '.join(types) or 'none at all'}"
    hint = f"a group scaled to none shows no nodes; if nothing adds them by itself: {_scaling(wanted)}"
    return question.finding("unknown", message, hint)


def _without(wanted: Wanted, questions: KubernetesQuestions, question: Question, name: str, called: str) -> Finding:
    """Say that nodes are there, and offer none of a resource."""
    if name.startswith("aws.amazon.com/neuron"):
        claimed = get("DeviceClass", _CLAIMED, check="nodes", about="the class of Neuron devices", where=question.where)
        try:
            if not questions.ask(claimed).get("absent"):
                message = f"{called} offer no {name}: this cluster gives Neuron devices by resource claims"
                hint = "claim them in podSpec (resourceClaims), or use Neuron's device plugin on these nodes"
                return question.finding("problem", message, hint)
        except Refused:
            pass  # the plugin is the usual way
    mending = PLUGINS.get(name)
    hint = mending or "name nodes that have it: instanceType, nodeSelector"
    if name == "vpc.amazonaws.com/efa":
        hint = f"{hint}; the node group needs efaEnabled: true, or set efaPerNode: 0"
    return question.finding("problem", f"{called} offer no {name}", for_cluster(hint, wanted.place.cluster, None))


def _lower(name: str) -> str:
    if name in {"cpu", "memory"}:
        return f"ask for less: resources: {{requests: {{{name}: ...}}}}, or a larger instanceType"
    if name == "vpc.amazonaws.com/efa":
        return "efaPerNode: as many as the nodes have, or a node group with efaEnabled: true"
    return "lower processesPerNode, or take a larger instanceType"


def _scaling(wanted: Wanted) -> str:
    count = sum(group.count for group in wanted.nodes)
    command = f"eksctl scale nodegroup --cluster CLUSTER --name <node group> --nodes {count}"
    return for_cluster(command, wanted.place.cluster, wanted.place.region)


def _has(row: Mapping[str, Any], selector: Mapping[str, str]) -> bool:
    labels = row["metadata"].get("labels", {})
    return all(labels.get(key) == text for key, text in selector.items())


def _gives(row: Mapping[str, Any], name: str) -> Decimal:
    return amount(row.get("status", {}).get("allocatable", {}).get(name, 0)) or Decimal(0)


def _fits(row: Mapping[str, Any], group: Nodes) -> bool:
    return all(_gives(row, name) >= need for name, need in group.takes.items())


def _refusal(row: Mapping[str, Any], group: Nodes) -> str | None:
    """Return why a node takes no pods of the job."""
    spec, conditions = row.get("spec", {}), row.get("status", {}).get("conditions", ())
    health = str(row["metadata"].get("labels", {}).get(_HEALTH, "Schedulable"))
    if not any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions):
        return "not ready"
    if spec.get("unschedulable"):
        return "cordoned"
    if health != "Schedulable":
        return health
    for taint in spec.get("taints", ()):
        if taint.get("effect") in _KEEPING_OUT and not any(tolerates(one, taint) for one in group.tolerations):
            value = f"={taint['value']}" if taint.get("value") else ""
            return f"taint {taint.get('key')}{value}:{taint.get('effect')}"
    return None


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Whether pods with a toleration may run on nodes with a taint."""
    if toleration.get("effect") not in {None, "", taint.get("effect")}:
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in {None, "", taint.get("key")}
    return toleration.get("key") == taint.get("key") and toleration.get("value", "") == taint.get("value", "")
