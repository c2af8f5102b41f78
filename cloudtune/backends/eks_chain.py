"""Several jobs as one JobSet, one after another: a pipeline that needs nobody to lead it once it is submitted.

Each step is planned as a JobSet of its own, with its code, order and secrets. Here they become the parts of one, which
owns all of that: each part waits until the one before it is complete, as a pipeline's steps do.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import attrs

from cloudtune.backends.eks_kinds import pod_by_pod
from cloudtune.backends.eks_objects import KINDS, STEP, deleting
from cloudtune.backends.eks_wire import (
    MANAGED,
    NAME_NOTE,
    RUN_LABEL,
    manifest,
    object_name,
    owner_of,
    plain_name,
    run_label,
)
from cloudtune.plan import Plan, Step
from cloudtune.states import Handle

#: Names of the JobSet and of its parts: together with ``-0-00000-xxxxx`` they are a pod's, of 63 characters.
_NAME, _PART = 30, 18
_KIND = KINDS["jobSet"]


class Chain(NamedTuple):
    """The steps that submit all parts as one; without any, ``why`` they must be led from elsewhere."""

    steps: tuple[Step, ...] = ()
    why: str = ""


class Part(NamedTuple):
    """A step of a pipeline: its name, and its plan as a job of its own."""

    name: str
    plan: Plan


def chain(title: str, run_id: str, parts: Sequence[Part]) -> Chain:
    """Return the steps that submit all parts as one JobSet, if all of them are JobSets of one namespace."""
    jobs = [_job_of(part) for part in parts]
    other = next((part.name for part, job in zip(parts, jobs, strict=True) if job is None), None)
    if other is not None:
        return Chain(why=f"the step {other} is no JobSet, so the steps are led from here")
    places = {(job.region, job.parameters["metadata"]["namespace"]) for job in jobs if job is not None}
    if len(places) != 1:
        return Chain(why="not all steps are in one namespace, so they are led from here")
    ((scope, namespace),) = places
    name = object_name(title, run_id, most=_NAME)
    labels = {**MANAGED, RUN_LABEL: run_label(run_id)}
    first = next(job for job in jobs if job is not None).parameters["metadata"]
    body = manifest(
        (_KIND.api_version, _KIND.kind),
        name,
        namespace,
        {**first["labels"], **labels},
        annotations={**first.get("annotations", {}), NAME_NOTE: title},
        spec=_spec(name, labels, [(part, job) for part, job in zip(parts, jobs, strict=True) if job is not None]),
    )
    handle = Handle(backend="eks", scope=scope or "", kind=_KIND.name, id=f"{namespace}/{name}")
    whole = Step(
        id="job",
        service="kubernetes",
        operation="create",
        parameters=body,
        token=f"cloudtune-{run_id}-job",
        undo=deleting(handle),
        region=scope,
    )
    uploads = [step for part in parts for step in _others(part, name) if step.service != whole.service]
    owned = [step for part in parts for step in _others(part, name) if step.service == whole.service]
    return Chain(steps=(*uploads, whole, *owned))


def _job_of(part: Part) -> Step | None:
    found = next((step for step in part.plan.steps if step.id == "job"), None)
    return found if found is not None and found.parameters.get("kind") == _KIND.kind else None


def _spec(name: str, labels: Mapping[str, str], jobs: Sequence[tuple[Part, Step]]) -> dict[str, Any]:
    names = part_names([part.name for part, _ in jobs])
    parts = [_part(names[part.name], name, {**labels, STEP: part.name}, job.parameters["spec"]) for part, job in jobs]
    for before, after in pairwise(parts):
        after["dependsOn"] = [{"name": before["name"], "status": "Complete"}]
    return {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True, "subdomain": name},
        # a JobSet that starts again does so from its first part; to start one part alone is behind a feature gate
        "failurePolicy": {"maxRestarts": 0},
        "replicatedJobs": parts,
    }


def _part(part: str, name: str, labels: Mapping[str, str], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's own part of its JobSet as one of the whole: it has another name, and other neighbours.

    Its pods start again one by one, as those of a Job: the whole cannot without what is complete.
    """
    (only,) = spec["replicatedJobs"]
    inner = only["template"]["spec"]
    inner = {**inner, **pod_by_pod(inner["completions"], int(spec["failurePolicy"]["maxRestarts"]))}
    pod = dict(inner["template"]["spec"])
    known = {"CLOUDTUNE_JOB_NAME": f"{name}-{part}-0", "CLOUDTUNE_SERVICE": name}
    pod["containers"] = [
        {**one, "env": [_variable(variable, known) for variable in one["env"]]} if "env" in one else dict(one)
        for one in pod["containers"]
    ]
    own = inner["template"]["metadata"]
    metadata = {**own, "labels": {**own["labels"], **labels}}
    template = {**inner, "template": {"metadata": metadata, "spec": pod}}
    return {**only, "name": part, "template": {"metadata": metadata, "spec": template}}


def _variable(variable: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    name = variable["name"]
    return {"name": name, "value": known[name]} if name in known else dict(variable)


def _others(part: Part, name: str) -> Iterator[Step]:
    """Yield what a step brings beside its job; the whole owns it."""
    for step in part.plan.steps:
        if step.id == "job":
            continue
        parameters = dict(step.parameters)
        if "metadata" in parameters:
            parameters["metadata"] = {**parameters["metadata"], "ownerReferences": [owner_of(_KIND, name)]}
        yield attrs.evolve(step, id=f"{part.name}.{step.id}", parameters=parameters)


def part_names(steps: Sequence[str]) -> dict[str, str]:
    """Return the names of the parts by those of the steps: a letter first, 18 characters, each once.

    >>> part_names(["train", "to_one_model_of_its_own"])
    {'train': 'train', 'to_one_model_of_its_own': 'to-one-mo-f5d7874d'}
    """
    found: dict[str, str] = {}
    for step in steps:
        plain = plain_name(step)
        if plain != step or len(plain) > _PART or not plain[:1].isalpha():
            tail = f"{zlib.crc32(step.encode()):08x}"
            plain = f"{plain[: _PART - 9].strip('-') or 's'}-{tail}"
            plain = plain if plain[0].isalpha() else f"s{plain[1:]}"
        found[step] = plain
    return found
