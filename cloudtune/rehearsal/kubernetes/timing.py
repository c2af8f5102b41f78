"""How long things take in a rehearsed cluster."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Timing:
    """Seconds of the stage's clock.

    ``second_s`` is a second of the times that a job gives: deadlines, grace, time to live. Backing off of a Job's pods
    begins at ``job_backoff_s``, of containers at ``restart_backoff_s``, and doubles. A node that is lost is noticed
    after ``unknown_s`` and removed by the cloud after ``gone_s`` more.
    """

    second_s: float = 1.0
    scheduling_s: float = 0.2
    mounting_s: float = 0.5
    pulling_s: float = 20.0
    job_backoff_s: float = 10.0
    most_job_backoff_s: float = 360.0
    restart_backoff_s: float = 10.0
    most_restart_backoff_s: float = 300.0
    unknown_s: float = 40.0
    gone_s: float = 60.0
    provisioning_s: float = 5.0
    admission_s: float = 2.0
