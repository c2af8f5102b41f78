"""A job's file: its faults, what is left to fill in, what the plan doubts or refuses, and files that it names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import attrs

from cloudtune import jobs, pipelines
from cloudtune.code import code_path
from cloudtune.diagnosis.findings import Finding
from cloudtune.errors import CloudtuneError, Fault, SpecError, UsageError
from cloudtune.launch import Launch, launch
from cloudtune.plan import Plan
from cloudtune.spec.document import load
from cloudtune.spec.job import JobSpec, PipelineSpec
from cloudtune.submit import check_shell
from cloudtune.uri import local_path

#: How a plan speaks of what somebody forgot to fill in; a run refuses it.
_PLACEHOLDER = "is a placeholder"


@attrs.frozen(kw_only=True)
class Subject:
    """One job of a file: where it stands, and what it starts; ``launch`` is None if that cannot be said."""

    path: str
    job: JobSpec
    launch: Launch | None

    def at(self, key: str) -> str:
        """Return the YAML path of a key of the job's infrastructure or runtime."""
        return f"{self.path}.{key}"


@attrs.frozen(kw_only=True)
class Document:
    """What a file says: its jobs, and what was found while it was read and planned."""

    subjects: tuple[Subject, ...]
    findings: tuple[Finding, ...]
    models: tuple[tuple[str, str], ...] = ()


def read(
    file: str | os.PathLike[str],
    *,
    set: Sequence[str] = (),  # noqa: A002 - the command line's own word
    env: Sequence[str] = (),
    infrastructure: str | None = None,
    environ: Mapping[str, str],
) -> Document:
    """Read and plan a file; what is wrong with it is among the findings, and nothing is raised for it."""
    try:
        spec = load(file, set=set, env=env, infrastructure=infrastructure)
    except SpecError as error:
        return Document(subjects=(), findings=tuple(_faults(error.faults)))
    subjects = tuple(_subjects(spec))
    return Document(
        subjects=subjects,
        findings=(*_planned(spec, environ), *(one for subject in subjects for one in _files(subject))),
        models=tuple(_bases(spec)),
    )


def _subjects(spec: JobSpec | PipelineSpec) -> Iterator[Subject]:
    if isinstance(spec, JobSpec):
        yield Subject(path="spec", job=spec, launch=_launch(spec))
        return
    for index, step in enumerate(spec.steps):
        if step.job is not None:
            job = pipelines.job_of(spec, step, {})
            yield Subject(path=f"spec.steps[{index}].job", job=job, launch=_launch(job))


def _launch(job: JobSpec) -> Launch | None:
    try:
        return launch(job)
    except CloudtuneError:
        return None  # planning says why


def _bases(spec: JobSpec | PipelineSpec) -> Iterator[tuple[str, str]]:
    """Yield (YAML path, base model) of the verbs that need one."""
    for index, step in enumerate(spec.steps if isinstance(spec, PipelineSpec) else ()):
        base = step.options.get("base")
        if isinstance(base, str):
            yield f"spec.steps[{index}].{step.verb}.base", base


# --- the plan


def _planned(spec: JobSpec | PipelineSpec, environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        plan = _plan(spec)
    except SpecError as error:
        yield from _faults(error.faults)
        return
    except CloudtuneError as error:
        yield Finding(check="job", status="problem", message=error.message, hint=error.hint or "")
        return
    yield from _noted(plan)
    try:
        check_shell(plan, environ)
    except UsageError as error:
        yield Finding(check="job", status="problem", message=error.message, hint=error.hint or "")


def _plan(spec: JobSpec | PipelineSpec) -> Plan:
    if isinstance(spec, PipelineSpec):
        return pipelines.plan_pipeline(spec, pipelines.dry_run_id(spec))
    return jobs.plan_job(spec)


def _noted(plan: Plan) -> Iterator[Finding]:
    """Yield what a plan says of itself; that it can be made is said first."""
    launches = plan.launches or ({"": plan.launch} if plan.launch is not None else {})
    sizes = [
        f"{one.nodes} x {one.processes_per_node} processes on {one.accelerator or 'CPU'}" for one in launches.values()
    ]
    said = f"{plan.name} on {plan.backend} can be planned: {len(plan.steps)} steps"
    yield Finding(check="job", status="ok", message=f"{said}, {', '.join(sizes)}" if sizes else said)
    for note in plan.fields:
        status = "problem" if note.status == "refused" else "warning"
        yield Finding(check="job", status=status, message=note.reason, where=note.path)
    for notice in plan.warnings:
        status = "problem" if _PLACEHOLDER in notice.message else "warning"
        yield Finding(check="job", status=status, message=notice.message, where=notice.path)


def _faults(faults: Sequence[Fault]) -> Iterator[Finding]:
    for fault in faults:
        place = attrs.evolve(fault, message="", hint=None)
        where = str(place).removesuffix(": ").strip()
        yield Finding(check="job", status="problem", message=fault.message, hint=fault.hint or "", where=where)


# --- files


def _files(subject: Subject) -> Iterator[Finding]:
    """Look for files of this machine that the job names; that its code exists is looked at while it is planned."""
    yield from _inputs(subject)
    yield from _inside(subject)


def _inputs(subject: Subject) -> Iterator[Finding]:
    runtime, where = subject.job.runtime, subject.at("runtime.spec.inputs")
    for uri in runtime.inputs if runtime is not None else ():
        path = local_path(uri)
        if path is None or "${" in uri:
            continue
        if subject.job.infrastructure.type != "local":
            hint = "upload it, and name it by its URI: oci://, s3://, https://"
            yield _problem(f"{uri} is a path here, not on nodes", hint, where)
        elif not path.exists():
            yield _problem(f"{uri} does not exist", "relative paths start at the current folder", where)


def _inside(subject: Subject) -> Iterator[Finding]:
    """Look for files that must be in the folder of the code."""
    runtime = subject.job.runtime
    try:
        root = code_path(subject.job)
    except SpecError:
        return  # planning says what is wrong with it
    if (
        runtime is None
        or runtime.type == "container"
        or runtime.recipe is not None
        or root is None
        or not root.is_dir()
    ):
        return
    needs = runtime.dependencies.pip_requirements if runtime.dependencies is not None else None
    named = {"entrypoint": getattr(runtime, "entrypoint", None), "dependencies.pipRequirements": needs}
    start = root / (getattr(runtime, "working_dir", None) or "")
    for key, name in named.items():
        if name and "$" not in name and not (root / name).exists() and not (start / name).exists():
            where = subject.at(f"runtime.spec.{key}")
            yield _problem(f"{name} is not in {root}", "paths start at the folder of the code", where)


def _problem(message: str, hint: str, where: str) -> Finding:
    return Finding(check="files", status="problem", message=message, hint=hint, where=where)
