"""The controller of Jobs: makes their pods, replaces those that fail, and says when a Job is complete or has failed.

Source: the Job controller of Kubernetes 1.35 and the API reference of ``batch/v1``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cloudtune.rehearsal.kubernetes.conditions import condition, holds, set_condition
from cloudtune.rehearsal.kubernetes.job_pods import index_of, intervals, is_indexed, pod_of
from cloudtune.rehearsal.kubernetes.job_tally import Tally, Why
from cloudtune.rehearsal.kubernetes.loop import Key, is_controlled_by, is_going, itself_or_owners, key_of
from cloudtune.rehearsal.kubernetes.objects import Change, Object, Objects, moment
from cloudtune.rehearsal.kubernetes.timing import Timing
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.stage import Stage

COMPONENT = "job-controller"
_OVER = ("Succeeded", "Failed")


class JobController:
    """A controller of Jobs."""

    kind = "Job"

    def __init__(self, stage: Stage, objects: Objects, timing: Timing) -> None:
        self._clock, self._objects, self._timing = stage.clock, objects, timing
        self._tallies: dict[str, Tally] = {}
        self._gone: dict[str, list[Object]] = {}

    def concerns(self, change: Change) -> Iterable[Key]:
        """Return the Job itself, or that of a pod; what a pod was when it went is remembered."""
        if change.kind not in ("Job", "Pod"):
            return []
        if change.kind == "Job" and change.deed == "removed":
            self._tallies.pop(change.object["metadata"]["uid"], None)
            self._gone.pop(change.object["metadata"]["uid"], None)
            return []
        if change.kind == "Pod" and change.deed == "removed":
            for owner in change.object["metadata"].get("ownerReferences") or ():
                if owner["uid"] in self._tallies:
                    self._gone.setdefault(owner["uid"], []).append(change.object)
        return list(itself_or_owners(change, self.kind))

    def sync(self, namespace: str, name: str) -> float | None:
        """Take the next step of a Job."""
        job = self._objects.get("Job", namespace, name)
        if (
            job is None
            or is_going(job)
            or job["spec"].get("managedBy", "kubernetes.io/job-controller") != ("kubernetes.io/job-controller")
        ):
            return None
        uid, now = job["metadata"]["uid"], self._clock.time_s()
        tally = self._tallies.setdefault(uid, Tally())
        if holds(job, "Complete") or holds(job, "Failed"):
            return self._live_on(job, tally, now)
        pods = self._objects.list("Pod", namespace, where=lambda pod: is_controlled_by(pod, job))
        gone = [_ended(pod) for pod in self._gone.pop(uid, [])]
        if not job["spec"].get("suspend"):
            tally.count(job, [*gone, *pods], now)
        active = [pod for pod in pods if not _is_over(pod) and not is_going(pod)]
        going = [pod for pod in pods if not _is_over(pod) and is_going(pod)]
        return self._decide(job, tally, active, going, now)

    def _decide(self, job: Object, tally: Tally, active: list[Object], going: list[Object], now: float) -> float | None:
        if job["spec"].get("suspend"):
            self._suspend(job, tally, active)
            self._write(job, tally, active=[], going=[*active, *going])
            return None
        if tally.began_s is None:
            tally.began_s = now
        target = condition(job, "FailureTarget")
        ran_s = (now - tally.began_s) / self._timing.second_s
        failure = (target["reason"], target["message"]) if target else tally.failure(job, active, ran_s)
        reached = condition(job, "SuccessCriteriaMet")
        success = (reached["reason"], reached["message"]) if reached else tally.success(job, active)
        if failure is not None and reached is None:
            success = None  # failure counts first, and pods that end well when they are told to go change nothing
        if failure is not None or success is not None:
            self._delete(active)
            left = [*active, *going]
            self._conclude(job, tally, left, failure if success is None else None, success, now)
            return None
        again_s = self._make_pods(job, tally, active, going, now)
        self._write(job, tally, active=active, going=going)
        deadline = job["spec"].get("activeDeadlineSeconds")
        if deadline is not None:
            left_s = (deadline - ran_s) * self._timing.second_s
            again_s = left_s if again_s is None else min(left_s, again_s)
        return again_s

    def _make_pods(
        self, job: Object, tally: Tally, active: list[Object], going: list[Object], now: float
    ) -> float | None:
        """Make the pods that are wanted; return after how many seconds, if not now."""
        policy = job["spec"].get("podReplacementPolicy") or (
            "Failed" if job["spec"].get("podFailurePolicy") else "TerminatingOrFailed"
        )
        held = going if policy == "Failed" else []
        too_many = len(active) - job["spec"].get("parallelism", 1)
        if too_many > 0:
            self._delete(sorted(active, key=_rank)[-too_many:])
            return None
        wanted = tally.wanted(job, active, held)
        wait_s = tally.failed_at_s + self._back_off_s(tally.in_a_row) - now if tally.in_a_row else 0.0
        if not wanted or wait_s > 0:
            return wait_s if wanted else None
        for index in wanted:
            failures = tally.failures.get(index, 0) if index is not None else 0
            try:
                made = self._objects.create(pod_of(job, index, failures=failures))
            except Refused as why:
                self._tell(job, "FailedCreate", f"Error creating: {why.message}", warning=True)
                raise
            active.append(made)
            self._tell(job, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return None

    def _back_off_s(self, failures: int) -> float:
        base_s = self._timing.job_backoff_s * 2.0 ** min(failures - 1, 10)
        return min(base_s, self._timing.most_job_backoff_s)

    def _suspend(self, job: Object, tally: Tally, active: Sequence[Object]) -> None:
        self._delete(active)
        tally.counted |= {pod["metadata"]["uid"] for pod in active}  # they are not the Job's failures
        tally.began_s = None
        if not holds(job, "Suspended"):
            self._tell(job, "Suspended", "Job suspended")

    def _conclude(
        self,
        job: Object,
        tally: Tally,
        left: Sequence[Object],
        failure: Why | None,
        success: Why | None,
        now: float,
    ) -> None:
        """Say first how a Job is going to end, and that it has ended once the last of its pods is gone."""
        why = success or failure
        assert why is not None
        first, last = ("SuccessCriteriaMet", "Complete") if success else ("FailureTarget", "Failed")
        over = not left

        def edit(thing: dict[str, Any]) -> None:
            status = thing.setdefault("status", {})
            set_condition(status, first, True, reason=why[0], message=why[1], also={"lastProbeTime": moment()})
            if over:
                set_condition(status, last, True, reason=why[0], message=why[1], also={"lastProbeTime": moment()})
                if success:
                    status["completionTime"] = moment()
            _counts(thing, status, tally, active=[], going=left)

        self._objects.update_status("Job", *key_of(job), edit)
        if over:
            tally.ended_s = now
            self._tell(
                job, "Completed" if success else why[0], "Job completed" if success else why[1], warning=not success
            )

    def _live_on(self, job: Object, tally: Tally, now: float) -> float | None:
        """Delete a Job that is over when its time has come."""
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return None
        ended_s = now if tally.ended_s is None else tally.ended_s
        left_s: float = ended_s + ttl * self._timing.second_s - now
        if left_s > 0:
            return left_s
        self._objects.delete("Job", *key_of(job), propagation="Foreground")
        return None

    def _write(self, job: Object, tally: Tally, *, active: Sequence[Object], going: Sequence[Object]) -> None:
        """Write how a Job is that goes on, or is suspended."""
        suspended = bool(job["spec"].get("suspend"))
        resumed = not suspended and holds(job, "Suspended")

        def edit(thing: dict[str, Any]) -> bool:
            status = thing.setdefault("status", {})
            before = repr(status)
            if suspended:
                set_condition(status, "Suspended", True, reason="JobSuspended", message="Job suspended")
                status.pop("startTime", None)
            else:
                if resumed:
                    set_condition(status, "Suspended", False, reason="JobResumed", message="Job resumed")
                    status.pop("startTime", None)
                status.setdefault("startTime", moment())
            _counts(thing, status, tally, active=active, going=going)
            return repr(status) != before

        self._objects.update_status("Job", *key_of(job), edit)
        if resumed:
            self._tell(job, "Resumed", "Job resumed")

    def _delete(self, pods: Iterable[Object]) -> None:
        for pod in pods:
            self._objects.delete("Pod", *key_of(pod))

    def _tell(self, job: Object, reason: str, message: str, *, warning: bool = False) -> None:
        self._objects.tell(job, reason, message, warning=warning, component=COMPONENT)


def _counts(
    job: Object, status: dict[str, Any], tally: Tally, *, active: Sequence[Object], going: Sequence[Object]
) -> None:
    """Write the numbers of a Job's pods."""
    counts = {
        "active": len(active),
        "terminating": len(going),
        "ready": sum(holds(pod, "Ready") for pod in active),
        "succeeded": tally.succeeded,
        "failed": tally.failed,
    }
    for name, count in counts.items():
        if count or name in ("ready", "terminating"):
            status[name] = count
        else:
            status.pop(name, None)
    status["uncountedTerminatedPods"] = {}
    if is_indexed(job):
        status["completedIndexes"] = intervals(tally.done)
        if not status["completedIndexes"]:
            del status["completedIndexes"]
        if job["spec"].get("backoffLimitPerIndex") is not None:
            status["failedIndexes"] = intervals(tally.lost)


def _is_over(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in _OVER


def _ended(pod: Object) -> Object:
    """Return a pod that is gone as one that is over: who was removed while it ran has failed."""
    return pod if _is_over(pod) else {**pod, "status": {**pod.get("status", {}), "phase": "Failed"}}


def _rank(pod: Object) -> int:
    return index_of(pod) or 0
