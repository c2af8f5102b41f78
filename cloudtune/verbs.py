"""Every verb of the command line as a function of the same name with the same options."""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from cloudtune import deployments as deployments_room
from cloudtune import examples as ready_made
from cloudtune import jobs, pipelines, registries, runs
from cloudtune.errors import RunNotFound, UsageError
from cloudtune.plan import Plan
from cloudtune.runs import Run, RunList
from cloudtune.spec.document import load
from cloudtune.spec.job import JobSpec, PipelineSpec
from cloudtune.states import LogLine, Status
from cloudtune.store import Deployment, Model, Store
from cloudtune.submit import Progress

Spec = JobSpec | PipelineSpec


def read(
    file: str | os.PathLike[str],
    *,
    set: Sequence[str] = (),  # noqa: A002 - the command line's own word
    env: Sequence[str] = (),
    infrastructure: str | None = None,
    allow_file: Sequence[str] = (),
) -> Spec:
    """Return the job or pipeline of a file, changed as the options say; raises SpecError with all faults."""
    spec = load(file, set=set, env=env, infrastructure=infrastructure)
    return _allowing(spec, allow_file) if allow_file else spec


def plan(spec: Spec) -> Plan:
    """Return what running the job or pipeline would send; offline, without credentials."""
    if isinstance(spec, PipelineSpec):
        return pipelines.plan_pipeline(spec, pipelines.dry_run_id(spec))
    return jobs.plan_job(spec)


def run(
    file: str | os.PathLike[str] | Spec | None = None,
    *,
    set: Sequence[str] = (),  # noqa: A002
    env: Sequence[str] = (),
    infrastructure: str | None = None,
    allow_file: Sequence[str] = (),
    resume: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Submit a job or pipeline, or continue one that stopped, and return the run.

    Raises:
        SpecError: the job cannot run as written; nothing was sent.
        UsageError: neither a file nor a run to continue is given, or a variable is missing in the shell.
    """
    spec: Spec | None
    if file is None or isinstance(file, Spec):
        spec = file
    else:
        spec = read(file, set=set, env=env, infrastructure=infrastructure, allow_file=allow_file)
    if resume is not None:
        found = runs.get(resume)
        if found.is_pipeline:
            return pipelines.resume_pipeline(
                found, pipeline=spec if isinstance(spec, PipelineSpec) else None, progress=progress
            )
        return jobs.resume(found.id, job=spec if isinstance(spec, JobSpec) else None, progress=progress)
    if spec is None:
        raise UsageError("there is nothing to run", hint="name a file: cloudtune run -f job.yaml")
    if isinstance(spec, PipelineSpec):
        return pipelines.start_pipeline(spec, progress=progress)
    return jobs.start(spec, progress=progress)


def watch(run: str, *, show: Callable[[str], object] = print) -> Status:
    """Show every line of every replica until the run has ended, and return how it ended."""
    return runs.get(run).watch(show)


def logs(
    run: str,
    *,
    since: float | None = None,
    tail: int | None = None,
    replica: int | None = None,
    grep: str | None = None,
    follow: bool = False,
) -> Iterator[LogLine]:
    """Yield log lines of a run: after ``since`` (seconds since the epoch), the last ``tail``, of one replica."""
    return runs.get(run).logs(since=since, tail=tail, replica=replica, grep=grep, follow=follow)


def list(  # noqa: A001 - the command line's own word
    *,
    state: Collection[str] = (),
    since: float | None = None,
    name: str | None = None,
    backend: str | None = None,
    limit: int | None = None,
) -> RunList:
    """Return runs, newest first, with their states brought up to date."""
    return runs.runs(state=state, since=since, name=name, backend=backend, limit=limit)


def models(name: str | None = None) -> tuple[Model, ...]:
    """Return the registered models, newest first."""
    return Store().models(name)


def deployments(name: str | None = None) -> tuple[Deployment, ...]:
    """Return the deployments, newest first."""
    return Store().deployments(name)


def status(run: str) -> Run:
    """Return a run by its id, a unique beginning of it, or the place's own id."""
    return runs.get(run)


def cancel(run: str) -> Status:
    """End a run: every process of every node; returns its last state."""
    return runs.get(run).cancel()


def outputs(run: str, *, directory: str | os.PathLike[str] | None = None) -> builtins.list[dict[str, Any]]:
    """Return the files that a run has left, as ``{uri, bytes}``; with a directory, download them into it."""
    from cloudtune import storage

    found: builtins.list[dict[str, Any]] = []
    for uri in runs.get(run).outputs():
        if not storage.exists(uri):
            continue
        found += [{"uri": storage.join(uri, entry.path), "bytes": entry.bytes} for entry in storage.listing(uri)]
        if directory is not None:
            storage.download(uri, Path(directory))
    return found


def delete(what: str, *, outputs: bool = False) -> str:
    """Forget a run, a deployment (it is stopped) or a model ``NAME[:VERSION]``; returns which of them it was."""
    store = Store()
    if any(one.name == what for one in store.deployments(what)):
        deployments_room.take_down(store.deployments(what)[0], store)
        return "deployment"
    name, _, version = what.partition(":")
    versions = [model for model in store.models(name) if not version or model.version == version]
    if versions:
        for model in versions:
            registries.remove(model, store, files=outputs)
        return "model"
    try:
        runs.get(what).delete(outputs=outputs)
    except RunNotFound as error:
        raise RunNotFound(f"there is no run, model or deployment {what}", hint=error.hint) from None
    return "run"


def merge(
    base: str, adapter: Sequence[str], *, output: str | None = None, mode: str = "accurate", name: str | None = None
) -> Any:
    """Merge LoRA adapters into their base model; see :func:`cloudtune.weights.merge.merge`."""
    from cloudtune.weights.merge import merge as merge_weights

    return merge_weights(
        base, [adapter] if isinstance(adapter, str) else builtins.list(adapter), _output(output), mode=mode, name=name
    )


def register(model: str, *, to: str = "folder", name: str, version: str | None = None) -> Model:
    """File a model under a name and a version, with its checksums; returns the record."""
    return registries.register(model, to=to, name=name, version=version, store=Store())


def deploy(
    model: str,
    *,
    to: str = "local",
    name: str | None = None,
    shape: str | None = None,
    progress: Callable[[str], object] | None = None,
) -> Deployment:
    """Serve a model (``NAME[:VERSION]`` of ``register``, or a folder); returns once it answers."""
    return deployments_room.put_up(model, to=to, name=name, shape=shape, store=Store(), progress=progress)


def invoke(
    deployment: str,
    prompt: str | None = None,
    *,
    body: Mapping[str, Any] | None = None,
    show: Callable[[str], object] | None = None,
) -> str:
    """Ask a served model and return its answer; with ``show`` the pieces are handed over as they come."""
    found = Store().deployments(deployment)
    if not found:
        raise RunNotFound(f"there is no deployment {deployment}", hint="cloudtune list --deployments shows all")
    return deployments_room.ask(found[0], prompt, body=body, show=show)


def deployment_state(deployment: Deployment) -> str:
    """Return ``running``, or ``lost`` if nothing answers for it any more."""
    return deployments_room.state_of(deployment)


def kept_plan(run: str) -> dict[str, Any]:
    """Return the plan that a run was submitted with, as JSON data; secrets were masked when it was kept."""
    record = runs.get(run).record
    if record is None or record.plan is None:
        raise UsageError(f"run {run} was not started by cloudtune: its plan is not known")
    plan: dict[str, Any] = json.loads(record.plan)
    return plan


def diff(first: Mapping[str, Any], second: Mapping[str, Any]) -> builtins.list[tuple[str, Any, Any]]:
    """Return every place where two plans (as JSON data) differ, as (path, in the first, in the second)."""
    return builtins.list(_differences("", first, second))


def examples() -> dict[str, str]:
    """Return the ready-made job files by name, with one line on each."""
    return ready_made.summaries()


def init(name: str, *, directory: str | os.PathLike[str] = ".", force: bool = False) -> tuple[Path, ...]:
    """Write a ready-made job file into a folder and return the paths; a file that is there is kept unless ``force``."""
    return ready_made.write(name, Path(directory), force=force)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of job files."""
    from cloudtune.spec.schema import schema as schema_of_files

    return schema_of_files()


def _differences(path: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from _differences(f"{path}.{key}" if path else key, one.get(key), other.get(key))
    elif isinstance(one, builtins.list) and isinstance(other, builtins.list):
        left, right = _by_id(one), _by_id(other)
        for key in dict.fromkeys([*left, *right]):
            yield from _differences(f"{path}[{key}]", left.get(key), right.get(key))
    elif one != other:
        yield path, one, other


def _by_id(items: builtins.list[Any]) -> dict[Any, Any]:
    """Return a list's items by what names them: an id or a path of their own, else their place."""

    def name(index: int, item: Any) -> Any:
        named = item.get("id") or item.get("path") if isinstance(item, Mapping) else None
        return named if named is not None else index

    named = {name(index, item): item for index, item in enumerate(items)}
    return named if len(named) == len(items) else dict(enumerate(items))


def _output(named: str | None) -> str:
    """Return where a verb's result goes: as named, else the outputs of the job that the verb runs in."""
    place = named or os.environ.get("CLOUDTUNE_OUTPUT_DIR")
    if place is None:
        raise UsageError("no place is named for the result", hint="add -o FOLDER_OR_URI")
    return place


def _allowing(spec: Spec, files: Sequence[str]) -> Spec:
    if isinstance(spec, PipelineSpec):
        steps = tuple(step.with_job(_job_allowing(step.job, files)) if step.job else step for step in spec.steps)
        return attrs.evolve(spec, steps=steps)
    return _job_allowing(spec, files)


def _job_allowing(job: JobSpec, files: Sequence[str]) -> JobSpec:
    runtime = job.runtime
    return job if runtime is None else job.with_runtime(runtime.with_allow_files(*runtime.allow_files, *files))
