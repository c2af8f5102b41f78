"""Volumes of a job on a cluster: whether they are there, may be shared by its nodes, and have a driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from cloudtune.diagnosis.checks import Surroundings
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.kubernetes_mending import DRIVERS, VOLUME, for_cluster
from cloudtune.diagnosis.kubernetes_questions import KubernetesQuestions, get
from cloudtune.diagnosis.kubernetes_wanted import Wanted
from cloudtune.diagnosis.questions import Question, Refused

#: How a volume may be mounted by several nodes.
_SHARED = {"ReadWriteMany", "ReadOnlyMany"}
_ON_USE = "WaitForFirstConsumer"


def volumes(wanted: Wanted, questions: KubernetesQuestions, _: Surroundings) -> Iterator[Finding]:
    """Look for each claim: whether it has its volume, and whether all nodes may mount it."""
    several = any(group.count > 1 for group in wanted.nodes)
    for name in wanted.claims:
        if not questions.first_time("claim", wanted.namespace, name, str(several)):
            continue
        question = get(
            "PersistentVolumeClaim",
            name,
            check="volumes",
            about=f"claim {name}",
            where=wanted.at("volumes"),
            namespace=wanted.namespace,
        )
        yield from questions.settled(question, partial(_claim, wanted, questions))


def _claim(
    wanted: Wanted, questions: KubernetesQuestions, question: Question, reply: Mapping[str, Any]
) -> Iterator[Finding]:
    if reply.get("absent"):
        message = f"{question.about} does not exist in namespace {wanted.namespace}"
        hint = f"name one of {wanted.kubectl} get pvc, or make one that nodes share: {VOLUME}"
        yield question.finding("problem", message, hint)
        return
    spec, phase = reply.get("spec", {}), reply.get("status", {}).get("phase")
    modes = set(spec.get("accessModes", ()))
    count = max((group.count for group in wanted.nodes), default=1)  # parts of a JobSet follow each other
    storage = _named(questions, "StorageClass", spec.get("storageClassName"))
    if phase == "Lost":
        hint = f"{wanted.kubectl} describe pvc {question.parameters['name']}"
        yield question.finding("problem", f"{question.about} has lost its volume", hint)
    elif count > 1 and not modes & _SHARED:
        message = f"{question.about} is {', '.join(sorted(modes))}, and {count} nodes are to mount it"
        yield question.finding("problem", message, f"one that nodes share is ReadWriteMany, as of FSx: {VOLUME}")
    elif phase != "Bound" and storage.get("volumeBindingMode") != _ON_USE:
        hint = f"{wanted.kubectl} describe pvc {question.parameters['name']} says why"
        yield question.finding("warning", f"{question.about} has no volume yet: it is {phase}", hint)
    else:
        bound = "has its volume" if phase == "Bound" else "is given a volume when it is used first"
        yield question.finding("ok", f"{question.about} {bound}, {', '.join(sorted(modes))}")
    volume = _named(questions, "PersistentVolume", spec.get("volumeName"))
    driver = volume.get("spec", {}).get("csi", {}).get("driver") or storage.get("provisioner")
    yield from _driver(wanted, questions, question, str(driver or ""))


def _named(questions: KubernetesQuestions, kind: str, name: str | None) -> Mapping[str, Any]:
    """Return what a claim names; nothing where it names none, or it may not be seen."""
    if not name:
        return {}
    try:
        return questions.ask(get(kind, name, check="volumes", about=f"{kind} {name}"))
    except Refused:
        return {}


def _driver(wanted: Wanted, questions: KubernetesQuestions, claim: Question, driver: str) -> Iterator[Finding]:
    """Look for a driver; what Kubernetes has by itself needs none."""
    if "." not in driver or driver.startswith("kubernetes.io/") or not questions.first_time("driver", driver):
        return
    question = get("CSIDriver", driver, check="volumes", about=f"driver {driver}", where=claim.where)
    place = wanted.place
    hint = for_cluster(DRIVERS.get(driver, "install it"), place.cluster, place.region)
    yield from questions.settled(question, partial(_registered, hint))


def _registered(hint: str, question: Question, reply: Mapping[str, Any]) -> Iterator[Finding]:
    if reply.get("absent"):
        yield question.finding("problem", f"{question.about} is not installed: its volumes cannot be mounted", hint)
    else:
        yield question.finding("ok", f"{question.about} is installed")
