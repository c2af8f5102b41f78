"""Pipelines: steps in order, each a recorded run; driven by a process of their own, which outlives the terminal.

A step is a job, or a verb of the command line that runs as a job on this machine. ``${steps.NAME.outputs}`` is filled
in with the place where an earlier step's outputs are.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from cloudtune.backends import BACKENDS, backend_named, backend_of
from cloudtune.code import gather_code
from cloudtune.errors import CloudtuneError, Fault, SpecError, UsageError
from cloudtune.jobs import (
    Announce,
    RunJournal,
    check_ready,
    id_from,
    plan_job,
    resume,
    start,
)
from cloudtune.places import PATIENCE_S
from cloudtune.plan import Call, FieldNote, IfGiven, Masked, Notice, Plan, Ref, Step
from cloudtune.runs import Run, client_of, run_of
from cloudtune.spec.document import checked, dumps
from cloudtune.spec.document import load as load_document
from cloudtune.spec.fields import freeze
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.order import order_of_steps
from cloudtune.spec.placeholders import placeholders, placeholders_in
from cloudtune.spec.runtimes import PyTorchDistributedRuntime, Recipe, Runtime, ScriptRuntime
from cloudtune.spec.secrecy import secrets_of_steps, without_secrets
from cloudtune.states import Handle, Status
from cloudtune.store import Record, Store, new_run_id
from cloudtune.submit import Progress, submit

#: Variables in which the conductor gets a step's literal secrets: this, the step's place in the file, ``_``, the name.
_GIVEN = "CLOUDTUNE_STEP_"
#: Seconds between two looks at whether the pipeline is to end.
_STOP_LOOK_S = 0.2
_REFERENCE = re.compile(r"\$\{steps\.([^.}]+)\.outputs\}")
#: Options of a verb that stand on the command line without a flag, in order.
POSITIONAL = {
    "merge": ("base", "adapter"),
    "consolidate": ("checkpoint",),
    "check": ("model",),
    "register": ("model",),
    "deploy": ("model",),
}
#: Options of verbs that are on unless they are said to be off.
_ON_BY_DEFAULT = frozenset({("merge", "checksums")})
#: Verbs that the command line of this release has, and where each of them can go.
BUILT: dict[str, frozenset[str]] = {
    "prepare": frozenset(),
    "merge": frozenset(),
    "consolidate": frozenset(),
    "check": frozenset(),
    "register": frozenset({"folder", "hub", "oci", "bedrock", "sagemaker"}),
    "deploy": frozenset({"local", "oci", "sagemaker"}),
}


# --- plan


def plan_pipeline(pipeline: PipelineSpec, run_id: str) -> Plan:
    """Return what running the pipeline would send: the steps of its jobs, flattened as ``train.run``."""
    pipeline = checked(pipeline)
    outputs: dict[str, str] = {}
    steps = list(_conductor_steps(run_id, {}))
    launches, fields = {}, []
    warnings: list[Notice] = []
    for step, plan in _plans(pipeline, run_id, outputs):
        left = _left_by(step, plan.outputs)
        if left is not None:
            # a place that names its outputs only later leaves the reference as it is
            outputs[step.name] = left
        if plan.launch is not None:
            launches[step.name] = plan.launch
        steps += [_flattened(step.name, one) for one in plan.steps]
        fields += [attrs.evolve(note, path=_moved(note.path, pipeline, step)) for note in plan.fields]
        warnings += _warnings_of(plan, pipeline, step)
        fields += [attrs.evolve(note, path=f"{_place_of(pipeline, step)}.{note.path}") for note in _unbuilt(step)]
    return Plan(
        name=pipeline.name or "pipeline",
        run_id=run_id,
        backend="local" if isinstance(pipeline.infrastructure, LocalJob) else _backend_name(pipeline),
        launches=launches,
        steps=tuple(steps),
        outputs=tuple(uri for uri in outputs.values() if uri),
        fields=tuple(fields),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _warnings_of(plan: Plan, pipeline: PipelineSpec, step: PipelineStep) -> Iterator[Notice]:
    """Yield what a step's plan warns of; a placeholder that came by a reference is told where it was written."""
    left = {path for path, _ in placeholders(job_of(pipeline, step, {}))}
    for notice in plan.warnings:
        if "is a placeholder" not in notice.message or (
            notice.path in left and (step.verb is None or not notice.path.startswith("spec.runtime."))
        ):
            yield attrs.evolve(notice, path=_moved(notice.path, pipeline, step))
    for path, text in placeholders_in(f"{_place_of(pipeline, step)}.{step.verb}", step.options):
        yield Notice(path=path, message=f"{text!r} is a placeholder: fill it in")


def _plans(pipeline: PipelineSpec, run_id: str, outputs: Mapping[str, str]) -> Iterator[tuple[PipelineStep, Plan]]:
    """Yield the plan of each step, and raise at the end what is wrong with any; ``outputs`` is filled meanwhile."""
    faults: list[Fault] = []
    for step in order_of_steps(pipeline):
        try:
            plan = plan_job(job_of(pipeline, step, outputs), f"{run_id}-{step.name}")
        except SpecError as error:
            faults += _faults_of(error, pipeline, step)
            continue
        yield step, plan
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


def _left_by(step: PipelineStep, outputs: tuple[str, ...]) -> str | None:
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
        if isinstance(value, IfGiven):
            return IfGiven(renamed(value.ref), renamed(value.then), renamed(value.otherwise))
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
        prepares = step.verb == "prepare"
        here = step.infrastructure is None or step.infrastructure.type == "local"
        runtime: Runtime = _prepare(_filled(step.options, outputs), here=here) if prepares else _verb(step)
        job = JobSpec(name=step.name, infrastructure=step.infrastructure or LocalJob(), runtime=runtime)
    filled = _filled(job, outputs)
    assert isinstance(filled, JobSpec)
    return filled


def _prepare(given: Mapping[str, Any], *, here: bool) -> ScriptRuntime:
    """Return the recipe of the verb's name: it can run in a cloud, too, beside the data.

    Data of an object store become inputs of the job, and a file of this machine is named by its whole path.
    """
    options = dict(given)
    if not options.get("data"):
        hint = "a .jsonl file, a folder, an s3:// URI, or the name of a data set on the Hub"
        raise SpecError([Fault(path="spec.runtime.spec.recipe.args.data", message="'data' is missing", hint=hint)])
    output, inputs = options.pop("output", None), {}
    for key in ("data", "testData"):
        value = options.get(key)
        if not isinstance(value, str) or not value or "${" in value:
            continue
        if "://" in value and not value.startswith("file://"):
            options[key] = f"input-{key}/{value.rstrip('/').rpartition('/')[2]}"
            inputs[value] = options[key]
        elif Path(value).exists() and not here:
            message = f"{value} is on this machine, and the step runs elsewhere"
            hint = "upload it and name it by its URI, or leave out the step's infrastructure"
            raise SpecError([Fault(path=f"spec.runtime.spec.recipe.args.{key}", message=message, hint=hint)])
        elif Path(value).exists():
            options[key] = str(Path(value).absolute())
    if isinstance(output, str) and output and "://" not in output:
        output = str(Path(output).absolute())
    return ScriptRuntime(
        recipe=Recipe(name="prepare", args=freeze(options)),
        inputs=freeze(inputs),
        output_uri=output or None,
    )


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
        elif value is False and (verb, key) in _ON_BY_DEFAULT:
            words.append(f"--no-{flag[2:]}")
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


def start_pipeline(
    pipeline: PipelineSpec,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> Run:
    """Submit the pipeline as a new run; its steps run one after the other, driven by a process of their own.

    Raises:
        SpecError: a step cannot run as written; nothing was recorded.
        UsageError: a variable of a step should be read from the shell and is not set there.
    """
    store, pipeline = store or Store(), checked(pipeline)
    plan = plan_pipeline(pipeline, new_run_id())
    faults = [Fault(path=n.path, message=n.message) for n in plan.warnings if "is a placeholder" in n.message]
    check_ready(plan, faults)
    handle = Handle(backend="local", kind="pipeline", id=plan.run_id)
    record = Record(
        id=plan.run_id,
        name=plan.name,
        backend=plan.backend,
        folder=str(Path.cwd()),
        state="pending",
        created=time.time(),
        updated=time.time(),
        handle=handle.uri,
        spec=dumps(without_secrets(pipeline)),
        plan=plan.to_json(),
    )
    store.add_run(record)
    if announce is not None:
        announce(plan.run_id)
    return _conduct(record, pipeline, store, progress)


def resume_pipeline(run: Run, *, pipeline: PipelineSpec | None = None, progress: Progress | None = None) -> Run:
    """Continue a pipeline where it stopped: steps that succeeded are not run again.

    ``pipeline`` takes the place of what was recorded, for the steps that are still to run.

    Raises:
        UsageError: the pipeline has succeeded: there is nothing to continue.
    """
    assert run.record is not None
    state, store = run.status.state, run.store
    if state == "succeeded":
        raise UsageError(
            f"pipeline {run.id} has succeeded: there is nothing to continue", hint="submit it as a new run"
        )
    if state not in {"pending", "failed", "cancelled", "lost"}:
        return run
    if pipeline is not None:
        pipeline = checked(pipeline)
        store.update_run(run.id, spec=dumps(without_secrets(pipeline)))
    reset = Call(service="process", operation="reset", parameters={"runId": run.id})
    client_of(backend_named("local")).send(reset)
    store.forget_journal(run.id)
    store.update_run(run.id, state="pending", reason=None, failure=None)
    return _conduct(run.record, pipeline, store, progress)


def _conduct(record: Record, pipeline: PipelineSpec | None, store: Store, progress: Progress | None) -> Run:
    values = _secret_values(pipeline) if pipeline is not None else {}
    steps = _conductor_steps(record.id, {name: Masked(name, value) for name, value in values.items()})
    plan = Plan(name=record.name, run_id=record.id, backend="local", steps=steps)
    submit(plan, client_of(backend_named("local")), RunJournal(store, record.id), progress=progress)
    assert record.handle is not None
    if not store.settle_submission(record.id, record.handle):
        stop = Call(service="process", operation="stop", parameters={"runId": record.id})
        client_of(backend_named("local")).send(stop)
    return run_of(store.run(record.id), store)


def _secret_values(pipeline: PipelineSpec) -> dict[str, str]:
    """Return the literal secrets of all steps by the name under which the conductor gets them, a name for each step."""
    places = {step.name: index for index, step in enumerate(pipeline.steps)}
    return {
        f"{_GIVEN}{places[step]}_{name}": value
        for step, values in secrets_of_steps(pipeline).items()
        for name, value in values.items()
    }


# --- conduct


def conduct(run_id: str, store: Store, stopping: Callable[[], bool]) -> Status:
    """Run the steps of a recorded pipeline in order and return how it ended; called by the conductor process."""
    record = store.run(run_id)
    pipeline = load_document(record.spec or "")
    assert isinstance(pipeline, PipelineSpec)
    if record.folder is not None:
        os.chdir(record.folder)  # relative paths start where the user stood
    outputs: dict[str, str] = {}
    for step in order_of_steps(pipeline):
        if stopping():
            return Status(state="cancelled", reason=f"cancelled before step {step.name}")
        run = _step_run(pipeline, step, record, outputs, store)
        status = _end_of(run, stopping)
        if status.state != "succeeded":
            state = status.state if status.state == "cancelled" else "failed"
            reason = f"step {step.name} {status.state}: {status.failure or status.reason}"
            return Status(state=state, reason=reason, failure=status.failure)
        outputs[step.name] = _left_by(step, run.outputs()) or ""
    return Status(state="succeeded", outputs=tuple(uri for uri in outputs.values() if uri))


def _step_run(
    pipeline: PipelineSpec, step: PipelineStep, record: Record, outputs: Mapping[str, str], store: Store
) -> Run:
    """Return the step's run: the newest one, unless it ended badly; else a new one."""
    attempts = [one for one in store.runs(parent=record.id) if one.step == step.name]
    prefix = f"{_GIVEN}{pipeline.steps.index(step)}_"
    given = {name.removeprefix(prefix): value for name, value in os.environ.items() if name.startswith(prefix)}
    environ = {**os.environ, **given}
    if attempts:
        run = run_of(attempts[-1], store)
        state = run.status.state
        if state == "pending":
            return resume(run.id, store=store, environ=environ)
        if state not in {"failed", "cancelled", "lost"}:
            return run
    taken = {one.id for one in store.runs(parent=record.id)}
    names = (f"{record.id}-{step.name}" + (f"-{number}" if number else "") for number in (0, *range(2, 10_000)))
    identity = next(name for name in names if name not in taken)
    job = job_of(pipeline, step, outputs)
    return start(job, store=store, run_id=identity, of=record, step=step.name, environ=environ)


def _end_of(run: Run, stopping: Callable[[], bool]) -> Status:
    """Wait for the end of a step; a place that cannot be asked for a while is no reason to give it up."""
    pause, most_s, since_s = 0.05, run.look_s[1], time.monotonic()
    while True:
        try:
            status, since_s = run.status, time.monotonic()
        except CloudtuneError as error:
            if not error.passing or time.monotonic() - since_s >= PATIENCE_S:
                raise
        else:
            if status.finished:
                return status
        if _stopped_within(pause, stopping):
            return run.cancel()
        pause = min(pause * 1.3, most_s)


def _stopped_within(seconds: float, stopping: Callable[[], bool]) -> bool:
    """Wait, and return whether it is to be stopped meanwhile."""
    until = time.monotonic() + seconds
    while not stopping():
        left = until - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, _STOP_LOOK_S))
    return True
