"""A cluster as a place for jobs, EKS above all: asked by its API alone, with the user's own rights.

Only questions are asked. What the pods themselves may do on AWS cannot be seen from here: infrastructure/eks grants it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from cloudtune.clients.aws import AwsClient
from cloudtune.clients.kubernetes import KubernetesClient
from cloudtune.diagnosis import (
    aws_resources,
    kubernetes_kinds,
    kubernetes_nodes,
    kubernetes_resources,
    kubernetes_storage,
)
from cloudtune.diagnosis.aws_questions import AwsQuestions
from cloudtune.diagnosis.checks import Check, Surroundings
from cloudtune.diagnosis.document import Subject
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.kubernetes_questions import SERVICE, KubernetesQuestions
from cloudtune.diagnosis.kubernetes_wanted import Wanted, wanted_by
from cloudtune.diagnosis.questions import Question, Refused, looked_at

_LIMIT_S = 60.0
#: What is looked at, one after the other; each may be refused by itself.
Look = Callable[[Wanted, KubernetesQuestions, Surroundings], Iterator[Finding]]
LOOKS: tuple[Look, ...] = (
    kubernetes_resources.namespace,
    kubernetes_kinds.access,
    kubernetes_kinds.kinds,
    kubernetes_nodes.nodes,
    kubernetes_resources.queue,
    kubernetes_resources.names,
    kubernetes_storage.volumes,
    kubernetes_resources.quota,
)

ON_AWS = (aws_resources.buckets, aws_resources.inputs, aws_resources.secrets)


def checks(subjects: Sequence[Subject], surroundings: Surroundings) -> tuple[Check, ...]:
    """Return one check over all jobs that go to clusters: what they share is asked for once."""
    return (Check(name="cluster", look=partial(look, subjects, surroundings), limit_s=_LIMIT_S),)


def look(subjects: Sequence[Subject], surroundings: Surroundings) -> Iterator[Finding]:
    """Look at everything that the jobs need."""
    client = KubernetesClient(hasty=True)
    clusters: dict[str, KubernetesQuestions] = {}
    silent: set[str] = set()
    several = [wanted_by(subject) for subject in subjects]
    for wanted in several:
        if wanted.scope in silent or not wanted.is_settled:
            continue
        if wanted.scope not in clusters:
            questions = clusters[wanted.scope] = KubernetesQuestions(client)
            questions.turn_to(wanted.facts, wanted.scope)
            try:
                # anybody may ask a cluster for its version
                yield _reached(wanted, questions.ask(_asked(wanted, "version")), questions.ask(_asked(wanted, "who")))
            except Refused as refused:
                silent.add(wanted.scope)
                yield refused.finding
                continue
        clusters[wanted.scope].turn_to(wanted.facts, wanted.scope)
        yield from looked_at(LOOKS, wanted, clusters[wanted.scope], surroundings)
    yield from _on_aws(several, surroundings)


def _on_aws(several: Sequence[Wanted], surroundings: Surroundings) -> Iterator[Finding]:
    """Look for what the jobs have on AWS, with the user's rights: those of pods are not seen from here."""
    questions: AwsQuestions | None = None
    for wanted in several:
        stored = wanted.stored
        if stored.objects or stored.secrets:
            questions = questions or AwsQuestions(AwsClient(hasty=True))
            bucket = stored.objects[0].bucket if stored.objects else None
            questions.turn_to({"bucket": bucket}, wanted.place.region)
            yield from looked_at(ON_AWS, stored, questions, surroundings)


def _asked(wanted: Wanted, operation: str) -> Question:
    return Question(
        service=SERVICE,
        operation=operation,
        parameters={"absent": True},
        check="cluster",
        about=_called(wanted),
        where=wanted.at("context" if wanted.place.context else "cluster"),
    )


def _reached(wanted: Wanted, version: Mapping[str, Any], who: Mapping[str, Any]) -> Finding:
    user = who.get("username")
    said = f"Kubernetes {version.get('gitVersion') or 'of an unknown version'}{f'; you ask as {user}' if user else ''}"
    return _asked(wanted, "version").finding("ok", f"{_called(wanted)} is reached: {said}")


def _called(wanted: Wanted) -> str:
    kind, _, name = wanted.scope.partition(":")
    named = {"context": f"the cluster of context {name}", "eks": f"cluster {name}", "in-cluster": "this pod's cluster"}
    return named.get(kind, "the cluster of this machine's kubeconfig")
