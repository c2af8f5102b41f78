"""EKS as far as this release goes: a job is checked, and its launch is shown; nothing would be sent."""

from __future__ import annotations

from cloudtune.backends.unsubmitted import Unsubmitted, refusal
from cloudtune.launch import launch, run_time_limit_s
from cloudtune.launch.machine import runtime_of
from cloudtune.order import job_name, outputs_of
from cloudtune.plan import Notice, Plan
from cloudtune.spec.job import JobSpec


class EksBackend(Unsubmitted):
    """Jobs on EKS: a place whose plan has a launch and no steps."""

    name = "eks"
    limits = "this release checks EKS jobs and shows how they launch; it does not submit them yet"

    def plan(self, job: JobSpec, run_id: str) -> Plan:
        """Return how the job launches, and the note that this release does not submit it."""
        how = launch(job)
        _, limit = run_time_limit_s(job)
        warnings = (*how.warnings, *([limit] if limit else []))
        uri = outputs_of(runtime_of(job), run_id)["uri"]
        return Plan(
            name=job_name(job),
            run_id=run_id,
            backend=self.name,
            launch=how,
            outputs=(uri,) if uri else (),
            fields=(refusal(self.limits),),
            warnings=tuple(Notice(path=path, message=message) for path, message in warnings),
        )
