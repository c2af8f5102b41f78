"""Pipelines: steps in order, each a recorded run; driven by a process of their own, which outlives the terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cloudtune.backends import backend_named, backend_of, load
from cloudtune.errors import CloudtuneError, Fault, UsageError
from cloudtune.jobs import (
    Announce,
    RunJournal,
    ask_beforehand,
    check_ready,
    check_same_files,
    resume,
    send,
    standing_in,
    start,
)
from cloudtune.pipeline_plans import conductor_steps, dry_run_id, is_led, left_by, plan_pipeline
from cloudtune.pipeline_steps import job_of
from cloudtune.places import PATIENCE_S
from cloudtune.plan import Call, Masked, Plan
from cloudtune.runs import Run, client_of, run_of
from cloudtune.spec.document import checked, dumps
from cloudtune.spec.document import load as load_document
from cloudtune.spec.job import PipelineSpec, PipelineStep
from cloudtune.spec.order import order_of_steps
from cloudtune.spec.secrecy import secrets_of_steps, without_secrets
from cloudtune.states import TERMINAL, Handle, Status
from cloudtune.store import Record, Store, new_run_id
from cloudtune.submit import Progress, submit

__all__ = ["conduct", "dry_run_id", "is_pipeline", "job_of", "plan_pipeline", "resume_pipeline", "start_pipeline"]

#: Variables in which the conductor gets a step's literal secrets: this, the step's place in the file, ``_``, the name.
_GIVEN = "CLOUDTUNE_STEP_"
#: Seconds between two looks at whether the pipeline is to end.
_STOP_LOOK_S = 0.2


# --- submit


def start_pipeline(
    pipeline: PipelineSpec,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> Run:
    """Submit the pipeline as a new run; its steps run one after the other, driven by a process of their own.

    Where its place can take all of it as one thing, nobody drives it: the run is that thing.

    Raises:
        SpecError: a step cannot run as written; nothing was recorded.
        UsageError: a variable of a step should be read from the shell and is not set there.
        MissingExtra: packages are not installed that a step's place is reached by; nothing was recorded.
    """
    store, pipeline = store or Store(), checked(pipeline)
    plan = plan_pipeline(pipeline, new_run_id())
    faults = [Fault(path=n.path, message=n.message) for n in plan.warnings if "is a placeholder" in n.message]
    check_ready(plan, faults)
    backend = backend_named("local") if is_led(plan) else backend_of(pipeline.infrastructure.type)
    for kind in {job_of(pipeline, step, {}).infrastructure.type for step in pipeline.steps}:
        load(backend_of(kind).client)  # who lacks a package is told before anything runs
    plan = ask_beforehand(plan, backend)
    handle = Handle(backend="local", kind="pipeline", id=plan.run_id) if is_led(plan) else None
    record = Record(
        id=plan.run_id,
        name=plan.name,
        backend=plan.backend,
        folder=str(Path.cwd()),
        state="pending",
        created=time.time(),
        updated=time.time(),
        handle=handle.uri if handle is not None else None,
        spec=dumps(without_secrets(pipeline)),
        plan=plan.to_json(),
        outputs=() if is_led(plan) else plan.outputs,
    )
    store.add_run(record)
    if announce is not None:
        announce(plan.run_id)
    return (
        _conduct(record, pipeline, store, progress) if is_led(plan) else send(plan, backend, store, progress=progress)
    )


def resume_pipeline(run: Run, *, pipeline: PipelineSpec | None = None, progress: Progress | None = None) -> Run:
    """Continue a pipeline where it stopped: steps that succeeded are not run again.

    ``pipeline`` takes the place of what was recorded, for the steps that are still to run.

    Raises:
        UsageError: the pipeline has succeeded: there is nothing to continue.
    """
    assert run.record is not None
    if not run.is_pipeline:
        return _resume_whole(run.record, pipeline, run, progress)
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


def is_pipeline(run: Run) -> bool:
    """Whether a run is a pipeline: led by a process here, or one thing of its place."""
    return run.is_pipeline or (run.record is not None and bool(run.record.spec) and _kept(run.record) is not None)


def _kept(record: Record) -> PipelineSpec | None:
    spec = load_document(record.spec or "")
    return spec if isinstance(spec, PipelineSpec) else None


def _resume_whole(record: Record, pipeline: PipelineSpec | None, run: Run, progress: Progress | None) -> Run:
    """Continue the submission of a pipeline that is one thing of its place, if it was cut off."""
    state = run.status.state
    if state in TERMINAL:
        raise UsageError(f"pipeline {run.id} has ended as {state}: it is run as a whole", hint="submit it as a new run")
    kept = _kept(record)
    assert kept is not None
    if state != "pending" or run.store.run(run.id).state != "pending":  # it may wait in a queue of its place
        return run
    if pipeline is not None and dumps(without_secrets(checked(pipeline))) != record.spec:
        raise UsageError(f"the pipeline is not the one that run {run.id} began with", hint="submit it as a new run")
    with standing_in(record.folder):
        plan = plan_pipeline(pipeline or kept, run.id)
    check_same_files(record, plan, run.store)
    return send(plan, backend_named(record.backend), run.store, progress=progress)


def _conduct(record: Record, pipeline: PipelineSpec | None, store: Store, progress: Progress | None) -> Run:
    values = _secret_values(pipeline) if pipeline is not None else {}
    steps = conductor_steps(record.id, {name: Masked(name, value) for name, value in values.items()})
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
        outputs[step.name] = left_by(step, run.outputs()) or ""
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
    """Wait for the end of a step, or end it; a place that cannot be asked for a while is no reason to give it up."""
    pause, most_s, since_s = 0.05, run.look_s[1], time.monotonic()
    while True:
        stopped = stopping()
        try:
            status, since_s = (run.cancel() if stopped else run.status), time.monotonic()
        except CloudtuneError as error:
            if not error.passing or time.monotonic() - since_s >= PATIENCE_S:
                raise
        else:
            if stopped or status.finished:
                return status
        until = time.monotonic() + pause
        while (left := until - time.monotonic()) > 0 and (stopped or not stopping()):
            time.sleep(min(left, _STOP_LOOK_S))
        pause = min(pause * 1.3, most_s)
