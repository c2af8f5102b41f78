"""The verb ``list``: what is there of runs, models and deployments."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, overload

from cloudtune import deployments as deployments_room
from cloudtune import runs
from cloudtune.errors import UsageError
from cloudtune.runs import Run, RunList
from cloudtune.store import Deployment, Model, Store


@overload
def list(  # noqa: A001
    *,
    models: Literal[False] = ...,
    deployments: Literal[False] = ...,
    state: Collection[str] = ...,
    since: float | None = ...,
    name: str | None = ...,
    backend: str | None = ...,
    limit: int | None = ...,
) -> RunList: ...


@overload
def list(  # noqa: A001
    *, models: Literal[True], since: float | None = ..., name: str | None = ..., limit: int | None = ...
) -> tuple[Model, ...]: ...


@overload
def list(  # noqa: A001
    *,
    deployments: Literal[True],
    state: Collection[str] = ...,
    since: float | None = ...,
    name: str | None = ...,
    backend: str | None = ...,
    limit: int | None = ...,
) -> tuple[Deployment, ...]: ...


def list(  # noqa: A001 - the command line's own word
    *,
    models: bool = False,
    deployments: bool = False,
    state: Collection[str] = (),
    since: float | None = None,
    name: str | None = None,
    backend: str | None = None,
    limit: int | None = None,
) -> RunList | tuple[Model, ...] | tuple[Deployment, ...]:
    """Return runs, newest first, with their states brought up to date; or registered models, or deployments."""
    if models and (deployments or state or backend):
        raise UsageError("a list of models can be chosen by since, name and limit only")
    if models:
        return tuple(one for one in Store().models() if _listed(one, since, name))[:limit]
    if deployments:
        found = (one for one in Store().deployments() if _listed(one, since, name) and backend in {None, one.backend})
        return tuple(one for one in found if not state or deployment_state(one) in state)[:limit]
    return runs.runs(state=state, since=since, name=name, backend=backend, limit=limit)


def models(name: str | None = None) -> tuple[Model, ...]:
    """Return the registered models, or the versions of the one of this name, newest first."""
    return Store().models(name)


def filed_by(run: Run) -> tuple[Model, ...]:
    """Return the registered models that a run, or a step of a pipeline, has trained."""
    ids = {run.id, *(step.id for step in run.steps)}
    return tuple(model for model in models() if model.run in ids)


def deployment_state(deployment: Deployment) -> str:
    """Return ``running``, or ``lost`` if nothing answers for it any more."""
    return deployments_room.state_of(deployment)


def _listed(one: Model | Deployment, since: float | None, name: str | None) -> bool:
    return (since is None or one.created >= since) and (name is None or name in one.name)
