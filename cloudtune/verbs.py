"""Every verb of the command line as a function of the same name with the same options."""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import attrs

from cloudtune import deployments as deployments_room
from cloudtune import examples as ready_made
from cloudtune import jobs, pipelines, registries, runs
from cloudtune.building import build as build  # noqa: PLC0414 - a verb with a room of its own
from cloudtune.comparison import Comparison, Side
from cloudtune.diagnosis.doctor import doctor as doctor  # noqa: PLC0414 - likewise
from cloudtune.errors import RunNotFound, UsageError
from cloudtune.estimates import estimate as estimate  # noqa: PLC0414 - likewise
from cloudtune.finishing import consolidate as consolidate  # noqa: PLC0414 - likewise
from cloudtune.finishing import merge as merge  # noqa: PLC0414 - likewise
from cloudtune.jobs import Announce
from cloudtune.listing import deployment_state as deployment_state  # noqa: PLC0414 - likewise
from cloudtune.listing import filed_by as filed_by  # noqa: PLC0414 - likewise
from cloudtune.listing import list as list  # noqa: A004, PLC0414 - likewise
from cloudtune.listing import models as models  # noqa: PLC0414 - likewise
from cloudtune.naming import place_of, registered
from cloudtune.plan import Plan
from cloudtune.runs import Run
from cloudtune.spec.document import load, to_dict
from cloudtune.spec.job import JobSpec, PipelineSpec
from cloudtune.states import LogLine, Status
from cloudtune.store import Deployment, Model, Store
from cloudtune.submit import Progress

if TYPE_CHECKING:
    from cloudtune.deletion import Deleted
    from cloudtune.rehearsing.rehearse import Rehearsal
    from cloudtune.weights.checks.findings import Report

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


@overload
def run(
    file: str | os.PathLike[str] | Spec | None = None,
    *,
    set: Sequence[str] = ...,
    env: Sequence[str] = ...,
    infrastructure: str | None = ...,
    allow_file: Sequence[str] = ...,
    resume: str | None = ...,
    dry_run: Literal[False] = ...,
    progress: Progress | None = ...,
    announce: Announce | None = ...,
) -> Run: ...


@overload
def run(
    file: str | os.PathLike[str] | Spec | None = None,
    *,
    set: Sequence[str] = ...,
    env: Sequence[str] = ...,
    infrastructure: str | None = ...,
    allow_file: Sequence[str] = ...,
    dry_run: Literal[True],
) -> Plan: ...


def run(
    file: str | os.PathLike[str] | Spec | None = None,
    *,
    set: Sequence[str] = (),  # noqa: A002
    env: Sequence[str] = (),
    infrastructure: str | None = None,
    allow_file: Sequence[str] = (),
    resume: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> Run | Plan:
    """Submit a job or pipeline, or continue one that stopped, and return the run; with ``dry_run`` return the plan.

    ``announce`` is called with the run's id as soon as it is known, before anything is sent.

    Raises:
        SpecError: the job cannot run as written; nothing was sent.
        UsageError: neither a file nor a run to continue is given, or a variable is missing in the shell.
    """
    spec: Spec | None
    if file is None or isinstance(file, Spec):
        spec = file
    else:
        spec = read(file, set=set, env=env, infrastructure=infrastructure, allow_file=allow_file)
    if resume is not None and not dry_run:
        return _resumed(_run_called(resume), spec, progress, announce)
    if spec is None:
        raise UsageError("there is nothing to run", hint="name a file: cloudtune run -f job.yaml")
    if dry_run:
        return plan(spec)
    if isinstance(spec, PipelineSpec):
        return pipelines.start_pipeline(spec, progress=progress, announce=announce)
    return jobs.start(spec, progress=progress, announce=announce)


def rehearse(
    file: str | os.PathLike[str] | Spec,
    *,
    set: Sequence[str] = (),  # noqa: A002
    env: Sequence[str] = (),
    infrastructure: str | None = None,
    allow_file: Sequence[str] = (),
    nodes: int | None = None,
    processes: int | None = None,
    put: Sequence[str] = (),
    online: bool = False,
    ask: str = "Hello",
    shell: bool = False,
    output: str | os.PathLike[str] | None = None,
    show: Callable[[Run], object] = Run.watch,
    progress: Callable[[str], object] = print,
) -> Rehearsal:
    """Run a job or pipeline against the stand-in of its cloud on this machine, and return what came of it.

    Nothing of the user's credentials is seen there, placeholders for OCIDs and the like get throw-away values, and all
    is taken down at the end. ``nodes`` and ``processes`` (a node) scale it down; ``put`` holds ``URI=PATH`` of data
    that lie in the cloud before; ``online`` lets nodes use the network. Models that are deployed are asked ``ask``.
    With ``output``, files, logs and calls are kept in that folder; with ``shell`` one is opened in the rehearsal at the
    end. ``show`` is given the run once it is on its way.

    Raises:
        SpecError: the job cannot run as written.
        UsageError: there is no stand-in for the cloud, or this machine cannot run nodes of their own.
    """
    from cloudtune.rehearsing.rehearse import rehearse as rehearse_spec

    if not isinstance(file, Spec):
        file = read(file, set=set, env=env, infrastructure=infrastructure, allow_file=allow_file)
    return rehearse_spec(
        file,
        nodes=nodes,
        processes=processes,
        put=put,
        online=online,
        ask=ask,
        shell=shell,
        output=None if output is None else Path(output),
        show=show,
        progress=progress,
    )


def watch(
    run: str,
    *,
    since: float | None = None,
    tail: int | None = None,
    replica: int | None = None,
    grep: str | None = None,
    show: Callable[[str], object] = print,
) -> Status:
    """Show every line of every replica, or those that the options choose, until the end; return how the run ended.

    A run that is not fully submitted has nothing to show: it is said how to continue it.
    """
    found = _run_called(run)
    if not unsubmitted(found):
        for line in found.logs(since=since, tail=tail, replica=replica, grep=grep, follow=True):
            show(runs.label(line) + line.text)
    status = found.status
    why = status.failure or status.reason
    show(f"run {found.id} {status.state}" + (f": {why}" if why else ""))
    if unsubmitted(found):
        show(to_continue(found))
    return status


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
    return _run_called(run).logs(since=since, tail=tail, replica=replica, grep=grep, follow=follow)


def status(run: str) -> Run:
    """Return a run by its id, a unique beginning of it, or the place's own id."""
    return _run_called(run)


def unsubmitted(run: Run) -> bool:
    """Return whether the run was never fully submitted: its submission was cut off, or goes on somewhere else.

    A run that waits in a queue is pending by what its place says, and not by its record.
    """
    return run.record is not None and run.status.state == run.store.run(run.record.id).state == "pending"


def to_continue(run: Run) -> str:
    """Return what to do about a run that was never fully submitted."""
    return f"not fully submitted; {run.to_continue}"


def cancel(run: str) -> Status:
    """End a run: every process of every node; returns its last state."""
    return _run_called(run).cancel()


def outputs(
    run: str, *, directory: str | os.PathLike[str] | None = None, force: bool = False
) -> builtins.list[dict[str, Any]]:
    """Return the files that a run has left, as ``{uri, bytes}``; with a directory, download them into it.

    The steps of a pipeline get a folder each.

    Raises:
        UsageError: a file is there already, and ``force`` is not given; nothing was written.
    """
    from cloudtune import harvest

    found = _run_called(run)
    if directory is not None:
        harvest.download(found, Path(directory), force=force)
    return harvest.files(found)


def delete(
    what: str,
    *,
    outputs: bool = False,
    all_versions: bool = False,
    progress: Callable[[str], object] | None = None,
) -> Deleted:
    """Forget a deployment (it is stopped), a model ``NAME[:VERSION]`` or a run, the first of them that has the name.

    Raises:
        UsageError: the model has several versions, the run has not ended, or another run's outputs lie in its place.
    """
    from cloudtune import deletion

    return deletion.delete(what, _run_called, outputs=outputs, all_versions=all_versions, progress=progress)


def check(
    model: str,
    *,
    for_: str | None = None,
    fast: bool = False,
    load: bool = False,
    generate: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Look for everything that keeps a model from being served: a folder, a URI, or ``NAME[:VERSION]`` of ``register``.

    ``for_`` is the place that it is to go to; see :func:`cloudtune.weights.checks.examine.check`.
    """
    from cloudtune.weights.checks.examine import check as check_model

    return check_model(place_of(model), target=for_, fast=fast, load=load, generate=generate, progress=progress)


def register(
    model: str,
    *,
    to: str = "folder",
    name: str,
    version: str | None = None,
    public: bool = False,
    infrastructure: str | None = None,
    progress: Callable[[str], object] | None = None,
) -> Model:
    """File a model (a folder, a URI or ``NAME[:VERSION]``) under a name and a version; returns the record.

    ``to`` is ``folder``; ``hub`` for the Hugging Face Hub, where ``name`` is ``owner/name`` and only its owner sees the
    model unless it is ``public``; ``oci`` for the model catalog of OCI Data Science, ``sagemaker`` for SageMaker's
    registry, or ``bedrock`` for an import into Amazon Bedrock: there ``infrastructure`` (a profile or a job's file,
    or the ARN of a role) says whose it is. Interrupted, it goes on where it was when it is called again.
    """
    return registries.register(
        model if os.path.exists(model) else place_of(model, hub=True),  # noqa: PTH110 - it may be no path at all
        to=to,
        name=name,
        version=version,
        public=public,
        infrastructure=infrastructure,
        store=Store(),
        progress=progress,
    )


def deploy(
    model: str,
    *,
    to: str = "local",
    name: str | None = None,
    shape: str | None = None,
    image: str | None = None,
    replicas: int | None = None,
    max_length: int | None = None,
    infrastructure: str | None = None,
    progress: Callable[[str], object] | None = None,
) -> Deployment:
    """Serve a model (``NAME[:VERSION]`` of ``register``, or a folder); returns once it answers.

    ``to`` is ``local``, ``oci`` for a model of OCI's catalog, or ``sagemaker`` for one in S3 or SageMaker's registry:
    on machines of a ``shape``, in an ``image`` with vLLM (default: the service's own), with network, role and logs of
    the ``infrastructure`` (default: that of the training). Interrupted, a cloud goes on, and so does the same call
    again.
    """
    return deployments_room.put_up(
        model,
        to=to,
        name=name,
        shape=shape,
        image=image,
        replicas=replicas,
        max_length=max_length,
        infrastructure=infrastructure,
        store=Store(),
        progress=progress,
    )


def invoke(
    deployment: str,
    prompt: str | None = None,
    *,
    body: Mapping[str, Any] | None = None,
    image: Sequence[str | os.PathLike[str]] = (),
    show: Callable[[str], object] | None = None,
) -> str:
    """Ask a served model, or one that was imported into Bedrock, and return its answer.

    With ``show`` the pieces are handed over as they come.

    ``image`` names pictures that the prompt is about; ``body`` is a whole request of OpenAI's chat completions instead.
    """
    found = Store().deployments(deployment)
    model = registered(deployment) if not found else None
    asked = found[0] if found else deployments_room.answering(model) if model is not None else None
    if asked is None:
        raise RunNotFound(f"there is no deployment {deployment}", hint="cloudtune list --deployments shows all")
    return deployments_room.ask(asked, prompt, body=body, image=image, show=show)


def kept_plan(run: str) -> dict[str, Any]:
    """Return the plan that a run was submitted with, as JSON data; secrets were masked when it was kept."""
    record = _run_called(run).record
    if record is None or record.plan is None:
        raise UsageError(f"run {run} was not started by cloudtune: its plan is not known")
    plan: dict[str, Any] = json.loads(record.plan)
    return plan


def diff(*run: str, file: str | os.PathLike[str] | None = None, infrastructure: str | Sequence[str] = ()) -> Comparison:
    """Compare what two runs sent, or what the job of a file would send in two places or more.

    ``infrastructure`` names the places; a single one is compared with the job's own.
    """
    places = (infrastructure,) if isinstance(infrastructure, str) else tuple(infrastructure)
    if file is None and not places and len(run) == 2:
        first, second, *more = (_side_of_run(one) for one in run)
    elif file is not None and not run and places:
        named = (None, *places) if len(places) == 1 else places
        first, second, *more = (_side_of_place(file, place) for place in named)
    else:
        hint = "cloudtune diff RUN RUN, or cloudtune diff -f job.yaml --infrastructure A B"
        raise UsageError("name two runs, or a job and its places", hint=hint)
    return Comparison(first=first, second=second, more=tuple(more))


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


def _run_called(text: str) -> Run:
    """Return a run; one that is not there is answered with the steps of the pipeline that was probably meant."""
    try:
        return runs.get(text)
    except RunNotFound as error:
        parent = Store().find(text.partition("-")[0]) if "-" in text else None
        if parent is not None and text.startswith(f"{parent.id}-"):
            steps = ", ".join(step.id for step in runs.run_of(parent, Store()).steps)
            error.hint = f"its pipeline is {parent.id}" + (f", with the steps {steps}" if steps else "")
        elif named := [record.id for record in Store().runs() if record.name == text]:
            error.hint = f"runs are told by their ids; the newest of that name: {', '.join(named[:3])}"
        raise


def _resumed(found: Run, spec: Spec | None, progress: Progress | None, announce: Announce | None) -> Run:
    in_steps = pipelines.is_pipeline(found)
    if spec is not None and isinstance(spec, PipelineSpec) != in_steps:
        kind = "pipeline" if in_steps else "job"
        raise UsageError(f"run {found.id} is a {kind}, and the file a {spec.kind}", hint="leave the file out")
    if announce is not None:
        announce(found.id)
    if in_steps:
        return pipelines.resume_pipeline(
            found, pipeline=spec if isinstance(spec, PipelineSpec) else None, progress=progress
        )
    return jobs.resume(found.id, job=spec if isinstance(spec, JobSpec) else None, progress=progress)


def _side_of_run(run: str) -> Side:
    found = _run_called(run)
    data = kept_plan(found.id)
    assert found.record is not None
    return Side(name=found.id, plan=data, spec=to_dict(load(found.record.spec or "")))


def _side_of_place(file: str | os.PathLike[str], place: str | None) -> Side:
    spec = read(file, infrastructure=place)
    return Side(name=place or os.fspath(file), plan=plan(spec).to_dict(), spec=to_dict(spec))


def _allowing(spec: Spec, files: Sequence[str]) -> Spec:
    if isinstance(spec, PipelineSpec):
        steps = tuple(step.with_job(_job_allowing(step.job, files)) if step.job else step for step in spec.steps)
        return attrs.evolve(spec, steps=steps)
    return _job_allowing(spec, files)


def _job_allowing(job: JobSpec, files: Sequence[str]) -> JobSpec:
    runtime = job.runtime
    return job if runtime is None else job.with_runtime(runtime.with_allow_files(*runtime.allow_files, *files))
