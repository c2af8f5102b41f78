"""A spec made fit for a rehearsal: fewer nodes and processes, and throw-away values for what is not filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.launch import launch
from cloudtune.pipelines import job_of
from cloudtune.spec.fields import freeze
from cloudtune.spec.job import JobSpec, PipelineSpec
from cloudtune.spec.placeholders import placeholders

Spec = JobSpec | PipelineSpec

_OCID = re.compile(r"ocid1\.([a-z0-9]+)\.", re.IGNORECASE)
_BRACKETS = re.compile(r"<[A-Za-z][^<>\n]*>")
_NO_NAME = re.compile(r"[^a-z0-9]+")
#: Keys below which a placeholder says what is trained, and with what: nobody can make that up.
_OWN_WORK = re.compile(r"spec\.runtime\.spec\.(?:recipe|command|args|entrypoint|git|scriptPathURI|notebookPathURI)\b")
_ELSEWHERE = re.compile(r"[a-z+]+://(?!/)|[^/\s]+@[^/\s]+:", re.IGNORECASE)
_LOOPBACK = re.compile(r"file://|[a-z+]+://(?:[^/@]*@)?(?:localhost|127\.[0-9.]+|\[::1\])(?:[:/]|$)", re.IGNORECASE)
#: An account of AWS that nobody has.
_ACCOUNT = "111122223333"
#: Infrastructures whose account is one of AWS.
_ON_AWS = frozenset({"sageMakerTrainingJob", "eksJob"})
#: Where the reference to a secret stands, whatever its name.
_SECRET = re.compile(r"\.(?:secret|gitSecretId|git_secret_id)$")


def scaled(spec: Spec, *, nodes: int | None, processes: int | None) -> Spec:
    """Return the spec with so many nodes, and processes on each of them, at most."""

    def smaller(job: JobSpec) -> JobSpec:
        runtime = job.runtime
        if runtime is None or (nodes is None and processes is None):
            return job
        how = launch(job)
        if nodes is not None and how.nodes > nodes:
            runtime = runtime.with_replicas(nodes)
        if processes is not None and how.processes_per_node > processes:
            runtime = runtime.with_processes_per_node(processes)
        return job.with_runtime(runtime)

    return with_jobs(spec, smaller)


def filled_in(spec: Spec, new_ocid: Callable[[str], str]) -> tuple[Spec, Mapping[str, str]]:
    """Return the spec with throw-away values in place of placeholders, and the values by what stood there.

    Only what names the surroundings is made up: OCIDs, buckets, secrets, literal variables. A placeholder in what the
    job is to do stays, and is refused as it is in a run.
    """
    known: dict[str, str] = {}
    for job in jobs_of(spec):
        for path, text in placeholders(job):
            if text not in known and not _OWN_WORK.match(path):
                on_aws = job.infrastructure.type in _ON_AWS
                known[text] = _aws_value(job, path, text) if on_aws else _value(path, text, new_ocid)
    if isinstance(spec, PipelineSpec):
        for text in (text for step in spec.steps for text in _in_uris(step.options)):
            known.setdefault(text, _ACCOUNT if "account" in text.lower() else _slug(text))
    longest_first = sorted(known, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first))) if known else None
    if pattern is None:
        return spec, {}

    def replaced(text: str) -> str:
        return pattern.sub(lambda match: known[match[0]], text)

    filled = _mapped(spec, replaced)
    assert isinstance(filled, (JobSpec, PipelineSpec))
    return filled, known


def offline(spec: Spec) -> tuple[Spec, tuple[str, ...]]:
    """Return the spec without what only a network has, and what takes its place in words.

    Raises:
        UsageError: code comes from a repository on another machine.
    """
    told: list[str] = []

    def apart(job: JobSpec) -> JobSpec:
        runtime = job.runtime
        if runtime is None or job.infrastructure.type == "local":
            return job
        git = getattr(runtime, "git", None)
        url = str(getattr(git, "url", None) or getattr(runtime, "url", None) or "")
        if _ELSEWHERE.match(url) and not _LOOPBACK.match(url):
            hint = "--online lets nodes use the network; or name a clone on this machine: --set ...git.url=FOLDER"
            raise UsageError(f"the code of {job.name or 'the job'} comes from another machine: {url}", hint=hint)
        if runtime.dependencies is not None:
            told.append(f"dependencies of {job.name or 'the job'} -> what this Python has (--online installs them)")
            runtime = runtime.with_dependencies(None)
        return job.with_runtime(runtime)

    return with_jobs(spec, apart), tuple(told)


def with_jobs(spec: Spec, change: Callable[[JobSpec], JobSpec]) -> Spec:
    """Return the spec with every job of it changed; a step's job is shown where it will run."""
    if isinstance(spec, JobSpec):
        return change(spec)
    steps = []
    for step in spec.steps:
        if step.job is None:
            steps.append(step)
            continue
        changed = change(job_of(spec, step, {})).runtime
        steps.append(attrs.evolve(step, job=step.job.with_runtime(changed)))
    return attrs.evolve(spec, steps=tuple(steps))


def jobs_of(spec: Spec) -> Iterator[JobSpec]:
    """Yield the jobs that a spec consists of, verbs included, each with the infrastructure on which it runs."""
    if isinstance(spec, JobSpec):
        yield spec
    else:
        yield from (job_of(spec, step, {}) for step in spec.steps)


def _value(path: str, text: str, new_ocid: Callable[[str], str]) -> str:
    ocid = _OCID.match(text)
    if ocid is not None:
        return new_ocid(ocid[1].lower())
    return new_ocid("vaultsecret") if _SECRET.search(path) else _slug(text)


def _aws_value(job: JobSpec, path: str, text: str) -> str:
    """Return a value as AWS has it: an account's number, an ARN where all of it is to be filled in, else a name."""
    if "account" in text.lower():
        return _ACCOUNT
    if path.endswith(".region"):
        return "us-west-2"
    if text == getattr(job.infrastructure, "role_arn", None):
        return f"arn:aws:iam::{_ACCOUNT}:role/{_slug(text)}"
    variables = job.runtime.env if job.runtime is not None else ()
    if _SECRET.search(path) and any(variable.secret == text for variable in variables):
        if job.infrastructure.type == "eksJob":
            return f"k8s:{_slug(text)}/value"
        return f"arn:aws:secretsmanager:us-west-2:{_ACCOUNT}:secret:{_slug(text)}"
    return _slug(text)


def _slug(text: str) -> str:
    """Return a name for a bucket, or anything else, after the words of its placeholder."""
    return _NO_NAME.sub("-", text.lower()).strip("-")[:60] or "rehearsed"


def _in_uris(value: Any) -> Iterator[str]:
    """Yield the placeholders in URIs and ARNs among the options of a verb, which are no job's."""
    if isinstance(value, str):
        yield from _BRACKETS.findall(value) if "://" in value or value.startswith("arn:") else ()
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _in_uris(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _in_uris(item)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value of the spec with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return freeze({_mapped(key, change): _mapped(item, change) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(_mapped(item, change) for item in value)
    if attrs.has(type(value)):
        fields = {field.name: _mapped(getattr(value, field.name), change) for field in attrs.fields(type(value))}
        return attrs.evolve(value, **fields)
    return value
