"""The memory that a training job needs, from the model's config.json alone: no torch, no numpy, no network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudtune.launch import Launch
    from cloudtune.spec.job import JobSpec


def doubts(job: JobSpec, launch: Launch | None) -> Iterable[tuple[str, str]]:
    """Return (YAML path, message) if a job surely needs more memory than its accelerators have.

    The room is entered only for jobs that name a model.
    """
    if launch is None or job.runtime is None:
        return ()
    command = launch.command if isinstance(launch.command, str) else " ".join(launch.command)
    if "--model" not in command and "--pretrained" not in command:
        return ()
    from cloudtune.memory.notices import notices

    return tuple(notices(job, launch))
