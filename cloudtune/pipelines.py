"""Pipelines: steps in order, each a recorded run; driven by a process of their own, which outlives the terminal.

A step is a job, or a verb of the command line that runs as a job on this machine. ``${steps.NAME.outputs}`` is filled
in with the place where an earlier step's outputs are.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from cloudtune.backends import BACKENDS, backend_of
from cloudtune.clients.process import ProcessClient
from cloudtune.code import gather_code
from cloudtune.errors import Fault, SpecError, UsageError
from cloudtune.jobs import RunJournal, id_from, plan_job, resume, start, without_secrets
from cloudtune.plan import Call, FieldNote, Notice, Plan, Ref, Step, mask
from cloudtune.runs import Run, run_of
from cloudtune.spec.document import checked, dumps
from cloudtune.spec.document import load as load_document
from cloudtune.spec.fields import freeze
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.order import order_of_steps
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.states import Handle, Status
from cloudtune.store import Record, Store, new_run_id
from cloudtune.submit import Progress, submit

_REFERENCE = re.compile(r"\$\{steps\.([^.}]+)\.outputs\}")
#: Options of a verb that stand on the command line without a flag, in order.
POSITIONAL = {
    "merge": ("base", "adapter"),
    "consolidate": ("checkpoint",),
    "check": ("model",),
    "register": ("model",),
    "deploy": ("model",),
}
#: Verbs that the command line of this release has, and where each of them can go.
BUILT: dict[str, frozenset[str]] = {
    "merge": frozenset(),
    "register": frozenset({"folder"}),
    "deploy": frozenset({"local"}),
}


# --- plan


def plan_pipeline(pipeline: PipelineSpec, run_id: str) -> Plan:
    """Return what running the pipeline would send: the steps of its jobs, flattened as ``train.run``."""
    pipeline = checked(pipeline)
    outputs: dict[str, str] = {}
    steps = list(_conductor_steps(run_id, {}))
    launches, fields, warnings = {}, [], []
    for index, step in enumerate(order_of_steps(pipeline)):
        job = job_of(pipeline, step, outputs)
        plan = plan_job(job, f"{run_id}-{step.name}")
        if plan.outputs:
            # a place that names its outputs only later leaves the reference as it is
            outputs[step.name] = plan.outputs[0]
        if plan.launch is not None:
            launches[step.name] = plan.launch
        steps += [_flattened(step.name, one) for one in plan.steps]
        prefix = f"spec.steps[{index}]"
        fields += [attrs.evolve(note, path=f"{prefix}.{note.path}") for note in plan.fields]
        warnings += [Notice(path=f"{prefix}.{notice.path}", message=notice.message) for notice in plan.warnings]
        fields += [attrs.evolve(note, path=f"{prefix}.{note.path}") for note in _unbuilt(step)]
    return Plan(
        name=pipeline.name or "pipeline",
        run_id=run_id,
        backend="local" if isinstance(pipeline.infrastructure, LocalJob) else _backend_name(pipeline),
        launches=launches,
        steps=tuple(steps),
        outputs=tuple(uri for uri in outputs.values() if uri),
        fields=tuple(fields),
        warnings=tuple(warnings),
    )


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
    for step in pipeline.steps:
        workspace = gather_code(step.job) if step.job is not None else None
        parts.append(workspace.digest if workspace else "")
    return id_from("\n".join(parts))


def _backend_name(pipeline: PipelineSpec) -> str:
    row = BACKENDS.get(pipeline.infrastructure.type)
    return row.name if row else backend_of(pipeline.infrastructure.type).name


def _conductor_steps(run_id: str, environment: Mapping[str, Any]) -> tuple[Step, Step]:
    argv = [sys.executable, "-m", "cloudtune.conductor", run_id]
    stage = {"runId": run_id, "nodes": 0, "python": sys.executable, "order": None}
    begin = {"runId": Ref("pipeline.stage", "runId"), "argv": argv, "environment": dict(environment)}
    return (
        Step(id="pipeline.stage", service="process", operation="stage", parameters=stage, token=run_id),
        Step(id="pipeline.run", service="process", operation="start", parameters=begin, token=run_id),
    )


def _flattened(name: str, step: Step) -> Step:
    def renamed(value: Any) -> Any:
        if isinstance(value, Ref):
            return Ref(f"{name}.{value.step}", value.field)
        if isinstance(value, Mapping):
            return {key: renamed(item) for key, item in value.items()}
        return [renamed(item) for item in value] if isinstance(value, (list, tuple)) else value

    return attrs.evolve(step, id=f"{name}.{step.id}", parameters=renamed(step.parameters))


def job_of(pipeline: PipelineSpec, step: PipelineStep, outputs: Mapping[str, str]) -> JobSpec:
    """Return the job that a step is, with the outputs of earlier steps filled in."""
    if step.job is not None:
        infrastructure = step.infrastructure or (
            step.job.infrastructure if step.job.infrastructure != LocalJob() else pipeline.infrastructure
        )
        job = attrs.evolve(step.job, infrastructure=infrastructure, name=step.job.name or step.name)
    else:
        job = JobSpec(name=step.name, infrastructure=step.infrastructure or LocalJob(), runtime=_verb(step))
    filled = _filled(job, outputs)
    assert isinstance(filled, JobSpec)
    return filled


def _verb(step: PipelineStep) -> PyTorchDistributedRuntime:
    verb, options = step.verb or "", dict(step.options)
    words: list[str] = []
    for key in POSITIONAL.get(verb, ()):
        value = options.pop(key, ())
        words += [str(item) for item in (value if isinstance(value, (list, tuple)) else (value,))]
    for key, value in options.items():
        flag = "--" + re.sub(r"(?<!^)([A-Z])", r"-\1", key).lower()
        if value is True:
            words.append(flag)
        elif value is not False and value is not None:
            words += [
                word for item in (value if isinstance(value, (list, tuple)) else (value,)) for word in (flag, str(item))
            ]
    # relative paths in the options start where the user stood, not in the node's folder
    return PyTorchDistributedRuntime(
        command=("python", "-m", "cloudtune", verb, *words), processes_per_node=1, working_dir=str(Path.cwd())
    )


def _filled(value: Any, outputs: Mapping[str, str]) -> Any:
    """Return the value with every ``${steps.NAME.outputs}`` replaced."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: outputs.get(match[1], match[0]), value)
    if isinstance(value, Mapping):
        return freeze({_filled(key, outputs): _filled(item, outputs) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(_filled(item, outputs) for item in value)
    if attrs.has(type(value)):
        changed = {field.name: _filled(getattr(value, field.name), outputs) for field in attrs.fields(type(value))}
        return attrs.evolve(value, **changed)
    return value


# --- submit


def start_pipeline(pipeline: PipelineSpec, *, store: Store | None = None, progress: Progress | None = None) -> Run:
    """Submit the pipeline as a new run; its steps run one after the other, driven by a process of their own."""
    store = store or Store()
    run_id = new_run_id()
    plan = plan_pipeline(pipeline, run_id)
    faults = [Fault(path=note.path, message=note.reason) for note in plan.refused]
    faults += [Fault(path=n.path, message=n.message) for n in plan.warnings if "is a placeholder" in n.message]
    if faults:
        raise SpecError(faults)
    now = time.time()
    store.add_run(
        Record(
            id=run_id,
            name=plan.name,
            backend=plan.backend,
            state="pending",
            created=now,
            updated=now,
            spec=dumps(_without_secrets(pipeline)),
            plan=plan.to_json(),
        )
    )
    return _conduct(run_id, plan.name, _secret_values(pipeline), store, progress)


def resume_pipeline(run: Run, *, pipeline: PipelineSpec | None = None, progress: Progress | None = None) -> Run:
    """Continue a pipeline where it stopped: steps that succeeded are not run again."""
    assert run.record is not None
    status = run.status
    if status.state == "succeeded" or not status.finished:
        return run
    client = ProcessClient()
    client.send(Call(service="process", operation="reset", parameters={"runId": run.id}))
    store = run.store
    for step in ("pipeline.stage", "pipeline.run"):
        store.write_journal(run.id, step, "undone")
    store.update_run(run.id, state="pending", reason=None, failure=None)
    return _conduct(run.id, run.name, _secret_values(pipeline) if pipeline else {}, store, progress)


def _conduct(run_id: str, name: str, secrets: Mapping[str, str], store: Store, progress: Progress | None) -> Run:
    steps = _conductor_steps(run_id, {key: mask(key, value) for key, value in secrets.items()})
    plan = Plan(name=name, run_id=run_id, backend="local", steps=steps)
    submit(plan, ProcessClient(), RunJournal(store, run_id), progress=progress)
    handle = Handle(backend="local", kind="pipeline", id=run_id)
    store.update_run(run_id, handle=handle.uri, state="starting")
    return run_of(store.run(run_id), store)


def _without_secrets(pipeline: PipelineSpec) -> PipelineSpec:
    steps = tuple(
        attrs.evolve(step, job=without_secrets(step.job)) if step.job is not None else step for step in pipeline.steps
    )
    return attrs.evolve(pipeline, steps=steps)


def _secret_values(pipeline: PipelineSpec) -> dict[str, str]:
    """Return the literal secrets of all jobs, which reach the steps by the conductor's environment only."""
    values: dict[str, str] = {}
    for step in pipeline.steps:
        if step.job is None or step.job.runtime is None or without_secrets(step.job) == step.job:
            continue
        kept = {variable.name for variable in without_secrets(step.job).runtime.env if variable.value is not None}  # type: ignore[union-attr]
        for variable in step.job.runtime.env:
            if variable.value is None or variable.name in kept:
                continue
            if values.setdefault(variable.name, variable.value) != variable.value:
                raise UsageError(
                    f"two steps give different literal values to {variable.name}",
                    hint="write them as references: {name: ..., secret: REF}",
                )
    return values


# --- conduct


def conduct(run_id: str, store: Store, stopping: Callable[[], bool]) -> Status:
    """Run the steps of a recorded pipeline in order and return how it ended; called by the conductor process."""
    pipeline = load_document(store.run(run_id).spec or "")
    assert isinstance(pipeline, PipelineSpec)
    outputs: dict[str, str] = {}
    for step in order_of_steps(pipeline):
        if stopping():
            return Status(state="cancelled", reason=f"cancelled before step {step.name}")
        run = _step_run(pipeline, step, run_id, outputs, store)
        status = _end_of(run, stopping)
        if status.state != "succeeded":
            state = status.state if status.state == "cancelled" else "failed"
            return Status(
                state=state,
                reason=f"step {step.name} {status.state}: {status.failure or status.reason}",
                failure=status.failure,
            )
        outputs[step.name] = (run.outputs() or ("",))[0]
    return Status(state="succeeded", outputs=tuple(uri for uri in outputs.values() if uri))


def _step_run(pipeline: PipelineSpec, step: PipelineStep, run_id: str, outputs: Mapping[str, str], store: Store) -> Run:
    """Return the step's run: the one that is there, unless it ended badly; else a new one."""
    identity, attempt = f"{run_id}-{step.name}", 1
    while (record := store.find(identity)) is not None and record.id == identity:
        run = run_of(record, store)
        if run.handle is None and not run.status.finished:
            return resume(identity, store=store)
        if not run.status.finished or run.state == "succeeded":
            return run
        attempt += 1
        identity = f"{run_id}-{step.name}-{attempt}"
    return start(job_of(pipeline, step, outputs), store=store, run_id=identity, parent=run_id)


def _end_of(run: Run, stopping: Callable[[], bool]) -> Status:
    pause = 0.05
    while not (status := run.status).finished:
        if stopping():
            return run.cancel()
        time.sleep(pause)
        pause = min(pause * 1.3, 0.5)
    return status
