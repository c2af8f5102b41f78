"""Kueue: holds back jobs with a queue's label until their ClusterQueue has what they ask for.

Jobs, JobSets and TrainJobs are looked after, as they are by Kueue's usual configuration; PyTorchJobs are not. Quotas
are counted by resource over all flavors; what is held by hand waits for the reason that is given.

Source: Kueue v0.19.2 (kubernetes-sigs/kueue).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from cloudtune.rehearsal.kubernetes.conditions import condition, holds, set_condition
from cloudtune.rehearsal.kubernetes.kinds import Kind
from cloudtune.rehearsal.kubernetes.loop import Key, is_controlled_by, is_going, key_of, owner_reference
from cloudtune.rehearsal.kubernetes.objects import Change, Object, Objects
from cloudtune.rehearsal.kubernetes.quantities import pod_requests, quantity
from cloudtune.rehearsal.kubernetes.timing import Timing
from cloudtune.rehearsal.stage import Stage

QUEUE = "kueue.x-k8s.io/queue-name"
JOB_UID = "kueue.x-k8s.io/job-uid"
KINDS = ("Job", "JobSet", "TrainJob")
COMPONENT = "kueue"
_AROUND = ("LocalQueue", "ClusterQueue", "Workload")
#: Seconds after which a job that waits for quota is looked at again.
_AGAIN_S = 5.0

#: Reason and message.
Why = tuple[str, str]


class Kueue:
    """A controller of jobs in queues; a key is the kind and namespace of a job, and its name.

    ``held`` are LocalQueues that admit nothing, by name, and why not. It may be changed while the cluster runs.
    """

    kind = "LocalQueue"

    def __init__(self, stage: Stage, objects: Objects, timing: Timing) -> None:
        self._clock, self._objects, self._timing = stage.clock, objects, timing
        self.held: dict[str, Why] = {}
        self._seen: dict[str, float] = {}

    def admit(self, kind: Kind, thing: Object, old: Object | None) -> None:
        """Suspend a new job that has a queue, as Kueue's webhook does."""
        if old is None and kind.kind in KINDS and _queue_of(thing) and not _is_child(thing):
            thing.setdefault("spec", {})["suspend"] = True

    def concerns(self, change: Change) -> Iterable[Key]:
        """Return the job itself, or all where a queue has changed."""
        if change.kind in KINDS:
            return [_key(change.object)] if _queue_of(change.object) else []
        return [_key(job) for job in self._jobs()] if change.kind in _AROUND else []

    def sync(self, namespace: str, name: str) -> float | None:
        """Hold a job back or let it go."""
        kind, _, namespace = namespace.partition("/")
        job = self._objects.get(kind, namespace, name) if kind in KINDS else None
        if job is None or is_going(job) or _is_child(job) or not _queue_of(job):
            return None
        workload = self._workload(job)
        if holds(job, "Complete") or holds(job, "Completed") or holds(job, "Failed"):
            self._say(workload, ("Finished", True, "JobFinished", "Job finished"))
            return None
        if not workload["spec"].get("active", True):
            self._take_back(job, workload, "Deactivated", "The workload is deactivated")
            return None
        if holds(workload, "Admitted"):
            self._suspend(job, suspended=False)
            return None
        if _is_active(job):
            return _AGAIN_S  # what was taken back has not ended yet
        why = self._why_not(job, workload)
        if why is not None:
            self._say(workload, ("QuotaReserved", False, *why))
            return _AGAIN_S
        now = self._clock.time_s()
        ready_s = self._seen.setdefault(workload["metadata"]["uid"], now) + self._timing.admission_s
        if now < ready_s:
            return ready_s - now
        queue = self._cluster_queue(job)
        self._reserve(workload, queue)
        evicted = condition(workload, "Evicted") if holds(workload, "Evicted") else None
        self._say(
            workload,
            ("QuotaReserved", True, "QuotaReserved", f"Quota reserved in ClusterQueue {queue}"),
            *([("Evicted", False, "QuotaReserved", f"Previously: {evicted['message']}")] if evicted else ()),
            ("Admitted", True, "Admitted", "The workload is admitted"),
        )
        self._suspend(job, suspended=False)
        return None

    def evict(self, namespace: str, kind: str, name: str) -> None:
        """Take back what a job was given, for one of more importance; it waits again."""
        job = self._objects.get(kind, namespace, name)
        if job is not None:
            self._seen.pop(self._workload(job)["metadata"]["uid"], None)
            words = "Preempted to accommodate a workload due to prioritization in the ClusterQueue"
            self._take_back(job, self._workload(job), "Preempted", words)

    def _why_not(self, job: Object, workload: Object) -> Why | None:
        """Return why a job cannot be admitted yet, None if it can."""
        name, namespace = _queue_of(job), job["metadata"]["namespace"]
        queue = self._objects.get("LocalQueue", namespace, name)
        if queue is None:
            return "Inadmissible", f"LocalQueue {name} doesn't exist"
        if name in self.held:
            return self.held[name]
        cluster = self._objects.get("ClusterQueue", None, queue["spec"]["clusterQueue"])
        if cluster is None:
            return "Inadmissible", f"ClusterQueue {queue['spec']['clusterQueue']} doesn't exist"
        return self._lacks(workload, cluster)

    def _lacks(self, workload: Object, cluster: Object) -> Why | None:
        """Return which quota of a ClusterQueue is too small, or used up."""
        asked = _asked(workload)
        used: dict[str, Decimal] = {}
        for other in self._objects.list("Workload"):
            admission = (other.get("status") or {}).get("admission") or {}
            if admission.get("clusterQueue") == cluster["metadata"]["name"] and not holds(other, "Finished"):
                for resource, amount in _asked(other).items():
                    used[resource] = used.get(resource, Decimal()) + amount
        for resource, flavor, whole in _quotas(cluster):
            wanted, before = asked.get(resource, Decimal()), used.get(resource, Decimal())
            if wanted > whole:
                words = (
                    f"insufficient quota for {resource} in flavor {flavor}, previously considered podsets requests (0) "
                    f"+ current podset request ({wanted.normalize():f}) > maximum capacity ({whole.normalize():f})"
                )
            elif wanted > whole - before:
                more = f"{(wanted - whole + before).normalize():f}"
                words = f"insufficient unused quota for {resource} in flavor {flavor}, {more} more needed"
            else:
                continue
            return "Pending", f"couldn't assign flavors to pod set main: {words}"
        return None

    def _workload(self, job: Object) -> Object:
        """Return the Workload of a job; it is made."""
        namespace = job["metadata"]["namespace"]
        for found in self._objects.list("Workload", namespace, where=lambda one: is_controlled_by(one, job)):
            return found
        kind, name, uid = job["kind"], job["metadata"]["name"], job["metadata"]["uid"]
        digest = hashlib.sha256(f"{kind}/{uid}".encode()).hexdigest()[:5]
        manifest = {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "Workload",
            "metadata": {
                "name": f"{kind.lower()}-{name}-{digest}"[:63],
                "namespace": namespace,
                "labels": {JOB_UID: uid},
                "ownerReferences": [owner_reference(job)],
            },
            "spec": {"active": True, "queueName": _queue_of(job), "podSets": list(_pod_sets(job))},
        }
        return self._objects.create(manifest)

    def _cluster_queue(self, job: Object) -> str:
        queue = self._objects.get("LocalQueue", job["metadata"]["namespace"], _queue_of(job))
        return str(queue["spec"]["clusterQueue"]) if queue is not None else ""

    def _take_back(self, job: Object, workload: Object, reason: str, message: str) -> None:
        """Let a job wait (again)."""
        if holds(workload, "Admitted") or condition(workload, "Evicted") is None:
            self._say(
                workload,
                ("Evicted", True, reason, message),
                ("QuotaReserved", False, reason, message),
                ("Admitted", False, "NoReservation", "The workload has no reservation"),
            )
        self._suspend(job, suspended=True)

    def _reserve(self, workload: Object, queue: str) -> None:
        def edit(thing: dict[str, Any]) -> None:
            rows = [{"name": one["name"], "count": one["count"]} for one in thing["spec"]["podSets"]]
            thing.setdefault("status", {})["admission"] = {"clusterQueue": queue, "podSetAssignments": rows}

        self._objects.update_status("Workload", *key_of(workload), edit)

    def _say(self, workload: Object, *said: tuple[str, bool, str, str]) -> None:
        def edit(thing: dict[str, Any]) -> bool:
            status = thing.setdefault("status", {})
            changed = False
            for kind, true, reason, message in said:
                changed |= set_condition(status, kind, true, reason=reason, message=message)
                if kind == "QuotaReserved" and not true:
                    changed |= status.pop("admission", None) is not None
            return changed

        if self._objects.update_status("Workload", *key_of(workload), edit) is not None:
            _, true, reason, message = said[-1]
            self._objects.tell(workload, reason, message, warning=not true, component=COMPONENT)

    def _suspend(self, job: Object, *, suspended: bool) -> None:
        def edit(thing: dict[str, Any]) -> bool | None:
            if bool(thing["spec"].get("suspend")) is suspended:
                return False
            thing["spec"]["suspend"] = suspended
            return None

        self._objects.update(job["kind"], *key_of(job), edit)

    def _jobs(self) -> list[Object]:
        kinds = [kind for kind in KINDS if kind in self._objects.kinds]
        return [job for kind in kinds for job in self._objects.list(kind) if _queue_of(job)]


def _key(job: Object) -> Key:
    return f"{job['kind']}/{job['metadata']['namespace']}", job["metadata"]["name"]


def _queue_of(job: Object) -> str:
    return str((job["metadata"].get("labels") or {}).get(QUEUE, ""))


def _is_child(job: Object) -> bool:
    """Whether a job belongs to one that is queued itself."""
    return any(one.get("kind") in KINDS for one in job["metadata"].get("ownerReferences") or ())


def _is_active(job: Object) -> bool:
    """Whether pods of a job are still there."""
    status = job.get("status") or {}
    rows = [status, *(status.get("replicatedJobsStatus") or ()), *(status.get("jobsStatus") or ())]
    return any(row.get("active") or row.get("terminating") for row in rows)


def _pod_sets(job: Object) -> Iterable[dict[str, Any]]:
    """Yield the pods of a job that must all have their place at once."""
    spec = job["spec"]
    if job["kind"] == "Job":
        yield {"name": "main", "count": spec.get("parallelism", 1), "template": copy.deepcopy(spec["template"])}
    elif job["kind"] == "JobSet":
        for row in spec["replicatedJobs"]:
            inner = row["template"]["spec"]
            count = row.get("replicas", 1) * inner.get("parallelism", 1)
            yield {"name": row["name"], "count": count, "template": copy.deepcopy(inner["template"])}
    else:
        trainer = spec.get("trainer") or {}
        container: Mapping[str, Any] = {
            "name": "node",
            "image": trainer.get("image", "rehearsed"),
            "resources": copy.deepcopy(trainer.get("resourcesPerNode") or {}),
        }
        yield {"name": "node", "count": trainer.get("numNodes", 1), "template": {"spec": {"containers": [container]}}}


def _quotas(cluster: Object) -> Iterable[tuple[str, str, Decimal]]:
    """Yield the resources of a ClusterQueue, the first flavor of each, and how much of it there is in all flavors."""
    for group in cluster["spec"].get("resourceGroups") or ():
        for resource in group.get("coveredResources") or ():
            rows = [
                (flavor["name"], quantity(one["nominalQuota"]))
                for flavor in group.get("flavors") or ()
                for one in flavor.get("resources") or ()
                if one["name"] == resource
            ]
            yield resource, rows[0][0] if rows else "", sum((amount for _, amount in rows), Decimal())


def _asked(workload: Object) -> dict[str, Decimal]:
    """Return what all pods of a job ask for together."""
    found: dict[str, Decimal] = {}
    for row in workload["spec"]["podSets"]:
        for resource, amount in pod_requests(row["template"]["spec"]).items():
            found[resource] = found.get(resource, Decimal()) + amount * row["count"]
    return found
