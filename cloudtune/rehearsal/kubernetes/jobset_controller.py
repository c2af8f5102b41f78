"""The controller of JobSets: makes their Jobs in order, begins anew where one fails, and says how it ends.

Source: the JobSet controller, v0.12.0 (kubernetes-sigs/jobset).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cloudtune.rehearsal.kubernetes.conditions import condition, holds, set_condition
from cloudtune.rehearsal.kubernetes.jobset_jobs import ATTEMPT, REPLICATED, jobs_of, service_of
from cloudtune.rehearsal.kubernetes.loop import Key, is_controlled_by, is_going, itself_or_owners, key_of
from cloudtune.rehearsal.kubernetes.objects import Change, Object, Objects
from cloudtune.rehearsal.kubernetes.timing import Timing
from cloudtune.rehearsal.stage import Stage

COMPONENT = "jobset-controller"
_ALL_DONE = ("AllJobsCompleted", "jobset completed successfully")
#: Seconds after which a controller looks whether Jobs that it deletes are gone.
_AGAIN_S = 1.0


class JobSetController:
    """A controller of JobSets."""

    kind = "JobSet"

    def __init__(self, stage: Stage, objects: Objects, timing: Timing) -> None:
        self._clock, self._objects, self._timing = stage.clock, objects, timing
        self._ended_s: dict[str, float] = {}

    def concerns(self, change: Change) -> Iterable[Key]:
        """Return the JobSet itself, or that of a Job."""
        if change.kind not in ("JobSet", "Job"):
            return []
        return list(itself_or_owners(change, self.kind))

    def sync(self, namespace: str, name: str) -> float | None:
        """Take the next step of a JobSet."""
        jobset = self._objects.get("JobSet", namespace, name)
        if jobset is None or is_going(jobset):
            return None
        jobs = self._objects.list("Job", namespace, where=lambda job: is_controlled_by(job, jobset))
        if holds(jobset, "Completed") or holds(jobset, "Failed"):
            return self._clean_up(jobset, jobs)
        attempt = jobset.get("status", {}).get("restarts", 0)
        old = [job for job in jobs if job["metadata"]["labels"][ATTEMPT] != str(attempt)]
        jobs = [job for job in jobs if job not in old]
        self._delete(old)
        rows = _rows(jobset, jobs)
        self._write(jobset, rows)
        failed = [job for job in jobs if holds(job, "Failed")]
        if failed:
            self._fail(jobset, failed, attempt)
            return _AGAIN_S
        if _is_done(jobset, jobs):
            self._end(jobset, "Completed", _ALL_DONE)
            return None
        if old:
            return _AGAIN_S  # those that come have the same names
        self._make(jobset, jobs, rows, attempt)
        return None

    def _make(
        self, jobset: Object, jobs: Sequence[Object], rows: Mapping[str, Mapping[str, Any]], attempt: int
    ) -> None:
        namespace = jobset["metadata"]["namespace"]
        service = service_of(jobset)
        if service is not None and self._objects.get("Service", namespace, service["metadata"]["name"]) is None:
            self._objects.create(service)
        suspended = bool(jobset["spec"].get("suspend"))
        if suspended:
            self._suspend(jobs, True)
        in_order = (jobset["spec"].get("startupPolicy") or {}).get("startupPolicyOrder") == "InOrder"
        known = {job["metadata"]["name"]: job for job in jobs}
        for replicated in jobset["spec"]["replicatedJobs"]:
            if not all(_is_reached(jobset, one, rows) for one in replicated.get("dependsOn") or ()):
                continue
            wanted = {job["metadata"]["name"]: job for job in jobs_of(jobset, replicated, attempt)}
            for name, job in wanted.items():
                if name not in known:
                    self._objects.create(job)
            if suspended:
                continue
            self._suspend([known[name] for name in wanted if name in known], False)
            if in_order and not _is_reached(jobset, {**replicated, "status": "Ready"}, rows):
                return

    def _suspend(self, jobs: Iterable[Object], suspended: bool) -> None:
        for job in jobs:
            if bool(job["spec"].get("suspend")) != suspended:
                self._objects.update("Job", *key_of(job), _suspending(suspended))

    def _fail(self, jobset: Object, failed: Sequence[Object], attempt: int) -> None:
        """Begin all Jobs anew, or let the JobSet fail."""
        first = min(failed, key=_failed_at)
        action = _action(jobset, first)
        policy = jobset["spec"].get("failurePolicy")
        name = first["metadata"]["name"]
        if policy is None or action == "FailJobSet":
            words = f"jobset failed due to one or more job failures (first failed job: {name})"
            self._end(jobset, "Failed", ("FailedJobs" if policy is None else "FailJobSetFailurePolicyAction", words))
            return
        counted = jobset.get("status", {}).get("restartsCountTowardsMax", 0)
        ignored = action == "RestartJobSetAndIgnoreMaxRestarts"
        if counted >= policy.get("maxRestarts", 0) and not ignored:
            words = f"jobset failed due to reaching max number of restarts (first failed job: {name})"
            self._end(jobset, "Failed", ("ReachedMaxRestarts", words))
            return

        def again(thing: dict[str, Any]) -> None:
            status = thing.setdefault("status", {})
            status["restarts"] = attempt + 1
            status["restartsCountTowardsMax"] = counted + (not ignored)

        self._objects.update_status("JobSet", *key_of(jobset), again)
        message = f"restarting jobset, attempt {attempt + 1} (first failed job: {name})"
        self._objects.tell(jobset, "Restarting", message, warning=True, component=COMPONENT)

    def _end(self, jobset: Object, kind: str, why: tuple[str, str]) -> None:
        def edit(thing: dict[str, Any]) -> None:
            status = thing.setdefault("status", {})
            status["terminalState"] = kind
            set_condition(status, kind, True, reason=why[0], message=why[1])

        self._objects.update_status("JobSet", *key_of(jobset), edit)
        self._ended_s[jobset["metadata"]["uid"]] = self._clock.time_s()
        self._objects.tell(jobset, why[0], why[1], warning=kind == "Failed", component=COMPONENT)

    def _clean_up(self, jobset: Object, jobs: Sequence[Object]) -> float | None:
        """Delete the Jobs that go on though the JobSet is over, and it when its time has come."""
        self._delete([job for job in jobs if not (holds(job, "Complete") or holds(job, "Failed"))])
        ttl = jobset["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return None
        now = self._clock.time_s()
        ended_s = self._ended_s.setdefault(jobset["metadata"]["uid"], now)
        left_s: float = ended_s + ttl * self._timing.second_s - now
        if left_s <= 0:
            self._objects.delete("JobSet", *key_of(jobset), propagation="Foreground")
            return None
        return left_s

    def _write(self, jobset: Object, rows: Mapping[str, Mapping[str, Any]]) -> None:
        suspended = bool(jobset["spec"].get("suspend"))

        def edit(thing: dict[str, Any]) -> bool:
            status = thing.setdefault("status", {})
            before = repr(status)
            status["replicatedJobsStatus"] = list(rows.values())
            status.setdefault("restarts", 0)
            if suspended:
                set_condition(status, "Suspended", True, reason="SuspendedJobs", message="jobset is suspended")
            elif condition(thing, "Suspended") is not None:
                set_condition(status, "Suspended", False, reason="ResumeJobs", message="jobset is resumed")
            return repr(status) != before

        self._objects.update_status("JobSet", *key_of(jobset), edit)

    def _delete(self, jobs: Iterable[Object]) -> None:
        for job in jobs:
            if not is_going(job):
                self._objects.delete("Job", *key_of(job), propagation="Foreground")


def _rows(jobset: Object, jobs: Sequence[Object]) -> dict[str, dict[str, Any]]:
    """Return the numbers of Jobs by the name of the replicated job."""
    found = {}
    for replicated in jobset["spec"]["replicatedJobs"]:
        mine = [job for job in jobs if job["metadata"]["labels"][REPLICATED] == replicated["name"]]
        over = [job for job in mine if holds(job, "Complete") or holds(job, "Failed")]
        found[replicated["name"]] = {
            "name": replicated["name"],
            "ready": sum(_is_ready(job) for job in mine if job not in over),
            "succeeded": sum(holds(job, "Complete") for job in mine),
            "failed": sum(holds(job, "Failed") for job in mine),
            "active": sum(bool(job.get("status", {}).get("active")) for job in mine),
            "suspended": sum(bool(job["spec"].get("suspend")) for job in mine),
        }
    return found


def _is_ready(job: Object) -> bool:
    status, spec = job.get("status", {}), job["spec"]
    wanted = min(spec.get("parallelism", 1), spec.get("completions", spec.get("parallelism", 1)))
    return bool(status.get("ready", 0) + status.get("succeeded", 0) >= wanted)


def _is_reached(jobset: Object, dependency: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether another replicated job is as far as this one waits for."""
    row = rows[dependency["name"]]
    replicas = next(one for one in jobset["spec"]["replicatedJobs"] if one["name"] == dependency["name"])
    wanted = replicas.get("replicas", 1)
    if dependency["status"] == "Complete":
        return bool(row["succeeded"] >= wanted)
    return bool(row["ready"] + row["succeeded"] >= wanted)


def _is_done(jobset: Object, jobs: Sequence[Object]) -> bool:
    policy = jobset["spec"].get("successPolicy") or {}
    targets = policy.get("targetReplicatedJobs") or [one["name"] for one in jobset["spec"]["replicatedJobs"]]
    done = [job for job in jobs if holds(job, "Complete") and job["metadata"]["labels"][REPLICATED] in targets]
    if policy.get("operator") == "Any":
        return bool(done)
    rows = jobset["spec"]["replicatedJobs"]
    return len(done) >= sum(int(row.get("replicas", 1)) for row in rows if row["name"] in targets)


def _action(jobset: Object, failed: Object) -> str:
    """Return what the failure policy says of a failed Job: the first rule that fits, else to restart all."""
    why = condition(failed, "Failed") or {}
    for rule in (jobset["spec"].get("failurePolicy") or {}).get("rules") or ():
        reasons, targets = rule.get("onJobFailureReasons") or (), rule.get("targetReplicatedJobs") or ()
        fits = not reasons or why.get("reason") in reasons
        if fits and (not targets or failed["metadata"]["labels"][REPLICATED] in targets):
            return str(rule["action"])
    return "RestartJobSet"


def _failed_at(job: Object) -> tuple[str, int]:
    return str((condition(job, "Failed") or {}).get("lastTransitionTime", "")), int(job["metadata"]["resourceVersion"])


def _suspending(suspended: bool) -> Any:
    def edit(thing: dict[str, Any]) -> None:
        thing["spec"]["suspend"] = suspended

    return edit
