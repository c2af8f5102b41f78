"""What a spec reads from object stores and does not write itself: in a rehearsal the user puts it there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cloudtune.pipelines import job_of
from cloudtune.rehearsing.adapting import Spec
from cloudtune.spec.job import JobSpec, PipelineSpec

_STORES = ("s3://", "oci://")
#: Options of verbs that name what is read.
_READ = ("base", "adapter", "checkpoint", "model", "data", "testData")


def needed(spec: Spec, written: Iterable[str]) -> dict[str, str]:
    """Return the places of object stores that are read and not ``written``, each with who reads it first."""
    places = tuple(uri.rstrip("/") for uri in written) if isinstance(spec, PipelineSpec) else ()
    found: dict[str, str] = {}
    for who, uri in _reads(spec):
        if uri.startswith(_STORES) and "${" not in uri and not any(_meet(uri.rstrip("/"), place) for place in places):
            found.setdefault(uri, who)
    return found


def _reads(spec: Spec) -> Iterator[tuple[str, str]]:
    if isinstance(spec, JobSpec):
        yield from ((spec.name or "the job", uri) for uri in _of_job(spec))
        return
    for step in spec.steps:
        yield from ((f"step {step.name}", uri) for uri in _of_job(job_of(spec, step, {})))
        for key in _READ if step.verb is not None else ():
            value: Any = step.options.get(key)
            for one in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(one, str):
                    yield f"step {step.name}", one


def _of_job(job: JobSpec) -> Iterator[str]:
    yield from job.runtime.inputs if job.runtime is not None else ()
    # SageMaker's channels; other infrastructures have none
    for channel in getattr(job.infrastructure, "inputs", ()):
        if channel.uri is not None:
            yield channel.uri


def _meet(uri: str, place: str) -> bool:
    """Whether one of two places is the other, or lies in it."""
    return f"{uri}/".startswith(f"{place}/") or f"{place}/".startswith(f"{uri}/")
