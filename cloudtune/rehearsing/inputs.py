"""What a spec reads from object stores and claims and does not write itself: in a rehearsal the user puts it there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from cloudtune.launch.sources import reads
from cloudtune.pipelines import job_of
from cloudtune.rehearsing.adapting import Spec
from cloudtune.spec.eks import EKSJob
from cloudtune.spec.job import JobSpec, PipelineSpec

_STORES = ("s3://", "oci://")
#: Options of verbs that name what is read.
_READ = ("base", "adapter", "checkpoint", "model", "data", "testData")


def needed(spec: Spec, written: Iterable[str]) -> dict[str, str]:
    """Return the places that are read and not ``written``, as ``--put`` names them, each with who reads it first."""
    places = tuple(map(_plain, written)) if isinstance(spec, PipelineSpec) else ()
    found: dict[str, str] = {}
    for who, job, named in _reads(spec):
        uri = named if named.startswith(_STORES) else _on_claim(named, job)
        if uri is not None and "${" not in uri and not any(_meet(_plain(named), place) for place in places):
            found.setdefault(uri, who)
    return found


def lacking(spec: Spec, uri: str, who: str) -> str:
    """Return what is said of a place that is :func:`needed` and empty; commands may write anything to a claim."""
    later = isinstance(spec, PipelineSpec) and who != f"step {spec.steps[0].name}"
    unless = " unless an earlier step writes it" if later and uri.startswith("pvc://") else ""
    return f"nothing is at {uri}, which {who} reads{unless}: --put {uri}=PATH puts your data there"


def _reads(spec: Spec) -> Iterator[tuple[str, JobSpec, str]]:
    if isinstance(spec, JobSpec):
        yield from ((spec.name or "the job", spec, named) for named in _of_job(spec))
        return
    for step in spec.steps:
        job = job_of(spec, step, {})
        yield from ((f"step {step.name}", job, named) for named in _of_job(job))
        for key in _READ if step.verb is not None else ():
            value: Any = step.options.get(key)
            for one in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(one, str):
                    yield f"step {step.name}", job, one


def _of_job(job: JobSpec) -> Iterator[str]:
    runtime = job.runtime
    if runtime is not None:
        yield from runtime.inputs
        yield from (named for _, named in reads(runtime))
    # SageMaker's channels; other infrastructures have none
    for channel in getattr(job.infrastructure, "inputs", ()):
        if channel.uri is not None:
            yield channel.uri


def _on_claim(named: str, job: JobSpec) -> str | None:
    """Return where on a claim a path of a job's pods is, None if it is on none."""
    place, path = job.infrastructure, PurePosixPath(_plain(named))
    if not isinstance(place, EKSJob) or ".." in path.parts:
        return None
    above = [one for one in place.volumes if path.is_relative_to(one.mount_path)]
    volume = max(above, key=lambda one: len(PurePosixPath(one.mount_path).parts), default=None)
    if volume is None or volume.claim is None:
        return None
    below = PurePosixPath(volume.sub_path or "") / path.relative_to(volume.mount_path)
    # --put names a path on a claim, never all of it
    return f"pvc://{place.namespace or 'default'}/{volume.claim}/{below}" if below.parts else None


def _plain(place: str) -> str:
    return place.removeprefix("file://").rstrip("/")


def _meet(uri: str, place: str) -> bool:
    """Whether one of two places is the other, or lies in it."""
    return f"{uri}/".startswith(f"{place}/") or f"{place}/".startswith(f"{uri}/")
