"""Which infrastructures have a stand-in, and what one is for the verb; each a file, and a row of :data:`STANDINS`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import attrs

from cloudtune.errors import MissingExtra, UsageError
from cloudtune.plan import Plan
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.stage import Stage
from cloudtune.rehearsal.state import Change
from cloudtune.rehearsing.adapting import Spec, jobs_of
from cloudtune.spec.document import to_dict
from cloudtune.spec.job import JobSpec, PipelineSpec

#: By type of infrastructure.
STANDINS: Mapping[str, str] = {
    "dataScienceJob": "cloudtune.rehearsing.oci",
    "sageMakerTrainingJob": "cloudtune.rehearsing.sagemaker",
    "eksJob": "cloudtune.rehearsing.eks",
}
#: The extras that stand-in, SDK and nodes need, by the same.
_EXTRAS: Mapping[str, str] = {
    "dataScienceJob": "oci,rehearse",
    "sageMakerTrainingJob": "aws,rehearse",
    "eksJob": "aws,eks,rehearse",
}
#: Stand-ins that bring another's along.
_BRINGS: Mapping[str, str] = {"eksJob": "sageMakerTrainingJob"}
#: By where a verb of a pipeline puts a model; this machine needs none.
_TARGETS: Mapping[str, str] = {
    "oci": "dataScienceJob",
    "sagemaker": "sageMakerTrainingJob",
    "bedrock": "sageMakerTrainingJob",
}
_HERE = frozenset({"local", "folder"})


@attrs.frozen(kw_only=True)
class Left:
    """A file that lies in the rehearsed cloud at the end."""

    uri: str
    bytes: int


@attrs.frozen(kw_only=True)
class Surroundings:
    """What a spec takes for granted in its cloud: every text of it, for whoever looks for names, and what nodes have.

    ``online`` nodes reach the network; others have ``hub_cache``, the user's own models from the Hub. ``jobs`` are
    all of it that runs as one, verbs included, ``manifests`` the objects that it makes on a cluster.
    """

    texts: tuple[str, ...]
    online: bool
    hub_cache: Path | None = None
    jobs: tuple[JobSpec, ...] = ()
    manifests: tuple[Mapping[str, Any], ...] = ()


class StandIn(Protocol):
    """A cloud that has been staged."""

    name: str
    url: str

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which clients find it."""
        ...

    def state(self, change: Change) -> tuple[str, str, str] | None:
        """Return what has changed, if it is something that people follow: kind, name, and the state in words."""
        ...

    def left(self) -> Iterable[Left]:
        """Return the files that lie in it."""
        ...

    def fetch(self, uri: str, target: Path) -> None:
        """Copy one of them."""
        ...

    def place(self, uri: str) -> Path | None:
        """Return where something lies on this machine that no client can write; None for all else."""
        ...


def kinds_of(spec: Spec) -> tuple[str, ...]:
    """Return the types of infrastructure whose clouds are to be staged.

    Raises:
        UsageError: there is no stand-in for one of them, or nothing of the spec goes to a cloud.
    """
    wanted = dict.fromkeys(job.infrastructure.type for job in jobs_of(spec) if job.infrastructure.type != "local")
    for step in spec.steps if isinstance(spec, PipelineSpec) else ():
        to = step.options.get("to") if step.verb is not None else None
        if to is not None and to not in _HERE:
            wanted[_TARGETS.get(to, to)] = None
    missing = [kind for kind in wanted if kind not in STANDINS]
    if missing:
        hint = f"what can be rehearsed: {', '.join(STANDINS)}; cloudtune run --dry-run shows what would be sent"
        raise UsageError(f"there is no stand-in for {', '.join(missing)} in this release", hint=hint)
    if not wanted:
        raise UsageError("nothing of this goes to a cloud: there is nothing to rehearse", hint="cloudtune run -f FILE")
    brought = {_BRINGS.get(kind) for kind in wanted}
    return tuple(kind for kind in wanted if kind not in brought)


def surroundings(spec: Spec, plan: Plan, *, online: bool, hub_cache: Path | None) -> Surroundings:
    """Return what a spec, which has this plan, takes for granted."""
    return Surroundings(
        texts=(json.dumps(to_dict(spec), ensure_ascii=False),),
        online=online,
        hub_cache=None if online else hub_cache,
        jobs=tuple(jobs_of(spec)),
        manifests=tuple(
            step.parameters for step in plan.steps if step.service == "kubernetes" and "kind" in step.parameters
        ),
    )


def stage(kind: str, ground: Stage, identity: Identity, around: Surroundings) -> StandIn:
    """Begin the stand-in of a cloud; MissingExtra, for all that it needs, where a package is not installed."""
    try:
        begun: StandIn = import_module(STANDINS[kind]).begin(ground, identity, around)
    except MissingExtra as error:
        raise MissingExtra(_EXTRAS[kind], f"to rehearse {kind}") from error
    return begun
