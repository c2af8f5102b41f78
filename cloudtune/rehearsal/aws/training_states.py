"""The states of a training job, as DescribeTrainingJob shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The kind of a training job in the stage's store; its id is the job's ARN.
JOB = "aws.training_job"
#: Statuses of a job that is over.
OVER = ("Completed", "Failed", "Stopped")


def moved(
    shown: Mapping[str, Any], secondary: str, message: str, now: float, *, status: str | None = None
) -> dict[str, Any]:
    """Return a job in another secondary status, with the step written down."""
    steps = [dict(step) for step in shown["SecondaryStatusTransitions"]]
    if "EndTime" not in steps[-1]:
        steps[-1]["EndTime"] = now
    over = status in OVER
    end = {"EndTime": now} if over else {}
    steps.append({"Status": secondary, "StartTime": now, "StatusMessage": message, **end})
    if secondary == "Stopping":
        status = "Stopping"
    return {
        **shown,
        "SecondaryStatus": secondary,
        "SecondaryStatusTransitions": steps,
        "LastModifiedTime": now,
        **({"TrainingJobStatus": status} if status else {}),
    }
