"""Compartment, project, shape, limits, logs, secrets and image of a job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cloudtune.diagnosis.checks import Surroundings
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.oci_wanted import Wanted
from cloudtune.diagnosis.questions import Question, Questions
from cloudtune.spec.faults import nearest

#: Names of the limits of Data Science on GPUs, by what the name of a shape begins with; of others they are not known.
_LIMITS = {"VM.GPU.A10.": "ds-gpu-a10-count", "BM.GPU.A10.": "ds-gpu-a10-count", "BM.GPU4.": "ds-gpu4-count"}
#: Lifecycle states in which a thing can be used.
_USABLE = {"ACTIVE", "AVAILABLE"}
#: Pages of shapes that are read at most.
_PAGES = 20


def compartment(wanted: Wanted, questions: Questions, _: Surroundings) -> Iterator[Finding]:
    """Look for the compartment."""
    ocid = wanted.place.compartment_id
    if not ocid or not questions.first_time("compartment", ocid):
        return
    question = Question(
        service="oci.identity",
        operation="get_compartment",
        parameters={"compartmentId": ocid},
        check="compartment",
        about=f"compartment {ocid}",
        where=wanted.at("compartmentId"),
        needed=False,
    )
    reply = questions.ask(question)
    yield standing(question, reply, f"compartment {reply.get('name', ocid)}")


def project(wanted: Wanted, questions: Questions, _: Surroundings) -> Iterator[Finding]:
    """Look for the project, in the job's compartment."""
    ocid = wanted.place.project_id
    if not ocid or not questions.first_time("project", ocid):
        return
    question = Question(
        service="oci.data_science",
        operation="get_project",
        parameters={"projectId": ocid},
        check="project",
        about=f"project {ocid}",
        where=wanted.at("projectId"),
    )
    reply = questions.ask(question)
    yield standing(question, reply, f"project {reply.get('displayName', ocid)}")
    yield from elsewhere(question, reply, wanted, "the project")


def shape(wanted: Wanted, questions: Questions, _: Surroundings) -> Iterator[Finding]:
    """Look whether jobs can have the shape in this compartment and region."""
    name, ocid = wanted.place.shape_name, wanted.place.compartment_id
    if not name or not ocid or not questions.first_time("shape", ocid, name):
        return
    parameters = {"compartmentId": ocid}
    names: list[str] = []
    for _page in range(_PAGES):
        question = Question(
            service="oci.data_science",
            operation="list_job_shapes",
            parameters=parameters,
            check="shape",
            about="the shapes that jobs can have",
            where=wanted.at("shapeName"),
        )
        reply = questions.ask(question)
        names += [str(item.get("name")) for item in reply.get("items", ())]
        if not reply.get("opcNextPage"):
            break
        parameters = {**parameters, "page": reply["opcNextPage"]}
    if name in names:
        yield question.finding("ok", f"jobs can have {name}")
        return
    guess = nearest(name, names)
    hint = f"did you mean {guess}?" if guess else f"there are: {', '.join(sorted(names)) or 'none'}"
    yield question.finding("problem", f"jobs cannot have {name} in this region", hint)


def limits(wanted: Wanted, questions: Questions, _: Surroundings) -> Iterator[Finding]:
    """Compare the job's GPUs with what is left of the limit."""
    name, ocid = wanted.place.shape_name or "", wanted.place.compartment_id
    if not wanted.gpus or not ocid:
        return
    limit = next((limit for start, limit in _LIMITS.items() if name.startswith(start)), None)
    question = Question(
        service="oci.limits",
        operation="get_resource_availability",
        parameters={"serviceName": "data-science", "limitName": limit, "compartmentId": ocid},
        check="limits",
        about=f"what is left of limit {limit}",
        where=wanted.at("shapeName"),
        needed=False,
    )
    takes = f"the job takes {wanted.gpus} GPUs of {name}"
    if limit is None:
        hint = "the console shows it: Governance, Limits, Quotas and Usage, service Data Science"
        yield question.finding("unknown", f"{takes}; what is left of its limit is not known here", hint)
        return
    left = questions.ask(question).get("available")
    if left is None:
        yield question.finding("unknown", f"{takes}; OCI does not say what is left of limit {limit}")
    elif int(left) < wanted.gpus:
        hint = "ask for a higher limit in the console, take fewer nodes, or wait until others are done"
        yield question.finding("problem", f"{takes}, and {left} are left of limit {limit}", hint)
    else:
        yield question.finding("ok", f"{takes}, and {left} are left of limit {limit}")


def logs(wanted: Wanted, questions: Questions, _: Surroundings) -> Iterator[Finding]:
    """Look for the log group, and the log in it."""
    group, log = wanted.place.log_group_id, wanted.place.log_id
    if not group:
        return
    question = Question(
        service="oci.logging",
        operation="get_log_group",
        parameters={"logGroupId": group},
        check="logs",
        about=f"log group {group}",
        where=wanted.at("logGroupId"),
    )
    if questions.first_time("log group", group):
        reply = questions.ask(question)
        yield standing(question, reply, f"log group {reply.get('displayName', group)}")
        yield from elsewhere(question, reply, wanted, "the log group")
    if log and questions.first_time("log", log):
        yield _log(wanted, questions, group, log)


def _log(wanted: Wanted, questions: Questions, group: str, log: str) -> Finding:
    question = Question(
        service="oci.logging",
        operation="get_log",
        parameters={"logGroupId": group, "logId": log},
        check="logs",
        about=f"log {log} of that group",
        where=wanted.at("logId"),
    )
    reply = questions.ask(question)
    name = f"log {reply.get('displayName', log)}"
    if reply.get("isEnabled") is False:
        hint = "enable it in the console: what nodes print is lost"
        return question.finding("problem", f"{name} is not enabled", hint)
    return standing(question, reply, name)


def secrets(wanted: Wanted, questions: Questions, _: Surroundings) -> Iterator[Finding]:
    """Look for the secrets; their values are the nodes' business and are not read."""
    for where, ocid in wanted.secrets:
        if questions.first_time("secret", ocid):
            question = Question(
                service="oci.vault",
                operation="get_secret",
                parameters={"secretId": ocid},
                check="secrets",
                about=f"secret {ocid}",
                where=where,
                needed=False,
            )
            yield from questions.settled(question, _secret)


def _secret(question: Question, reply: Mapping[str, Any]) -> Iterator[Finding]:
    yield standing(question, reply, f"secret {reply.get('secretName', reply.get('id', ''))}")


def image(wanted: Wanted, questions: Questions, _: Surroundings) -> Iterator[Finding]:
    """Look for the image, if it is one of Oracle's registry."""
    found, ocid = wanted.image, wanted.place.compartment_id
    if found is None or not ocid or not questions.first_time("image", found.text):
        return
    tag = {"version": found.tag} if found.tag else {}
    question = Question(
        service="oci.artifacts",
        operation="list_container_images",
        parameters={"compartmentId": ocid, "repositoryName": found.repository, **tag},
        check="image",
        about=f"image {found.text}",
        where=wanted.subject.at("runtime.spec.image"),
        needed=False,
    )
    if questions.ask(question).get("items"):
        yield question.finding("ok", f"image {found.text} is there")
    else:
        hint = "push it, or check repository and tag; it may also be in another compartment"
        yield question.finding("warning", f"there is no image {found.text} in the job's compartment", hint)


def elsewhere(question: Question, reply: Mapping[str, Any], wanted: Wanted, what: str) -> Iterator[Finding]:
    """Say that something lies in another compartment: rights for the job's are none there."""
    theirs, own = reply.get("compartmentId"), wanted.place.compartment_id
    if theirs and own and theirs != own:
        hint = "use one of the job's compartment, or have the policies name that one, too"
        yield question.finding("warning", f"{what} lies in another compartment than the job: {theirs}", hint)


def standing(question: Question, reply: Mapping[str, Any], name: str) -> Finding:
    """Return whether a thing that exists can be used, by its lifecycle state."""
    state = reply.get("lifecycleState")
    if state is None or state in _USABLE:
        return question.finding("ok", f"{name} exists")
    return question.finding("problem", f"{name} is {state}", "choose another, or wait until it is ready")
