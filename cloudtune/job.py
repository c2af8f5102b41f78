"""The job and the pipeline as values with verbs, for notebooks and scripts; they add no fields of their own."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import attrs

from cloudtune import jobs, pipelines, runs
from cloudtune.errors import SpecError, UsageError
from cloudtune.html import block
from cloudtune.order import job_name
from cloudtune.plan import Plan
from cloudtune.runs import Run, RunList
from cloudtune.spec import document
from cloudtune.spec.environment import variables
from cloudtune.spec.job import JobSpec, PipelineSpec
from cloudtune.spec.secrecy import masked

Value = TypeVar("Value", bound="Job | Pipeline")


@attrs.frozen(kw_only=True)
class Job(JobSpec):
    """A job: what to run, and where. Every ``with_*`` returns a new job and leaves this one as it was.

    >>> from cloudtune import Job, LocalJob, PyTorchDistributedRuntime
    >>> job = (
    ...     Job(name="hello")
    ...     .with_infrastructure(LocalJob())
    ...     .with_runtime(PyTorchDistributedRuntime(command="echo hello from node $CLOUDTUNE_NODE_RANK", replicas=2))
    ... )
    >>> job.plan().launch.world_size
    2
    """

    @classmethod
    def from_yaml(cls, source: str | os.PathLike[str], **changes: Any) -> Job:
        """Return the job of a file or of YAML text; raises SpecError with all faults at once.

        ``changes`` are the options of ``cloudtune run``: ``set``, ``env``, ``infrastructure``.
        """
        return _of_kind(cls, document.load(source, **changes))

    def to_yaml(self) -> str:
        """Return the job as YAML; ``from_yaml`` gives the same job back."""
        return document.dumps(self)

    def plan(self) -> Plan:
        """Return everything that running the job would send; offline, without credentials."""
        return jobs.plan_job(self)

    def create(self) -> Job:
        """Check the job as a run would and return it; the service's own job is made by :meth:`run`.

        It is here for code that was written for Oracle ADS: ``job.create()`` then ``job.run()``.
        """
        jobs.plan_job(self)
        return self

    def run(
        self,
        name: str | None = None,
        *,
        args: str | Sequence[str] | None = None,
        env_var: Mapping[str, Any] | None = None,
        freeform_tags: Mapping[str, str] | None = None,
        wait: bool = False,
    ) -> Run:
        """Submit the job as a new run and return the run; ``.watch()`` shows its log.

        The arguments change this run only: ``args`` replace the job's (a string is split as a shell splits it),
        ``env_var`` and ``freeform_tags`` are added to the job's and win. With ``wait`` the call returns at the end.
        """
        runtime = self.runtime
        if runtime is not None and args is not None:
            runtime = attrs.evolve(runtime, args=tuple(shlex.split(args) if isinstance(args, str) else args))
        if runtime is not None and env_var:
            kept = tuple(variable for variable in runtime.env if variable.name not in env_var)
            runtime = attrs.evolve(runtime, env=(*kept, *variables(env_var)))
        if runtime is not None and freeform_tags:
            runtime = attrs.evolve(runtime, freeform_tags={**runtime.freeform_tags, **freeform_tags})
        run = jobs.start(attrs.evolve(self, name=name or self.name, runtime=runtime))
        if wait:
            run.wait()
        return run

    def run_list(self) -> RunList:
        """Return the runs of jobs of this name, newest first."""
        name = job_name(self)
        return RunList(run for run in runs.runs() if run.name == name)

    __repr__ = JobSpec.__repr__

    def _repr_html_(self) -> str:
        return _html(self, "Job")


@attrs.frozen(kw_only=True)
class Pipeline(PipelineSpec):
    """Jobs and verbs in order; ``${steps.NAME.outputs}`` is what an earlier step left."""

    @classmethod
    def from_yaml(cls, source: str | os.PathLike[str], **changes: Any) -> Pipeline:
        """Return the pipeline of a file or of YAML text; raises SpecError with all faults at once."""
        return _of_kind(cls, document.load(source, **changes))

    def to_yaml(self) -> str:
        """Return the pipeline as YAML; ``from_yaml`` gives the same pipeline back."""
        return document.dumps(self)

    def plan(self) -> Plan:
        """Return everything that running the pipeline would send; offline, without credentials."""
        return pipelines.plan_pipeline(self, pipelines.dry_run_id(self))

    def run(self) -> Run:
        """Submit the pipeline as a new run and return the run; ``.watch()`` shows its log."""
        return pipelines.start_pipeline(self)

    __repr__ = PipelineSpec.__repr__

    def _repr_html_(self) -> str:
        return _html(self, "Pipeline")


def _of_kind(cls: type[Value], spec: JobSpec | PipelineSpec) -> Value:
    if spec.kind != cls.kind:
        raise UsageError(f"this is a {spec.kind}", hint=f"read it with {spec.kind.capitalize()}.from_yaml")
    return cls(**{field.name: getattr(spec, field.name) for field in attrs.fields(type(spec))})


def _html(value: Job | Pipeline, title: str) -> str:
    name = f"{title} {value.name or ''}"
    try:
        return block(name, document.dumps(masked(value)))
    except SpecError as error:
        return block(name, str(error))
