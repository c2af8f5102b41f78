"""Jobs on a Kubernetes cluster, EKS above all, as a place.

A run is one job object, in one of four kinds, and what it owns: a ConfigMap with the agent, its order and the code, a
Secret with what the spec or the shell says of secrets, and for an Indexed Job over several nodes a headless Service.
The job is made first and the pods wait for what they mount; Kubernetes removes what a job owns together with it.

How each kind is said is in :mod:`cloudtune.backends.eks_kinds`, what replies mean in
:mod:`cloudtune.backends.eks_runs`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from cloudtune.backends import eks_chain, eks_logs, eks_objects, eks_preflight, eks_runs
from cloudtune.backends.aws_surroundings import region_here
from cloudtune.backends.eks_kinds import AUTO_RESUME, DEFAULT_TRAINER_API, PART, SPECS, Wanted
from cloudtune.backends.eks_notes import Drawn, doubts, notes
from cloudtune.backends.eks_objects import CONTAINER, KINDS, SERVICE, Kind, kind_name
from cloudtune.backends.eks_pods import Secrets, container_of, pod_template, secrets_of
from cloudtune.backends.eks_resources import resources_of
from cloudtune.backends.eks_travel import STORAGE, Luggage, luggage, upload
from cloudtune.backends.eks_wire import (
    MANAGED,
    NAME_NOTE,
    QUEUE_LABEL,
    RUN_LABEL,
    TAGS_NOTE,
    manifest,
    object_name,
    owner_of,
    run_label,
    scope_of,
)
from cloudtune.backends.patches import patched
from cloudtune.code import gather_code
from cloudtune.errors import CloudtuneError, Fault, SpecError
from cloudtune.launch import Launch, launch, run_time_limit_s
from cloudtune.launch.machine import runtime_of
from cloudtune.order import job_name, outputs_of
from cloudtune.plan import Call, Notice, Plan, Step
from cloudtune.spec.eks import EKSJob
from cloudtune.spec.fields import thaw
from cloudtune.spec.job import JobSpec
from cloudtune.spec.place import Infrastructure
from cloudtune.spec.runtime import Runtime
from cloudtune.states import Handle, LogLine, Status

_WHERE = "spec.infrastructure.spec"
NAMESPACE = "default"


@attrs.frozen(kw_only=True)
class _Names:
    """What the objects of a run are called, and where they are."""

    name: str
    namespace: str
    scope: str
    kind: Kind
    labels: Mapping[str, str]
    run_id: str

    @property
    def handle(self) -> Handle:
        """Where the job will be."""
        return Handle(backend="eks", scope=self.scope, kind=self.kind.name, id=f"{self.namespace}/{self.name}")

    def owned(self, kind: str, **rest: Any) -> dict[str, Any]:
        """Return an object of the core API that the job owns."""
        owner = owner_of(self.kind, self.name)
        return manifest(("v1", kind), self.name, self.namespace, self.labels, owner=owner, **rest)


class EksBackend:
    """The backend of Kubernetes clusters; see :class:`cloudtune.backends.Backend` for the protocol."""

    name = "eks"
    client = "cloudtune.clients.kubernetes:KubernetesClient"
    tells_end = True
    loses_logs = True
    explains = eks_runs.EXPLAINED

    def plan(self, job: JobSpec, run_id: str) -> Plan:
        """Return the steps of a run: code that is uploaded, the job, and what it owns."""
        place, runtime = _place(job), runtime_of(job)
        how, workspace = launch(job), gather_code(job)
        region, found = (place.region, None) if place.region or not place.cluster else region_here()
        resources = resources_of(job, how)
        if not resources.has_accelerators:
            # a job that asks for none has none to be looked for on its nodes
            how = attrs.evolve(how, accelerator=None, accelerators_per_node=0)
        names = _names(job, place, run_id, region)
        secrets = secrets_of(runtime)
        outputs = outputs_of(runtime, run_id)
        left = None
        if container_of(runtime) is None:
            options: dict[str, Any] = {"name": job_name(job), "object_name": names.name, "workspace": workspace}
            left = luggage(job, how, run_id, outputs=outputs, **options)
        template = pod_template(
            place,
            runtime,
            name=names.name,
            run_id=run_id,
            labels=names.labels,
            resources=resources,
            secrets=secrets,
            neighbours=_neighbours(names, how),
            subdomain=names.name if _has_service(names, how) else None,
            limit_s=run_time_limit_s(job)[0],
        )
        drawn = Drawn(
            job=job,
            place=place,
            runtime=runtime,
            how=how,
            region=region,
            found=found,
            resources=resources,
            luggage=left,
        )
        steps = (
            *(upload(left, run_id, region) if left else ()),
            _job(names, place, runtime, job_name(job), _wanted(names, place, how, template)),
            *_owned(names, how, secrets, left),
        )
        warnings = (*how.warnings, *doubts(drawn), *((_WHERE, note) for note in (workspace.notes if workspace else ())))
        return Plan(
            name=job_name(job),
            run_id=run_id,
            backend=self.name,
            launch=how,
            steps=patched(steps, place.overrides),
            outputs=(outputs["uri"],) if outputs["uri"] else (),
            fields=tuple(notes(drawn)),
            warnings=tuple(Notice(path=path, message=message) for path, message in warnings),
        )

    def chain(
        self, place: Infrastructure, title: str, run_id: str, parts: Sequence[tuple[str, Plan]]
    ) -> eks_chain.Chain | None:
        """Return the steps that submit the plans of a pipeline's steps as one JobSet, None where that is not asked."""
        if not isinstance(place, EKSJob) or place.job_kind != "jobSet":
            return None
        return eks_chain.chain(title, run_id, [eks_chain.Part(*part) for part in parts])

    def handle(self, plan: Plan, replies: Mapping[str, Mapping[str, Any]]) -> Handle:
        """Return where the job lives; not before all of it is there: until then the run is still being submitted."""
        _ = replies[plan.steps[-1].id]
        step = next(step for step in plan.steps if step.id == "job")
        meta = step.parameters["metadata"]
        kind = next(kind for kind in KINDS.values() if kind.kind == step.parameters["kind"])
        before = "" if any(step.id.rpartition(".")[2] == "files" for step in plan.steps) else CONTAINER
        return Handle(
            backend=self.name,
            scope=step.region or "",
            kind=kind_name(kind, before),
            id=f"{meta['namespace']}/{meta['name']}",
        )

    def beforehand(self, plan: Plan, replies: Sequence[Mapping[str, Any]]) -> Call | None:
        """Return the next call that tells whether the cluster takes the plan's job."""
        return eks_preflight.beforehand(plan, replies)

    def refusal(self, plan: Plan, replies: Sequence[Mapping[str, Any]]) -> CloudtuneError | None:
        """Return why the cluster would refuse the plan's job, or never start it."""
        return eks_preflight.refusal(plan, replies)

    def settled(self, plan: Plan, replies: Sequence[Mapping[str, Any]]) -> Plan:
        """Return the plan with the digests of its images in place of their tags, where their registry told them."""
        return eks_preflight.settled(plan, replies)

    def recognise(self, text: str) -> Handle | None:
        """Return the handle of ``NAMESPACE/KIND/NAME``."""
        return eks_objects.recognised(text)

    def suppose(self, text: str) -> tuple[Handle, ...]:
        """Return the handles of what ``NAMESPACE/NAME`` may be; only the cluster knows."""
        return eks_objects.supposed(text)

    def look(self, handle: Handle) -> Call:
        """Ask for the job."""
        return eks_objects.get(handle)

    def status(self, handle: Handle, reply: Mapping[str, Any]) -> Status:
        """Read what the job says of itself."""
        return eks_runs.status_of(handle, reply)

    def is_removed(self, handle: Handle, reply: Mapping[str, Any]) -> bool:
        """Whether the job is being deleted."""
        return bool((reply.get("metadata") or {}).get("deletionTimestamp"))

    def explain(self, handle: Handle, replies: Sequence[Mapping[str, Any]]) -> Call | None:
        """Return the next call that helps to say what a run waits for, or who of a failed one failed first."""
        return eks_runs.explain(handle, replies)

    def explained(self, handle: Handle, status: Status, replies: Sequence[Mapping[str, Any]]) -> Status:
        """Return the status with what the replies to :meth:`explain` say."""
        return eks_runs.explained(handle, status, replies)

    def logs(self, handle: Handle, cursor: Mapping[str, Any] | None) -> Call:
        """Ask for the job, its pods, or their lines from where the cursor is."""
        return eks_logs.next_call(handle, cursor)

    def lines(self, handle: Handle, reply: Mapping[str, Any]) -> tuple[tuple[LogLine, ...], Mapping[str, Any] | None]:
        """Read the lines, merged over the pods by time, and what comes next."""
        return eks_logs.read(handle, reply)

    def cancel(self, handle: Handle) -> tuple[Call, ...]:
        """End the job's pods and keep the job: it is suspended, and a note on it says why. A bare pod is deleted."""
        return eks_objects.cancelling(handle)

    def delete(self, handle: Handle, *, outputs: bool) -> tuple[Call, ...]:
        """Remove the job, its pods and what travelled with it; volumes and buckets stay as they are."""
        return (eks_objects.deleting(handle),)

    def delete_uploads(self, plan: Mapping[str, Any]) -> tuple[Call, ...]:
        """Remove code that was uploaded, from the run's plan as it was recorded."""
        return tuple(
            Call(service=STORAGE, operation="delete_object", parameters=step["parameters"], region=step.get("region"))
            for step in plan.get("steps") or ()
            if step["service"] == STORAGE
        )


def _place(job: JobSpec) -> EKSJob:
    if not isinstance(job.infrastructure, EKSJob):
        message = f"{job.infrastructure.type} is no job on a cluster"
        raise SpecError([Fault(path="spec.infrastructure.type", message=message, hint="type: eksJob")])
    return job.infrastructure


def _names(job: JobSpec, place: EKSJob, run_id: str, region: str | None) -> _Names:
    return _Names(
        name=object_name(job_name(job), run_id),
        namespace=place.namespace or NAMESPACE,
        scope=scope_of(place, region),
        kind=KINDS[place.job_kind],
        labels={**place.labels, **MANAGED, RUN_LABEL: run_label(run_id)},
        run_id=run_id,
    )


def _neighbours(names: _Names, how: Launch) -> dict[str, str]:
    """Return by which names the agent finds node 0, where no operator says it."""
    if how.nodes == 1 or names.kind.name not in {"job", "jobSet"}:
        return {}
    job = names.name if names.kind.name == "job" else f"{names.name}-{PART}-0"
    return {"CLOUDTUNE_JOB_NAME": job, "CLOUDTUNE_SERVICE": names.name}


def _has_service(names: _Names, how: Launch) -> bool:
    """Whether the run brings the Service by which its pods have names; operators make one of their own."""
    return how.nodes > 1 and names.kind.name == "job"


def _wanted(names: _Names, place: EKSJob, how: Launch, template: Mapping[str, Any]) -> Wanted:
    return Wanted(
        name=names.name,
        nodes=how.nodes,
        processes=how.processes_per_node,
        restarts=place.max_restarts or 0,
        template=template,
        trainer_api=place.trainer_api or DEFAULT_TRAINER_API,
        auto_resume=place.annotations.get(AUTO_RESUME) == "true",
    )


# --- steps


def _job(names: _Names, place: EKSJob, runtime: Runtime, title: str, wanted: Wanted) -> Step:
    """Return the step that makes the job; what it owns goes with it when it is taken back."""
    tags = dict(runtime.freeform_tags)
    annotations = {
        **place.annotations,
        **({NAME_NOTE: title} if title != names.name else {}),
        **({TAGS_NOTE: json.dumps(tags, sort_keys=True)} if tags else {}),
    }
    labels = {**names.labels, **({QUEUE_LABEL: place.queue} if place.queue else {})}
    kind = names.kind
    spec = SPECS[kind.name](wanted)
    body = manifest(
        (kind.api_version, kind.kind), names.name, names.namespace, labels, annotations=annotations, spec=spec
    )
    return attrs.evolve(_create(names, "job", body), undo=eks_objects.deleting(names.handle), within=None)


def _owned(names: _Names, how: Launch, secrets: Secrets, left: Luggage | None) -> Iterator[Step]:
    """Yield what the job owns. The ConfigMap comes last: when it can be mounted, all the rest is there."""
    if secrets.own:
        body = names.owned("Secret", type="Opaque", immutable=True, stringData=dict(secrets.own))
        yield _create(names, "secret", body)
    if _has_service(names, how):
        pods = {"batch.kubernetes.io/job-name": names.name}
        # the nodes look for each other before all of them are ready
        spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": pods}
        yield _create(names, "service", names.owned("Service", spec=spec))
    if left is not None:
        yield attrs.evolve(_create(names, "files", names.owned("ConfigMap", immutable=True)), files=left.files)


def _create(names: _Names, identity: str, body: Mapping[str, Any]) -> Step:
    return Step(
        id=identity,
        service=SERVICE,
        operation="create",
        parameters=thaw(body),
        token=f"cloudtune-{names.run_id}-{identity}",
        within="job",
        region=names.scope or None,
    )
