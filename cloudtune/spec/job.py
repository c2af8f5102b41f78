"""The job and the pipeline as values: what, where, and in which order."""

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from cloudtune.spec.fields import setting
from cloudtune.spec.infrastructure import Infrastructure, LocalJob
from cloudtune.spec.runtimes import Runtime

#: Steps of a pipeline that are verbs of the command line instead of jobs.
VERBS = ("prepare", "merge", "consolidate", "check", "register", "deploy")


@attrs.frozen(kw_only=True)
class JobSpec:
    """A job: a runtime on an infrastructure. Without an infrastructure it runs on this machine."""

    kind: ClassVar[str] = "job"

    name: str | None = setting("Name of the job; `${NAME}` is filled in from the job's variables.")
    infrastructure: Infrastructure = attrs.field(factory=LocalJob, metadata={"doc": "Where the job runs."})
    runtime: Runtime | None = attrs.field(default=None, metadata={"doc": "What the job runs."})
    id: str | None = setting("Id of an existing job in the service; accepted as ADS accepts it.")


@attrs.frozen(kw_only=True)
class PipelineStep:
    """One step: a job, or a verb of the command line with its options."""

    name: str = attrs.field(metadata={"doc": "Name of the step, unique in the pipeline."})
    needs: tuple[str, ...] = setting("Steps that must have succeeded before.", default=())
    infrastructure: Infrastructure | None = attrs.field(
        default=None, metadata={"doc": "Where this step runs; verbs default to this machine."}
    )
    job: JobSpec | None = attrs.field(default=None, metadata={"doc": "A job."})
    verb: str | None = None
    options: Mapping[str, Any] = setting("Options of the verb.", default={})


@attrs.frozen(kw_only=True)
class PipelineSpec:
    """Jobs and verbs in order; ``${steps.NAME.outputs}`` is what an earlier step left."""

    kind: ClassVar[str] = "pipeline"

    name: str | None = setting("Name of the pipeline.")
    infrastructure: Infrastructure = attrs.field(factory=LocalJob, metadata={"doc": "Where its jobs run."})
    steps: tuple[PipelineStep, ...] = attrs.field(default=(), metadata={"doc": "The steps."})
