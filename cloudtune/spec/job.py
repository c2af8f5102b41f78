"""The job and the pipeline as values: what, where, and in which order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from cloudtune.node.masks import mask_of
from cloudtune.spec.environment import hidden_values
from cloudtune.spec.fields import flat, freeze, setting
from cloudtune.spec.place import Infrastructure, LocalJob
from cloudtune.spec.runtime import Runtime
from cloudtune.spec.types import Types

if TYPE_CHECKING:
    from typing_extensions import Self

#: Steps of a pipeline that are verbs of the command line instead of jobs.
VERBS = ("prepare", "merge", "consolidate", "check", "register", "deploy")
#: The options of the verbs; those of ``prepare`` are its recipe's own.
OPTIONS: Types[Any] = Types(
    {
        "merge": "cloudtune.spec.verbs:Merge",
        "consolidate": "cloudtune.spec.verbs:Consolidate",
        "check": "cloudtune.spec.verbs:Check",
        "register": "cloudtune.spec.verbs:Register",
        "deploy": "cloudtune.spec.verbs:Deploy",
    }
)


@attrs.frozen(kw_only=True)
class JobSpec:
    """A job: a runtime on an infrastructure. Without an infrastructure it runs on this machine."""

    kind: ClassVar[str] = "job"

    name: str | None = setting("Name of the job; `${NAME}` is filled in from the job's variables.")
    infrastructure: Infrastructure = attrs.field(factory=LocalJob, metadata={"doc": "Where the job runs."})
    runtime: Runtime | None = attrs.field(default=None, metadata={"doc": "What the job runs."})
    id: str | None = setting("Id of an existing job in the service; accepted as ADS accepts it.")

    def __repr__(self) -> str:
        return described(self, _variables(self))

    def with_name(self, name: str | None) -> "Self":
        """Name of the job; `${NAME}` is filled in from the job's variables."""
        return attrs.evolve(self, name=name)

    def with_infrastructure(self, infrastructure: Infrastructure) -> "Self":
        """Where the job runs."""
        return attrs.evolve(self, infrastructure=infrastructure)

    def with_runtime(self, runtime: Runtime | None) -> "Self":
        """What the job runs."""
        return attrs.evolve(self, runtime=runtime)

    def with_id(self, id: str | None) -> "Self":  # noqa: A002 - the key's own name
        """Id of an existing job in the service; accepted as ADS accepts it."""
        return attrs.evolve(self, id=id)


@attrs.frozen(kw_only=True)
class PipelineStep:
    """One step: a job, or a verb of the command line with its options."""

    name: str = attrs.field(metadata={"doc": "Name of the step, unique in the pipeline."})
    needs: tuple[str, ...] = setting("Steps that must have succeeded before.", default=())
    infrastructure: Infrastructure | None = attrs.field(
        default=None, metadata={"doc": "Where this step runs; verbs default to this machine."}
    )
    job: JobSpec | None = attrs.field(default=None, metadata={"doc": "A job."})
    precompile: str | None = setting(
        "In place of a job, the name of a step on Neuron cores: its job, ended when its graphs are compiled."
    )
    verb: str | None = setting("A verb of the command line, in place of a job.", choices=VERBS)
    options: Mapping[str, Any] = setting("Options of the verb.", default={})

    def with_name(self, name: str) -> "Self":
        """Name of the step, unique in the pipeline."""
        return attrs.evolve(self, name=name)

    def with_needs(self, *needs: str | Sequence[str]) -> "Self":
        """Steps that must have succeeded before, in place of those it had."""
        return attrs.evolve(self, needs=flat(needs))

    def with_infrastructure(self, infrastructure: Infrastructure | None) -> "Self":
        """Where this step runs; verbs default to this machine."""
        return attrs.evolve(self, infrastructure=infrastructure)

    def with_job(self, job: JobSpec | None) -> "Self":
        """A job, in place of a verb."""
        return attrs.evolve(self, job=job, precompile=None, verb=None, options={})

    def with_precompile(self, precompile: str | None) -> "Self":
        """In place of a job, the name of a step on Neuron cores: its job, ended when its graphs are compiled."""
        return attrs.evolve(self, job=None, precompile=precompile, verb=None, options={})

    def with_verb(self, verb: str | None, **options: Any) -> "Self":
        """A verb of the command line with its options, in place of a job."""
        return attrs.evolve(self, job=None, precompile=None, verb=verb, options=options)

    def with_options(self, options: Mapping[str, Any]) -> "Self":
        """Options of the verb, in place of those it had."""
        return attrs.evolve(self, options=freeze(options))


@attrs.frozen(kw_only=True)
class PipelineSpec:
    """Jobs and verbs in order; ``${steps.NAME.outputs}`` is what an earlier step left."""

    kind: ClassVar[str] = "pipeline"

    name: str | None = setting("Name of the pipeline.")
    infrastructure: Infrastructure = attrs.field(factory=LocalJob, metadata={"doc": "Where its jobs run."})
    steps: tuple[PipelineStep, ...] = setting("The steps.", default=(), of=PipelineStep)

    def __repr__(self) -> str:
        return described(self, (variable for step in self.steps for variable in _variables(step.job)))

    def with_name(self, name: str | None) -> "Self":
        """Name of the pipeline."""
        return attrs.evolve(self, name=name)

    def with_infrastructure(self, infrastructure: Infrastructure) -> "Self":
        """Where its jobs run."""
        return attrs.evolve(self, infrastructure=infrastructure)

    def with_steps(self, *steps: PipelineStep | Sequence[PipelineStep]) -> "Self":
        """The steps, in place of those it had."""
        return attrs.evolve(self, steps=flat(steps))

    def with_step(self, step: PipelineStep) -> "Self":
        """One more step, after those it has."""
        return attrs.evolve(self, steps=(*self.steps, step))


def described(spec: JobSpec | PipelineSpec, env: Iterable[Any]) -> str:
    """Return a spec as Python shows it: the values of secret variables stand nowhere in it."""
    parts = (f"{field.name}={getattr(spec, field.name)!r}" for field in attrs.fields(type(spec)))
    text = f"{type(spec).__name__}({', '.join(parts)})"
    for name, value in hidden_values(env).items():
        text = text.replace(repr(value)[1:-1], mask_of(name))
    return text


def _variables(job: JobSpec | None) -> tuple[Any, ...]:
    return job.runtime.env if job is not None and job.runtime is not None else ()
