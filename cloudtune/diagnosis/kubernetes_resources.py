"""What a job names on a cluster: queue, priority, service account, secrets; and what its namespace allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from cloudtune.diagnosis.checks import Surroundings
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.kubernetes_mending import OPERATORS, QUEUES
from cloudtune.diagnosis.kubernetes_questions import KubernetesQuestions, get, listing
from cloudtune.diagnosis.kubernetes_wanted import Wanted
from cloudtune.diagnosis.quantities import amount, shown
from cloudtune.diagnosis.questions import Question, Refused

_KUEUE, _KUEUE_CONFIG = "kueue-system", "kueue-manager-config"
_FRAMEWORK = "kubeflow.org/pytorchjob"
#: The label by which a namespace is held to a level of Pod Security.
_LEVEL = "pod-security.kubernetes.io/enforce"
_BUILT_IN = ("system-cluster-critical", "system-node-critical")


def namespace(wanted: Wanted, questions: KubernetesQuestions, _: Surroundings) -> Iterator[Finding]:
    """Look for the namespace, and whether its level of Pod Security lets the job's pods in."""
    if not questions.first_time("namespace", wanted.namespace, str(bool(wanted.host_paths))):
        return
    about, where = f"namespace {wanted.namespace}", wanted.at("namespace")
    question = get("Namespace", wanted.namespace, check="namespace", about=about, where=where)
    yield from questions.settled(question, partial(_namespace, wanted))


def _namespace(wanted: Wanted, question: Question, reply: Mapping[str, Any]) -> Iterator[Finding]:
    if reply.get("absent"):
        message = f"{question.about} does not exist"
        yield question.finding("problem", message, f"kubectl create namespace {wanted.namespace}")
        return
    level = reply.get("metadata", {}).get("labels", {}).get(_LEVEL, "privileged")
    if level != "privileged" and wanted.host_paths:
        message = f"{question.about} is held to {level} Pod Security, which lets no pod mount paths of nodes: "
        hint = "take an emptyDir or a claim in volumes, or ask for another namespace"
        yield question.finding("problem", message + ", ".join(wanted.host_paths), hint)
    elif level == "restricted":
        message = f"{question.about} is held to restricted Pod Security: images that run as root are refused"
        hint = "podSpec: {securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}} and the like"
        yield question.finding("warning", message, hint)
    else:
        yield question.finding("ok", f"{question.about} exists")


# --- the queue


def queue(wanted: Wanted, questions: KubernetesQuestions, _: Surroundings) -> Iterator[Finding]:
    """Look for the LocalQueue: whether it is there, and takes jobs of this kind."""
    for name in wanted.queues:
        kinds = {str(one.get("kind")) for one in wanted.objects}
        if not questions.first_time("queue", wanted.namespace, name, *sorted(kinds & {"PyTorchJob"})):
            continue
        about, where = f"queue {name}", wanted.at("queue")
        question = get("LocalQueue", name, check="queue", about=about, where=where, namespace=wanted.namespace)
        yield from questions.settled(question, partial(_queue, wanted, questions))
        if "PyTorchJob" in kinds:
            yield from _framework(questions, where)
    for name in wanted.queue_priorities:
        about, where = f"priority class {name} of queues", wanted.at("labels")
        question = get("WorkloadPriorityClass", name, check="queue", about=about, where=where)
        yield from questions.settled(
            question, partial(_there, f"name one of kubectl get workloadpriorityclass; {QUEUES}")
        )


def _queue(
    wanted: Wanted, questions: KubernetesQuestions, question: Question, reply: Mapping[str, Any]
) -> Iterator[Finding]:
    if reply.get("absent"):
        rows = _items(questions, listing("LocalQueue", check="queue", about="queues", namespace=wanted.namespace))
        there = ", ".join(row["metadata"]["name"] for row in rows)
        message = f"{question.about} does not exist in namespace {wanted.namespace}: the job would not be started"
        yield question.finding("problem", message, f"there are {there}" if there else f"make one: {QUEUES}")
        return
    conditions = reply.get("status", {}).get("conditions", ())
    active = next((one for one in conditions if one.get("type") == "Active"), None)
    feeds = reply.get("spec", {}).get("clusterQueue")
    if active is None or active.get("status") == "True":
        waiting = reply.get("status", {}).get("pendingWorkloads", 0)
        behind = f"; {waiting} jobs wait in it" if waiting else ""
        yield question.finding("ok", f"{question.about} exists, of ClusterQueue {feeds}{behind}")
    else:
        message = f"{question.about} takes no jobs now: {active.get('message') or active.get('reason')}"
        yield question.finding("problem", message, f"kubectl describe clusterqueue {feeds} says why")


def _framework(questions: KubernetesQuestions, where: str) -> Iterator[Finding]:
    """Look whether Kueue looks at PyTorchJobs: it ignores their queue unless told to manage them."""
    about = "whether Kueue manages PyTorchJobs"
    question = get("ConfigMap", _KUEUE_CONFIG, check="queue", about=about, where=where, namespace=_KUEUE)
    hint = f"enable {_FRAMEWORK} among integrations.frameworks: {OPERATORS['kueue.x-k8s.io']}"
    try:
        reply = questions.ask(question)
    except Refused as refused:
        yield refused.finding
        return
    if reply.get("absent"):
        yield question.finding("unknown", f"{about}: its configuration is not where it usually is", hint)
        return
    lines = [line.strip() for text in reply.get("data", {}).values() for line in str(text).splitlines()]
    if any(_FRAMEWORK in line and not line.startswith("#") for line in lines):
        yield question.finding("ok", "Kueue manages PyTorchJobs")
    else:
        yield question.finding("problem", "Kueue ignores PyTorchJobs: the job would start past its queue", hint)


# --- what pods name


def names(wanted: Wanted, questions: KubernetesQuestions, _: Surroundings) -> Iterator[Finding]:
    """Look for priority class, service account, secrets; of a secret nothing is asked but whether it is there."""
    space, kubectl = wanted.namespace, wanted.kubectl
    for name in wanted.priorities:
        if name not in _BUILT_IN and questions.first_time("priority", name):
            about, where = f"priority class {name}", wanted.at("priorityClass")
            question = get("PriorityClass", name, check="priority", about=about, where=where)
            hint = f"name one of kubectl get priorityclass, or kubectl create priorityclass {name} --value=1000"
            yield from questions.settled(question, partial(_there, hint))
    for name in wanted.service_accounts:
        if questions.first_time("account", space, name):
            about, where = f"service account {name}", wanted.at("serviceAccount")
            question = get("ServiceAccount", name, check="account", about=about, where=where, namespace=space)
            yield from questions.settled(question, partial(_account, f"{kubectl} create serviceaccount {name}"))
    registry = f"{kubectl} create secret docker-registry NAME --docker-server=... --docker-username=..."
    generic = {
        name: f"{kubectl} create secret generic NAME "
        + " ".join(f"--from-file={key}=<file>" for key in keys or ("KEY",))
        for name, keys in wanted.secrets.items()
    }
    for name, make in (generic | dict.fromkeys(wanted.pull_secrets, registry)).items():
        if questions.first_time("secret", space, name):
            where = wanted.subject.at("runtime.spec.env") if name in generic else wanted.at("imagePullSecrets")
            more = {"namespace": space, "metadataOnly": True}
            question = get("Secret", name, check="secrets", about=f"secret {name}", where=where, **more)
            yield from questions.settled(question, partial(_there, make.replace("NAME", name)))


def _there(hint: str, question: Question, reply: Mapping[str, Any]) -> Iterator[Finding]:
    if reply.get("absent"):
        space = question.parameters.get("namespace")
        inside = f" in namespace {space}" if space else ""
        yield question.finding("problem", f"{question.about} does not exist{inside}", hint)
    else:
        yield question.finding("ok", f"{question.about} exists")


def _account(hint: str, question: Question, reply: Mapping[str, Any]) -> Iterator[Finding]:
    role = reply.get("metadata", {}).get("annotations", {}).get("eks.amazonaws.com/role-arn")
    if role:
        yield question.finding("ok", f"{question.about} exists, and its pods take {role}")
    else:
        yield from _there(hint, question, reply)


# --- what the namespace allows


def quota(wanted: Wanted, questions: KubernetesQuestions, _: Surroundings) -> Iterator[Finding]:
    """Compare what the job takes with what quotas of its namespace leave, and with the limits of one container."""
    takes = wanted.at_once
    if not takes or not questions.first_time("quota", wanted.namespace, str(sorted(takes.items()))):
        return
    where = wanted.at("namespace")
    question = listing("ResourceQuota", check="quota", about="quotas", where=where, namespace=wanted.namespace)
    yield from questions.settled(question, partial(_quotas, wanted, takes))
    largest = {name: max(group.takes.get(name, Decimal(0)) for group in wanted.nodes) for name in takes}
    question = listing("LimitRange", check="quota", about="limits", where=where, namespace=wanted.namespace)
    yield from questions.settled(question, partial(_limits, wanted, largest))


def _quotas(
    wanted: Wanted, takes: Mapping[str, Decimal], question: Question, reply: Mapping[str, Any]
) -> Iterator[Finding]:
    rows = reply.get("items", ())
    for row in rows:
        name, status = row["metadata"]["name"], row.get("status", {})
        hard, used = status.get("hard") or row.get("spec", {}).get("hard", {}), status.get("used", {})
        for key, most in hard.items():
            need = takes.get(key.removeprefix("requests.").removeprefix("limits."))
            allowed = amount(most)
            if need is None or allowed is None:
                continue
            left, what = allowed - (amount(used.get(key, 0)) or 0), key.rpartition("requests.")[2]
            if need > left:
                said = f"the job takes {shown(what, need)} {what}, and quota {name} leaves {shown(what, left)}"
                hint = f"{wanted.kubectl} describe quota {name}; end other jobs, or ask for more"
                yield question.finding("problem" if need > allowed else "warning", said, hint)
                return
    if rows:
        yield question.finding("ok", f"quotas of namespace {wanted.namespace} leave enough")


def _limits(
    wanted: Wanted, largest: Mapping[str, Decimal], question: Question, reply: Mapping[str, Any]
) -> Iterator[Finding]:
    for row in reply.get("items", ()):
        for limit in row.get("spec", {}).get("limits", ()):
            if limit.get("type") not in {"Container", "Pod"}:
                continue
            for name, most in limit.get("max", {}).items():
                allowed = amount(most)
                if allowed is not None and largest.get(name, Decimal(0)) > allowed:
                    each = f"a node of the job takes {shown(name, largest[name])} {name}"
                    message = f"{each}, and namespace {wanted.namespace} allows a {limit['type'].lower()} {most}"
                    hint = f"{wanted.kubectl} describe limitrange {row['metadata']['name']}"
                    yield question.finding("problem", message, hint)


def _items(questions: KubernetesQuestions, question: Question) -> list[Mapping[str, Any]]:
    """Return what a list has; nothing where it may not be seen."""
    try:
        return list(questions.ask(question).get("items", ()))
    except Refused:
        return []
