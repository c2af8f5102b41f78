"""What a cluster is asked before a job is sent to it: whether it serves the job's kind and version, and has its queue.

A job of a kind that is not served would be refused with a 404 that names no key; one for a queue that is not there
would wait for ever; a TrainJob for another minor version of its API has fields that the server does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudtune.backends.eks_kinds import TRAINER_FIELDS
from cloudtune.backends.eks_objects import SERVICE
from cloudtune.backends.eks_wire import QUEUE_LABEL
from cloudtune.errors import Fault, SpecError
from cloudtune.plan import Call, Plan, Step

_WHERE = "spec.infrastructure.spec"
_OPERATORS = {
    "PyTorchJob": "Kubeflow's training operator v1",
    "TrainJob": "Kubeflow's Trainer v2",
    "JobSet": "the JobSet controller",
}
_TRAINJOBS = "trainjobs.trainer.kubeflow.org"


def beforehand(plan: Plan, replies: Sequence[Mapping[str, Any]]) -> Call | None:
    """Return the next call that tells whether the cluster takes the plan's job, None if there is none."""
    calls = tuple(_calls(plan))
    return calls[len(replies)] if len(replies) < len(calls) else None


def refusal(plan: Plan, replies: Sequence[Mapping[str, Any]]) -> SpecError | None:
    """Return what is wrong, with the keys of the spec; of what nobody may tell, nothing is said."""
    faults: list[Fault] = []
    for call, reply in zip(_calls(plan), replies, strict=False):
        faults += _faults(_job(plan), call, reply)
    return SpecError(faults) if faults else None


def _job(plan: Plan) -> Step:
    return next(step for step in plan.steps if step.id == "job")


def _calls(plan: Plan) -> Iterator[Call]:
    job = _job(plan)
    body, namespace = job.parameters, job.parameters["metadata"]["namespace"]
    queue = body["metadata"].get("labels", {}).get(QUEUE_LABEL)
    if queue:
        local = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "LocalQueue", "namespace": namespace, "name": queue}
        yield _call(job, "get", **local)
    if body["kind"] in _OPERATORS:
        yield _call(job, "discover", group=body["apiVersion"].partition("/")[0])
    if body["kind"] == "TrainJob":
        definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "name": _TRAINJOBS}
        yield _call(job, "get", **definition)


def _call(job: Step, operation: str, **parameters: Any) -> Call:
    return Call(service=SERVICE, operation=operation, parameters={**parameters, "absent": True}, region=job.region)


def _faults(job: Step, call: Call, reply: Mapping[str, Any]) -> Iterator[Fault]:
    body = job.parameters
    kind, (_, _, version) = body["kind"], body["apiVersion"].partition("/")
    if call.operation == "discover":
        served = [str(one.get("version")) for one in reply.get("versions") or ()]
        if reply.get("absent"):
            hint = f"install {_OPERATORS[kind]} (infrastructure/eks), or use jobKind: job, which needs no operator"
            yield Fault(path=f"{_WHERE}.jobKind", message=f"the cluster knows no {kind}s", hint=hint)
        elif served and version not in served:
            message = f"the cluster serves {kind}s as {', '.join(served)}, and this is one of {version}"
            yield Fault(path=f"{_WHERE}.jobKind", message=message, hint="install the version of infrastructure/eks")
    elif call.parameters["kind"] == "LocalQueue" and reply.get("absent"):
        name, namespace = call.parameters["name"], call.parameters["namespace"]
        message = f"the namespace {namespace} has no LocalQueue {name!r}: the job would wait for ever"
        hint = f"kubectl -n {namespace} get localqueues shows which there are"
        yield Fault(path=f"{_WHERE}.queue", message=message, hint=hint)
    elif call.parameters["kind"] == "CustomResourceDefinition":
        yield from _versions(body, reply)


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
