"""Kinds of objects and rights: whether the cluster serves what a job is made of, and lets its user do with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from cloudtune import rights
from cloudtune.backends.eks_kinds import DEFAULT_TRAINER_API, TRAINER_FIELDS
from cloudtune.diagnosis.checks import Surroundings
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.kubernetes_mending import OPERATORS, RIGHTS
from cloudtune.diagnosis.kubernetes_questions import POLICIES, SERVICE, KubernetesQuestions, get, listing
from cloudtune.diagnosis.kubernetes_wanted import Wanted
from cloudtune.diagnosis.questions import Question, Refused

#: By kind of object: what else must be served, whose controller runs it (as its Deployment is called), whose right.
_MORE = {"TrainJob": ("jobset.x-k8s.io",)}
_CONTROLLERS = {
    "kubeflow.org": re.compile(r"training-operator"),
    "trainer.kubeflow.org": re.compile(r"trainer"),
    "jobset.x-k8s.io": re.compile(r"jobset"),
    "kueue.x-k8s.io": re.compile(r"kueue(-controller-manager)?$"),
}
_FEATURES = {"PyTorchJob": "pytorchjobs", "TrainJob": "trainjobs", "JobSet": "jobsets"}
_TRAINJOBS = "trainjobs.trainer.kubeflow.org"


def kinds(wanted: Wanted, questions: KubernetesQuestions, _: Surroundings) -> Iterator[Finding]:
    """Look whether the cluster serves the job's kind of object, in its version, and whether anybody runs it."""
    versions = {str(one.get("apiVersion")): str(one.get("kind")) for one in wanted.objects}
    groups = {version.rpartition("/")[0]: version.rpartition("/")[2] for version in versions}
    groups |= {group: "" for kind in versions.values() for group in _MORE.get(kind, ())}
    groups |= {"kueue.x-k8s.io": ""} if wanted.queues else {}
    for group, version in groups.items():
        if not group or group == "batch" or not questions.first_time("kind", group, version):
            continue
        where = wanted.at("queue" if group.startswith("kueue") else "jobKind")
        question = Question(
            service=SERVICE,
            operation="discover",
            parameters={"group": group, "absent": True},
            check="operators",
            about=f"API group {group}",
            where=where,
        )
        yield from questions.settled(question, partial(_served, questions, group, version))
    if "TrainJob" in versions.values():
        yield from _trainer(wanted, questions)


def _served(
    questions: KubernetesQuestions, group: str, version: str, question: Question, reply: Mapping[str, Any]
) -> Iterator[Finding]:
    there = [str(one.get("version")) for one in reply.get("versions", ())]
    if not there:
        yield question.finding(
            "problem", f"the cluster has no {group}: its operator is not installed", OPERATORS[group]
        )
        return
    if version and version not in there:
        message = f"the cluster serves {group} in {', '.join(there)}, and the job is of {version}"
        yield question.finding("problem", message, f"install the version of infrastructure/eks: {OPERATORS[group]}")
        return
    yield from _running(questions, group, question)


def _running(questions: KubernetesQuestions, group: str, served: Question) -> Iterator[Finding]:
    """Look for whoever runs objects of a group: its definitions stay when it is removed."""
    about = f"who runs objects of {group}"
    question = listing("Deployment", check="operators", about=about, where=served.where)
    try:
        rows = questions.ask(question).get("items", ())
    except Refused:
        yield question.finding("ok", f"{group} is served; whether its operator runs is not yours to see")
        return
    mine = [row for row in rows if _CONTROLLERS[group].search(row["metadata"]["name"])]
    if any(row.get("status", {}).get("availableReplicas", 0) for row in mine):
        yield question.finding("ok", f"{group} is served, and its operator runs")
    elif mine:
        name, namespace = mine[0]["metadata"]["name"], mine[0]["metadata"].get("namespace", "default")
        hint = f"kubectl -n {namespace} describe deployment {name}"
        yield question.finding("problem", f"{group} is served, and its operator {name} does not run", hint)
    else:
        message = f"{group} is served, and no operator is seen that would run its objects"
        yield question.finding("warning", message, f"if it was removed: {OPERATORS[group]}")


def _trainer(wanted: Wanted, questions: KubernetesQuestions) -> Iterator[Finding]:
    """Look whether the API of TrainJobs is the version of the job, and its runtime there."""
    asked, where = wanted.place.trainer_api or DEFAULT_TRAINER_API, wanted.at("trainerApi")
    if questions.first_time("trainer", asked):
        about = "the definition of TrainJobs"
        question = get("CustomResourceDefinition", _TRAINJOBS, check="operators", about=about, where=where)
        yield from questions.settled(question, partial(_trainer_version, asked))
    for one in wanted.objects:
        runtime = one.get("spec", {}).get("runtimeRef", {})
        name = runtime.get("name")
        if name and runtime.get("kind", "ClusterTrainingRuntime") == "ClusterTrainingRuntime":
            about = f"training runtime {name}"
            question = get("ClusterTrainingRuntime", name, check="operators", about=about, where=wanted.at("jobKind"))
            yield from questions.settled(question, partial(_there, hint=OPERATORS["trainer.kubeflow.org"]))


def _trainer_version(asked: str, question: Question, reply: Mapping[str, Any]) -> Iterator[Finding]:
    versions = reply.get("spec", {}).get("versions", ())
    served: Mapping[str, Any] = next((one for one in versions if one.get("served")), {})
    schema = served.get("schema", {}).get("openAPIV3Schema", {}).get("properties", {}).get("spec", {})
    fields = schema.get("properties", {})
    found = next((version for field, version in TRAINER_FIELDS.items() if field in fields), None)
    if found is None:
        return
    if found == asked or asked > found == DEFAULT_TRAINER_API:  # nothing of the fields has changed since
        yield question.finding("ok", f"TrainJobs are served as of {found}")
    else:
        message = f"the cluster's TrainJobs are those of {found}, and the job is written for {asked}"
        yield question.finding("problem", message, f"trainerApi: {found}")


def _there(question: Question, reply: Mapping[str, Any], *, hint: str) -> Iterator[Finding]:
    if reply.get("absent"):
        yield question.finding("problem", f"{question.about} does not exist", hint)
    else:
        yield question.finding("ok", f"{question.about} exists")


# --- rights


def access(wanted: Wanted, questions: KubernetesQuestions, _: Surroundings) -> Iterator[Finding]:
    """Ask the cluster whether the user may do all that running the job takes."""
    features = {"jobs", *(_FEATURES[kind] for one in wanted.objects if (kind := str(one.get("kind"))) in _FEATURES)}
    features |= {"queues"} if wanted.queues else set()
    if not questions.first_time("access", wanted.namespace, *sorted(features)):
        return
    if _may(questions, wanted, "*", "*", "*"):
        yield _question(wanted).finding("ok", f"you may do everything in namespace {wanted.namespace}")
        return
    rows = [one for one in rights.rights("kubernetes").values() if one.verbs and one.feature in features]
    missing: list[tuple[rights.Right, str]] = []
    for right in rows:
        for resource in right.resources:
            lacks = [
                verb
                for verb in right.verbs
                if not _may(questions, wanted, verb, right.groups[0], resource, everywhere=right.cluster)
            ]
            missing += [(right, f"{', '.join(lacks)} {resource}")] if lacks else []
    for right, said in missing:
        statement = right.statement(wanted.facts)
        place = "" if right.cluster else f" in namespace {wanted.namespace}"
        message = f"you may not {said}{place}: {right.why}"
        hint = f"your administrator grants it, feature {right.feature} of {POLICIES}: {RIGHTS}"
        yield _question(wanted).finding("problem", message, hint, (statement,))
    if not missing:
        said = f"you may do what running such a job takes in namespace {wanted.namespace}"
        yield _question(wanted).finding("ok", said)


def _question(wanted: Wanted, **parameters: Any) -> Question:
    return Question(
        service=SERVICE,
        operation="review",
        parameters=parameters,
        check="rights",
        about="what you may do",
        where=wanted.at("namespace"),
        needed=False,
    )


def _may(
    questions: KubernetesQuestions, wanted: Wanted, verb: str, group: str, resource: str, *, everywhere: bool = False
) -> bool:
    name, _, sub = resource.partition("/")
    parameters = {"verb": verb, "group": group, "resource": name}
    parameters |= {"subresource": sub} if sub else {}
    parameters |= {} if everywhere else {"namespace": wanted.namespace}
    return bool(questions.ask(_question(wanted, **parameters)).get("allowed"))
