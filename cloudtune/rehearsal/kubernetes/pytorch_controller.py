"""The controller of PyTorchJobs: makes their pods and services, starts again those that fail, and says how it ends.

Source: the training operator v1.9.4 (kubeflow/trainer, ``pkg/controller.v1``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from cloudtune.rehearsal.kubernetes.conditions import condition, holds, set_condition
from cloudtune.rehearsal.kubernetes.loop import Key, is_controlled_by, is_going, itself_or_owners, key_of
from cloudtune.rehearsal.kubernetes.objects import Change, Object, Objects, moment
from cloudtune.rehearsal.kubernetes.pytorch_pods import (
    CONTAINER,
    ROLE,
    pod_of,
    replica_name,
    replicas_of,
    restart_policy,
    service_of,
)
from cloudtune.rehearsal.kubernetes.timing import Timing
from cloudtune.rehearsal.stage import Stage

COMPONENT = "pytorchjob-controller"
#: Exit codes from which on a replica with the policy ``ExitCode`` is started again: those of signals.
_RETRYABLE = 128
_OVER = ("Succeeded", "Failed")


@attrs.define(kw_only=True)
class _Known:
    """What the operator remembers of one job. Times are of the stage's clock."""

    made_again: int = 0
    began_s: float | None = None
    ended_s: float | None = None


class PyTorchController:
    """A controller of PyTorchJobs. ``port_of`` gives the port at which a job's replicas meet, by the job's uid."""

    kind = "PyTorchJob"

    def __init__(self, stage: Stage, objects: Objects, timing: Timing, port_of: Callable[[str], int]) -> None:
        self._clock, self._objects, self._timing, self._port_of = stage.clock, objects, timing, port_of
        self._known: dict[str, _Known] = {}

    def concerns(self, change: Change) -> Iterable[Key]:
        """Return the job itself, or that of a pod."""
        if change.kind not in ("PyTorchJob", "Pod", "Service"):
            return []
        return list(itself_or_owners(change, self.kind))

    def sync(self, namespace: str, name: str) -> float | None:
        """Take the next step of a job."""
        job = self._objects.get(self.kind, namespace, name)
        if job is None or is_going(job):
            return None
        known, now = self._known.setdefault(job["metadata"]["uid"], _Known()), self._clock.time_s()
        pods = self._objects.list("Pod", namespace, where=lambda pod: is_controlled_by(pod, job))
        if condition(job, "Created") is None:
            self._say(job, "Created", f"PyTorchJob {name} is created.")
        if holds(job, "Succeeded") or holds(job, "Failed"):
            return self._clean_up(job, pods, known, now)
        policy = job["spec"].get("runPolicy") or {}
        if policy.get("suspend"):
            self._suspend(job, pods, known)
            return None
        if holds(job, "Suspended"):
            self._say(job, "Suspended", f"PyTorchJob {name} is resumed.", false=True)
        if known.began_s is None:
            known.began_s = now
        ran_s = (now - known.began_s) / self._timing.second_s
        deadline = policy.get("activeDeadlineSeconds")
        why = self._failure(job, pods, known)
        if why is None and deadline is not None and ran_s >= deadline:
            why = f"PyTorchJob {name} has failed because it was active longer than specified deadline"
        if why is not None:
            self._count(job, pods)
            self._end(job, "Failed", why, known, now)
            return 0.0
        self._make(job, pods, known)
        self._count(job, pods)
        if _is_done(job, pods):
            self._end(job, "Succeeded", f"PyTorchJob {name} is successfully completed.", known, now)
            return 0.0
        return None if deadline is None else float((deadline - ran_s) * self._timing.second_s)

    def _make(self, job: Object, pods: Sequence[Object], known: _Known) -> None:
        """Make the services and pods that are missing; delete pods that have failed and are made again."""
        namespace, port = job["metadata"]["namespace"], self._port_of(job["metadata"]["uid"])
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        for role, spec, index in replicas_of(job):
            name = replica_name(job, role, index)
            if self._objects.get("Service", namespace, name) is None:
                self._objects.create(service_of(job, role, index, port))
            pod = by_name.get(name)
            if pod is None:
                self._objects.create(pod_of(job, role, spec, index, port))
                self._tell(job, "SuccessfulCreatePod", f"Created pod: {name}")
            elif _has_failed(pod) and not is_going(pod):
                known.made_again += 1
                self._objects.delete("Pod", namespace, name)
                words = f"PyTorchJob {job['metadata']['name']} is restarting because 1 {role} replica(s) failed."
                self._say(job, "Restarting", words)

    def _failure(self, job: Object, pods: Sequence[Object], known: _Known) -> str | None:
        """Return why a job has failed, None if it has not."""
        name, limit = job["metadata"]["name"], (job["spec"].get("runPolicy") or {}).get("backoffLimit")
        specs = job["spec"]["pytorchReplicaSpecs"]
        restarts = 0
        for pod in pods:
            spec = specs[pod["metadata"]["labels"][ROLE].capitalize()]
            policy = restart_policy(spec)
            if _has_failed(pod) and (policy == "Never" or (policy == "ExitCode" and not _is_retryable(pod))):
                role = pod["metadata"]["labels"][ROLE].capitalize()
                return f"PyTorchJob {name} is failed because 1 {role} replica(s) failed."
            if policy in ("OnFailure", "Always"):
                restarts += sum(
                    row.get("restartCount", 0) for row in pod.get("status", {}).get("containerStatuses") or ()
                )
        new = any(_has_failed(pod) and not is_going(pod) for pod in pods)
        if limit is None:
            return None
        if (restarts > 0 and restarts >= limit) or (new and known.made_again + 1 > limit):
            return f"PyTorchJob {name} has failed because it has reached the specified backoff limit"
        return None

    def _count(self, job: Object, pods: Sequence[Object]) -> None:
        """Write the numbers of replicas, and that the job runs."""
        counts: dict[str, dict[str, Any]] = {}
        for role in job["spec"]["pytorchReplicaSpecs"]:
            mine = [pod for pod in pods if pod["metadata"]["labels"][ROLE] == role.lower()]
            phases = [pod.get("status", {}).get("phase") for pod in mine]
            row = {
                "active": phases.count("Running"),
                "succeeded": phases.count("Succeeded"),
                "failed": phases.count("Failed"),
            }
            counts[role] = {key: count for key, count in row.items() if count}
        leading = "Master" if "Master" in counts else "Worker"

        def edit(thing: dict[str, Any]) -> bool:
            status = thing.setdefault("status", {})
            before = repr(status)
            status["replicaStatuses"] = counts
            status.setdefault("startTime", moment())
            return repr(status) != before

        self._objects.update_status(self.kind, *key_of(job), edit)
        if counts[leading].get("active"):
            self._say(job, "Running", f"PyTorchJob {job['metadata']['name']} is running.")

    def _count_none_active(self, job: Object, *, succeeded: bool = False) -> None:
        """Write that no replica is active; those that were may be taken for ones that have succeeded."""

        def edit(thing: dict[str, Any]) -> bool:
            active = {}
            for role, row in (thing.get("status", {}).get("replicaStatuses") or {}).items():
                active[role] = row.pop("active", 0)
                if succeeded and active[role]:
                    row["succeeded"] = row.get("succeeded", 0) + active[role]
            return any(active.values())

        self._objects.update_status(self.kind, *key_of(job), edit)

    def _end(self, job: Object, kind: str, message: str, known: _Known, now: float) -> None:
        known.ended_s = now
        if kind == "Succeeded":
            self._count_none_active(job, succeeded=True)
        self._say(job, kind, message)

    def _suspend(self, job: Object, pods: Sequence[Object], known: _Known) -> None:
        known.began_s = None
        for pod in pods:
            if not is_going(pod):
                self._objects.delete("Pod", *key_of(pod))
        self._count_none_active(job)
        if not holds(job, "Suspended"):
            self._say(job, "Suspended", f"PyTorchJob {job['metadata']['name']} is suspended.")

    def _clean_up(self, job: Object, pods: Sequence[Object], known: _Known, now: float) -> float | None:
        """Delete what the policy says of a job that is over, and the job when its time has come."""
        policy = job["spec"].get("runPolicy") or {}
        clean = policy.get("cleanPodPolicy") or "None"
        for pod in pods:
            running = pod.get("status", {}).get("phase") not in _OVER
            if not is_going(pod) and (clean == "All" or (clean == "Running" and running)):
                self._objects.delete("Pod", *key_of(pod))
        ttl = policy.get("ttlSecondsAfterFinished")
        if ttl is None:
            return None
        left_s = float((known.ended_s or now) + ttl * self._timing.second_s - now)
        if left_s > 0:
            return left_s
        self._objects.delete(self.kind, *key_of(job), propagation="Foreground")
        return None

    def _say(self, job: Object, kind: str, message: str, *, false: bool = False) -> None:
        """Add a condition to the job as the operator does: what it says of running depends on the last one."""

        def edit(thing: dict[str, Any]) -> bool:
            status = thing.setdefault("status", {})
            before = repr(status)
            rows = status.setdefault("conditions", [])
            if kind in ("Running", "Restarting"):
                other = "Restarting" if kind == "Running" else "Running"
                status["conditions"] = rows = [row for row in rows if row["type"] != other]
            elif kind in ("Succeeded", "Failed", "Suspended") and not false:
                for row in rows:
                    if row["type"] == "Running" and row["status"] == "True":
                        row |= {"status": "False", "lastTransitionTime": moment(), "lastUpdateTime": moment()}
            if kind in ("Succeeded", "Failed"):
                status["completionTime"] = moment()
            reason = f"PyTorchJob{'Resumed' if false else kind}"
            extra = {"lastUpdateTime": moment()}
            set_condition(status, kind, not false, reason=reason, message=message, also=extra)
            status["conditions"].sort(key=lambda row: row["type"] == kind)  # the newest is the last
            return repr(status) != before

        known = condition(job, kind)
        if known is not None and known["status"] == str(not false) and known["message"] == message:
            return
        if self._objects.update_status(self.kind, *key_of(job), edit) is not None:
            job.setdefault("status", {}).setdefault("conditions", []).append(
                {"type": kind, "status": str(not false), "message": message}
            )
            self._tell(job, f"PyTorchJob{kind}", message, warning=kind in ("Failed", "Restarting"))

    def _tell(self, job: Object, reason: str, message: str, *, warning: bool = False) -> None:
        self._objects.tell(job, reason, message, warning=warning, component=COMPONENT)


def _has_failed(pod: Object) -> bool:
    return bool(pod.get("status", {}).get("phase") == "Failed")


def _is_retryable(pod: Object) -> bool:
    """Whether a pod that has failed is worth another try: a signal ended it, or it did not end by itself."""
    for row in pod.get("status", {}).get("containerStatuses") or ():
        ended: Mapping[str, Any] = (row.get("state") or {}).get("terminated") or {}
        if row["name"] == CONTAINER and ended:
            return int(ended["exitCode"]) >= _RETRYABLE
    return True


def _is_done(job: Object, pods: Sequence[Object]) -> bool:
    """Whether a job has succeeded: its master, else all workers, or any where it is elastic."""
    specs = job["spec"]["pytorchReplicaSpecs"]
    role = "Master" if "Master" in specs else "Worker"
    done = [
        pod
        for pod in pods
        if pod["metadata"]["labels"][ROLE] == role.lower() and pod.get("status", {}).get("phase") == "Succeeded"
    ]
    if role == "Worker" and job["spec"].get("elasticPolicy") is not None:
        return bool(done)
    return len(done) >= int(specs[role].get("replicas", 1))
