"""What is asked before a job is sent to a cluster: whether it serves the job's kind and version, and has its queue.

A job of a kind that is not served would be refused with a 404 that names no key; one for a queue that is not there
would wait for ever, and without Kueue for nothing; a TrainJob for another minor version of its API has fields that the
server does not know.

For clusters of EKS the registry is asked too: an image that is named by a tag is sent by its digest, so that all pods,
those made again included, run the same. Whoever may not ask, or has the image elsewhere, sends the tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from cloudtune.backends.eks_kinds import TRAINER_FIELDS
from cloudtune.backends.eks_objects import SERVICE
from cloudtune.backends.eks_wire import QUEUE_LABEL
from cloudtune.errors import Fault, SpecError
from cloudtune.plan import Call, Plan, Step

_REGISTRY = "aws.ecr"
_IMAGE = re.compile(
    r"(?P<name>(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(?P<repository>[^:@]+))"
    r"(?::(?P<tag>[^:@]+))?"
)
#: Forms of images that a pod can be started from, lists for several kinds of machines among them.
_FORMS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_WHERE = "spec.infrastructure.spec"
_OPERATORS = {
    "PyTorchJob": "Kubeflow's training operator v1",
    "TrainJob": "Kubeflow's Trainer v2",
    "JobSet": "the JobSet controller",
}
_TRAINJOBS = "trainjobs.trainer.kubeflow.org"
_KUEUE, _KUEUE_VERSION = "kueue.x-k8s.io", "v1beta1"


def beforehand(plan: Plan, replies: Sequence[Mapping[str, Any]]) -> Call | None:
    """Return the next call that tells whether the cluster takes the plan's job, None if there is none."""
    calls = tuple(_calls(plan))
    return calls[len(replies)] if len(replies) < len(calls) else None


def refusal(plan: Plan, replies: Sequence[Mapping[str, Any]]) -> SpecError | None:
    """Return what is wrong, with the keys of the spec; of what nobody may tell, nothing is said."""
    faults: list[Fault] = []
    served: dict[str, list[str]] = {}
    for call, reply in zip(_calls(plan), replies, strict=False):
        if call.operation == "discover":
            served[call.parameters["group"]] = [str(one.get("version")) for one in reply.get("versions") or ()]
        faults += _faults(_job(plan), call, reply, served)
    return SpecError(faults) if faults else None


def settled(plan: Plan, replies: Sequence[Mapping[str, Any]]) -> Plan:
    """Return the plan with the digests of its images, as far as their registry has told them."""
    digests: dict[str, str] = {}
    for call, reply in zip(_calls(plan), replies, strict=False):
        found = [row.get("imageId", {}).get("imageDigest") for row in reply.get("images") or ()]
        if call.service == _REGISTRY and found and found[0]:
            digests |= {
                image: f"{match['name']}@{found[0]}"
                for image, match in _images(_job(plan).parameters)
                if _asked_for(match) == _without_forms(call)
            }
    if not digests:
        return plan
    steps = (
        attrs.evolve(step, parameters=_replaced(step.parameters, digests)) if step.id == "job" else step
        for step in plan.steps
    )
    return attrs.evolve(plan, steps=tuple(steps))


def _job(plan: Plan) -> Step:
    return next(step for step in plan.steps if step.id == "job")


def _calls(plan: Plan) -> Iterator[Call]:
    job = _job(plan)
    body, namespace = job.parameters, job.parameters["metadata"]["namespace"]
    queue = body["metadata"].get("labels", {}).get(QUEUE_LABEL)
    if queue:
        yield _call(job, "discover", group=_KUEUE)
        kind = {"apiVersion": f"{_KUEUE}/{_KUEUE_VERSION}", "kind": "LocalQueue"}
        yield _call(job, "get", **kind, namespace=namespace, name=queue)
    if body["kind"] in _OPERATORS:
        yield _call(job, "discover", group=body["apiVersion"].partition("/")[0])
    if body["kind"] == "TrainJob":
        definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "name": _TRAINJOBS}
        yield _call(job, "get", **definition)
    if (job.region or "").startswith("eks:"):
        for _, match in _images(body):
            more = {"acceptedMediaTypes": list(_FORMS), "absent": True}
            given = {**_asked_for(match), **more}
            yield Call(service=_REGISTRY, operation="batch_get_image", parameters=given, region=match["region"])


def _images(value: Any) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield the images of ECR that stand somewhere below by a tag, each once."""
    seen: dict[str, re.Match[str]] = {}
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, Mapping):
            match = _IMAGE.fullmatch(one["image"]) if isinstance(one.get("image"), str) else None
            if match is not None:
                seen[one["image"]] = match
            stack += one.values()
        elif isinstance(one, (list, tuple)):
            stack += one
    yield from sorted(seen.items())


def _asked_for(image: re.Match[str]) -> dict[str, Any]:
    tag = {"imageTag": image["tag"] or "latest"}
    return {"registryId": image["account"], "repositoryName": image["repository"], "imageIds": [tag]}


def _without_forms(call: Call) -> dict[str, Any]:
    return {key: value for key, value in call.parameters.items() if key not in {"acceptedMediaTypes", "absent"}}


def _replaced(value: Any, digests: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: digests.get(one, one) if key == "image" and isinstance(one, str) else _replaced(one, digests)
            for key, one in value.items()
        }
    return [_replaced(one, digests) for one in value] if isinstance(value, (list, tuple)) else value


def _call(job: Step, operation: str, **parameters: Any) -> Call:
    return Call(service=SERVICE, operation=operation, parameters={**parameters, "absent": True}, region=job.region)


def _faults(job: Step, call: Call, reply: Mapping[str, Any], served: Mapping[str, Sequence[str]]) -> Iterator[Fault]:
    """Yield what an answer says against a job; ``served`` are the versions of the groups that were asked for so far."""
    if call.service != SERVICE:
        yield from _absent_image(call, reply)
    elif call.operation == "discover":
        yield from _unserved(job.parameters, call.parameters["group"], reply, served)
    elif call.parameters["kind"] == "LocalQueue":
        if reply.get("absent") and _KUEUE_VERSION in served.get(_KUEUE, ()):
            name, namespace = call.parameters["name"], call.parameters["namespace"]
            message = f"the namespace {namespace} has no LocalQueue {name!r}: the job would wait for ever"
            hint = f"kubectl -n {namespace} get localqueues shows which there are"
            yield Fault(path=f"{_WHERE}.queue", message=message, hint=hint)
    elif call.parameters["kind"] == "CustomResourceDefinition":
        yield from _versions(job.parameters, reply)


def _unserved(
    body: Mapping[str, Any], group: str, reply: Mapping[str, Any], served: Mapping[str, Sequence[str]]
) -> Iterator[Fault]:
    """Yield that the cluster lacks the job's kind, its version, or what holds jobs in queues."""
    if group == _KUEUE:
        if reply.get("absent"):
            message = "the cluster has no Kueue, so nothing would hold the job in a queue"
            yield Fault(path=f"{_WHERE}.queue", message=message, hint="leave queue out, or install infrastructure/eks")
        return
    kind, (_, _, version) = body["kind"], body["apiVersion"].partition("/")
    if reply.get("absent"):
        hint = f"install {_OPERATORS[kind]} (infrastructure/eks), or use jobKind: job, which needs no operator"
        yield Fault(path=f"{_WHERE}.jobKind", message=f"the cluster knows no {kind}s", hint=hint)
    elif served[group] and version not in served[group]:
        message = f"the cluster serves {kind}s as {', '.join(served[group])}, and this is one of {version}"
        yield Fault(path=f"{_WHERE}.jobKind", message=message, hint="install the version of infrastructure/eks")


def _absent_image(call: Call, reply: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield that a repository has no such tag; of one that is not there, or not yours to see, nothing is known."""
    if any(row.get("failureCode") == "ImageNotFound" for row in reply.get("failures") or ()):
        name, tag = call.parameters["repositoryName"], call.parameters["imageIds"][0]["imageTag"]
        message = f"the repository {name} in {call.region} has no image {tag!r}"
        hint = "cloudtune build DIR --push REPO makes one"
        yield Fault(path=f"{_WHERE}.image", message=message, hint=hint)


def _versions(body: Mapping[str, Any], reply: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield that the job changes its runtime by a field that the cluster's TrainJobs do not have."""
    versions = (reply.get("spec") or {}).get("versions") or ()
    schemas = [one.get("schema", {}).get("openAPIV3Schema", {}) for one in versions if one.get("served")]
    known = {name for schema in schemas for name in _properties(_properties(schema).get("spec", {}))}
    used = [field for field in TRAINER_FIELDS if field in body["spec"]]
    there = next((field for field in TRAINER_FIELDS if field in known), None)
    if there is not None and used and used[0] not in known:
        version = TRAINER_FIELDS[there]
        message = f"the cluster's TrainJobs are those of {version}, which have no {used[0]}"
        yield Fault(path=f"{_WHERE}.trainerApi", message=message, hint=f"trainerApi: {version}")


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return schema.get("properties") or {}
