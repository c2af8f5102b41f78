"""What has become of the pods of one Job: which are over, how they count, and what follows for the Job.

Pods that are over stay counted when they are gone. Source: the Job controller of Kubernetes 1.35.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from cloudtune.rehearsal.kubernetes.job_pods import index_of, is_indexed, judged, numbers_of
from cloudtune.rehearsal.kubernetes.objects import Object

BACKOFF = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")
REACHED = ("CompletionsReached", "Reached expected number of succeeded pods")
_POLICY = "PodFailurePolicy"
_INDEXES = ("FailedIndexes", "Job has failed indexes")
_MOST_INDEXES = ("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes")
_DEFAULT_BACKOFF = 6
_OVER = ("Succeeded", "Failed")

#: Reason and message.
Why = tuple[str, str]


@attrs.define(kw_only=True)
class Tally:
    """What is known of one Job's pods. Times are of the stage's clock."""

    counted: set[str] = attrs.field(factory=set)
    succeeded: int = 0
    failed: int = 0
    done: set[int] = attrs.field(factory=set)
    lost: set[int] = attrs.field(factory=set)
    failures: dict[int, int] = attrs.field(factory=dict)
    in_a_row: int = 0
    failed_at_s: float = 0.0
    began_s: float | None = None
    ended_s: float | None = None
    fatal: Why | None = None

    def count(self, job: Object, pods: Iterable[Object], now_s: float) -> None:
        """Count the pods that are over, each once."""
        for pod in pods:
            uid, phase = pod["metadata"]["uid"], pod.get("status", {}).get("phase")
            if uid in self.counted or phase not in _OVER:
                continue
            self.counted.add(uid)
            if phase == "Succeeded":
                self._count_success(job, pod)
            else:
                self._count_failure(job, pod, now_s)

    def _count_success(self, job: Object, pod: Object) -> None:
        index = index_of(pod)
        self.in_a_row = 0
        if not is_indexed(job):
            self.succeeded += 1
        elif index is not None and index not in self.done:
            self.done.add(index)
            self.succeeded += 1

    def _count_failure(self, job: Object, pod: Object, now_s: float) -> None:
        judgement, index = judged(job, pod), index_of(pod)
        self.in_a_row += 1
        self.failed_at_s = now_s
        if judgement.action == "FailJob":
            self.fatal = self.fatal or (_POLICY, judgement.message)
        if judgement.action == "Ignore":
            return
        self.failed += 1
        most = job["spec"].get("backoffLimitPerIndex")
        if index is None or most is None:
            return
        self.failures[index] = self.failures.get(index, 0) + 1
        if judgement.action == "FailIndex" or self.failures[index] > most:
            self.lost.add(index)

    def failure(self, job: Object, active: Sequence[Object], ran_s: float | None) -> Why | None:
        """Return why a Job has failed, None if it has not; ``ran_s`` is for how long it has been active."""
        spec = job["spec"]
        if self.fatal is not None:
            return self.fatal
        per_index = spec.get("backoffLimitPerIndex")
        limit = spec.get("backoffLimit", _DEFAULT_BACKOFF if per_index is None else None)
        restarts = _restarts(job, active)
        if limit is not None and (self.failed > limit or (restarts > 0 and restarts >= max(1, limit))):
            return BACKOFF
        if (
            ran_s is not None
            and spec.get("activeDeadlineSeconds") is not None
            and ran_s >= spec["activeDeadlineSeconds"]
        ):
            return DEADLINE
        most = spec.get("maxFailedIndexes")
        if most is not None and len(self.lost) > most:
            return _MOST_INDEXES
        if self.lost and len(self.lost | self.done) >= spec.get("completions", 1):
            return _INDEXES
        return None

    def success(self, job: Object, active: Sequence[Object]) -> Why | None:
        """Return why a Job has succeeded, None if it has not."""
        spec = job["spec"]
        wanted = spec.get("completions")
        if is_indexed(job):
            for number, rule in enumerate((spec.get("successPolicy") or {}).get("rules") or ()):
                if _meets(rule, self.done):
                    return "SuccessPolicy", f"Matched rules at index {number}"
            return REACHED if len(self.done) >= wanted else None
        if wanted is None:
            return REACHED if self.succeeded and not active else None
        return REACHED if self.succeeded >= wanted else None

    def wanted(self, job: Object, active: Sequence[Object], held: Sequence[Object]) -> Sequence[int | None]:
        """Return the pods that are to be made, by their numbers, None for each one without.

        ``held`` are pods in whose stead none may be made yet.
        """
        spec = job["spec"]
        most = spec.get("parallelism", 1) - len(active) - len(held)
        if is_indexed(job):
            taken = {index_of(pod) for pod in (*active, *held)} | self.done | self.lost
            free = [number for number in range(spec["completions"]) if number not in taken]
            return free[: max(0, most)]
        if spec.get("completions") is not None:
            most = min(most, spec["completions"] - self.succeeded - len(active) - len(held))
        elif self.succeeded:
            most = 0
        return [None] * max(0, most)


def _meets(rule: Mapping[str, Any], done: set[int]) -> bool:
    among = numbers_of(rule["succeededIndexes"]) if rule.get("succeededIndexes") else None
    if rule.get("succeededCount") is not None:
        return len(done if among is None else done & among) >= int(rule["succeededCount"])
    return among is not None and among <= done


def _restarts(job: Object, active: Iterable[Object]) -> int:
    """Return how often containers were started again, of a Job whose pods do that themselves."""
    if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return 0
    kinds = ("initContainerStatuses", "containerStatuses")
    return sum(
        int(row.get("restartCount", 0))
        for pod in active
        for kind in kinds
        for row in pod.get("status", {}).get(kind) or ()
    )
