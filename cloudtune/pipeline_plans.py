"""What running a pipeline would send: the plans of its steps in one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from cloudtune.backends import BACKENDS, backend_of
from cloudtune.code import gather_code
from cloudtune.errors import Fault, SpecError
from cloudtune.jobs import id_from, plan_job, unread
from cloudtune.pipeline_steps import job_of
from cloudtune.plan import FieldNote, IfGiven, Notice, Plan, Ref, Step
from cloudtune.spec.document import checked, dumps
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import PipelineSpec, PipelineStep
from cloudtune.spec.order import order_of_steps
from cloudtune.spec.placeholders import placeholders, placeholders_in

#: The first step of a plan whose steps are led by a process here.
_STAGE = "pipeline.stage"
#: Verbs that the command line of this release has, and where each of them can go.
BUILT: dict[str, frozenset[str]] = {
    "prepare": frozenset(),
    "merge": frozenset(),
    "consolidate": frozenset(),
    "check": frozenset(),
    "register": frozenset({"folder", "hub", "oci", "bedrock", "sagemaker"}),
    "deploy": frozenset({"local", "oci", "sagemaker"}),
}


def plan_pipeline(pipeline: PipelineSpec, run_id: str) -> Plan:
    """Return what running the pipeline would send: the steps of its jobs, flattened as ``train.run``."""
    pipeline = checked(pipeline)
    name = pipeline.name or "pipeline"
    outputs: dict[str, str] = {}
    parts: list[tuple[str, Plan]] = []
    launches, fields = {}, []
    warnings: list[Notice] = []
    for step, plan in _plans(pipeline, run_id, outputs):
        left = left_by(step, plan.outputs)
        if left is not None:
            # a place that names its outputs only later leaves the reference as it is
            outputs[step.name] = left
        if plan.launch is not None:
            launches[step.name] = plan.launch
        parts.append((step.name, plan))
        fields += [attrs.evolve(note, path=_moved(note.path, pipeline, step)) for note in plan.fields]
        warnings += _warnings_of(plan, pipeline, step)
        fields += [attrs.evolve(note, path=f"{_place_of(pipeline, step)}.{note.path}") for note in _unbuilt(step)]
    whole, why = _as_one(pipeline, name, run_id, parts)
    if why:
        warnings.append(Notice(path="spec.infrastructure", message=why))
    led = (*conductor_steps(run_id, {}), *(_flattened(step, one) for step, plan in parts for one in plan.steps))
    return Plan(
        name=name,
        run_id=run_id,
        backend="local" if isinstance(pipeline.infrastructure, LocalJob) else _backend_name(pipeline),
        launches=launches,
        steps=whole or led,
        outputs=tuple(uri for uri in outputs.values() if uri),
        fields=tuple(fields),
        warnings=tuple(dict.fromkeys(_once(warnings, pipeline))),
    )


def _once(warnings: Sequence[Notice], pipeline: PipelineSpec) -> Iterator[Notice]:
    """Yield the warnings, but not of a step that compiles for another one what is told of that, too."""
    compiling = {
        f"spec.steps[{index}]"
        for index, step in enumerate(pipeline.steps)
        if step.job is not None and getattr(step.job.runtime, "precompile_only", None)
    }
    placed = [(*notice.path.partition("]."), notice) for notice in warnings]
    told = {(rest, notice.message) for step, _, rest, notice in placed if f"{step}]" not in compiling}
    for step, _, rest, notice in placed:
        if f"{step}]" not in compiling or (rest, notice.message) not in told:
            yield notice


def is_led(plan: Plan) -> bool:
    """Whether the steps of a pipeline's plan are led by a process here; else its place does all of it by itself."""
    return any(step.id == _STAGE for step in plan.steps)


def _as_one(
    pipeline: PipelineSpec, name: str, run_id: str, parts: Sequence[tuple[str, Plan]]
) -> tuple[tuple[Step, ...], str]:
    """Return the steps by which the pipeline's place takes all of it as one thing, or why it does not."""
    backend: Any = backend_of(pipeline.infrastructure.type)
    if not hasattr(backend, "chain") or not parts:
        return (), ""
    found = backend.chain(pipeline.infrastructure, name, run_id, parts)
    return (found.steps, found.why) if found is not None else ((), "")


def _warnings_of(plan: Plan, pipeline: PipelineSpec, step: PipelineStep) -> Iterator[Notice]:
    """Yield what a step's plan warns of; a placeholder that came by a reference is told where it was written."""
    left = {path for path, _ in placeholders(job_of(pipeline, step, {}))}
    brings_itself = step.verb is not None and step.verb != "prepare"
    for notice in plan.warnings:
        if brings_itself and notice.path.startswith("spec.runtime."):
            continue  # of the command that the verb has become
        if "is a placeholder" not in notice.message or (
            notice.path in left and (step.verb is None or not notice.path.startswith("spec.runtime."))
        ):
            yield attrs.evolve(notice, path=_moved(notice.path, pipeline, step))
    if brings_itself and step.infrastructure is not None and step.infrastructure.type != "local":
        message = "runs there as python3 -m cloudtune: its image must have cloudtune"
        yield Notice(path=f"{_place_of(pipeline, step)}.{step.verb}", message=message)
    for path, text in placeholders_in(f"{_place_of(pipeline, step)}.{step.verb}", step.options):
        yield Notice(path=path, message=f"{text!r} is a placeholder: fill it in")


def _plans(pipeline: PipelineSpec, run_id: str, outputs: Mapping[str, str]) -> Iterator[tuple[PipelineStep, Plan]]:
    """Yield the plan of each step, and raise at the end what is wrong with any; ``outputs`` is filled meanwhile."""
    faults: list[Fault] = []
    for step in order_of_steps(pipeline):
        try:
            job = job_of(pipeline, step, outputs)
            plan = plan_job(job, f"{run_id}-{step.name}")
        except SpecError as error:
            faults += _faults_of(error, pipeline, step)
            continue
        # what lies in the outputs of an earlier step is not there yet
        later = {*unread(job)} - {*unread(job_of(pipeline, step, {}))}
        yield step, attrs.evolve(plan, warnings=tuple(one for one in plan.warnings if one not in later))
    if faults:
        raise SpecError(faults)


def _faults_of(error: SpecError, pipeline: PipelineSpec, step: PipelineStep) -> list[Fault]:
    return [attrs.evolve(fault, path=_moved(fault.path, pipeline, step)) for fault in error.faults]


def _place_of(pipeline: PipelineSpec, step: PipelineStep) -> str:
    return f"spec.steps[{pipeline.steps.index(step)}]"


def _moved(path: str, pipeline: PipelineSpec, step: PipelineStep) -> str:
    """Return the path of a job's key as it stands in the pipeline's file."""
    place, rest = _place_of(pipeline, step), path.removeprefix("spec.")
    if rest.startswith("infrastructure."):
        if step.infrastructure is not None:
            return f"{place}.{rest}"
        if step.job is not None and step.job.infrastructure == LocalJob():
            return f"spec.{rest}"  # the step says nothing of where, so the pipeline does
    inner = f"{place}.job" if step.job is not None else f"{place}.{step.verb}"
    if step.verb == "prepare":
        rest = rest.removeprefix("runtime.spec.").removeprefix("recipe.args.").replace("outputUri", "output")
    return f"{inner}.{rest}" if rest else inner


def left_by(step: PipelineStep, outputs: tuple[str, ...]) -> str | None:
    """Return the place where a step's result is: where its verb was told to put it, else the run's outputs."""
    told = step.options.get("output") if step.verb is not None else None
    if isinstance(told, str):
        return told if "://" in told else str(Path(told).absolute())
    return outputs[0] if outputs else None


def _unbuilt(step: PipelineStep) -> tuple[FieldNote, ...]:
    """Return what this release cannot do of a step that is a verb."""
    if step.verb is None:
        return ()
    if step.verb not in BUILT:
        reason = f"this release has no verb {step.verb!r}"
        return (FieldNote(path=step.verb, status="refused", reason=reason),)
    to, known = step.options.get("to"), BUILT[step.verb]
    if to is None or to in known:
        return ()
    reason = f"this release cannot {step.verb} to {to!r}, only to {', '.join(sorted(known))}"
    return (FieldNote(path=f"{step.verb}.to", status="refused", reason=reason),)


def dry_run_id(pipeline: PipelineSpec) -> str:
    """Return an id derived from the spec and the code of all steps."""
    parts = [dumps(pipeline)]
    faults: list[Fault] = []
    for step in pipeline.steps:
        try:
            workspace = gather_code(step.job) if step.job is not None else None
        except SpecError as error:
            faults += _faults_of(error, pipeline, step)
            continue
        parts.append(workspace.digest if workspace else "")
    if faults:
        raise SpecError(faults)
    return id_from("\n".join(parts))


def _backend_name(pipeline: PipelineSpec) -> str:
    row = BACKENDS.get(pipeline.infrastructure.type)
    return row.name if row else backend_of(pipeline.infrastructure.type).name


def conductor_steps(run_id: str, environment: Mapping[str, Any]) -> tuple[Step, Step]:
    """Return the steps that start the process which drives a pipeline."""
    argv = [sys.executable, "-m", "cloudtune.conductor", run_id]
    stage = {"runId": run_id, "nodes": 0, "python": sys.executable, "order": None}
    begin = {"runId": Ref(_STAGE, "runId"), "argv": argv, "environment": dict(environment)}
    return (
        Step(id=_STAGE, service="process", operation="stage", parameters=stage, token=run_id),
        Step(id="pipeline.run", service="process", operation="start", parameters=begin, token=run_id),
    )


def _flattened(name: str, step: Step) -> Step:
    def renamed(value: Any) -> Any:
        if isinstance(value, Ref):
            return Ref(f"{name}.{value.step}", value.field)
        if isinstance(value, IfGiven):
            return IfGiven(renamed(value.ref), renamed(value.then), renamed(value.otherwise))
        if isinstance(value, Mapping):
            return {key: renamed(item) for key, item in value.items()}
        return [renamed(item) for item in value] if isinstance(value, (list, tuple)) else value

    return attrs.evolve(step, id=f"{name}.{step.id}", parameters=renamed(step.parameters))
