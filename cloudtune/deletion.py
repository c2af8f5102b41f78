"""Forgetting deployments, models and runs; what they left goes only when that is asked for, and what stays is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from cloudtune import deployments, harvest, registries
from cloudtune.errors import RunNotFound, UsageError
from cloudtune.runs import Run
from cloudtune.store import Model, Store
from cloudtune.uri import local_path


@attrs.frozen(kw_only=True)
class Deleted:
    """What ``delete`` did: to a ``run``, ``model`` or ``deployment``, where data was removed, and what stays."""

    kind: str
    name: str
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def delete(
    what: str,
    run_called: Callable[[str], Run],
    *,
    outputs: bool,
    all_versions: bool,
    progress: Callable[[str], object] | None = None,
) -> Deleted:
    """Forget the deployment, the model or the run of a name, the first of them that there is.

    Raises:
        UsageError: the model has several versions, the run has not ended, or another run's outputs lie in its place.
    """
    store = Store()
    name, _, version = what.partition(":")
    versions = [model for model in store.models(name) if not version or model.version == version]
    deployed = store.deployments(what)
    if deployed:
        deployments.take_down(deployed[0], store, progress=progress)
        return Deleted(kind="deployment", name=what, kept=tuple(f"model {one.name}:{one.version}" for one in versions))
    if versions:
        return _models(what, versions, store, files=outputs, all_versions=all_versions)
    try:
        found = run_called(what)
    except RunNotFound as error:
        raise RunNotFound(f"there is no run, model or deployment {what}", hint=error.hint) from None
    return _run(found, outputs=outputs)


def model_meant(what: str) -> Model | None:
    """Return the model whose record would be forgotten though no version of it is named; None if it is no such name.

    The same word ends a deployment while there is one: said twice, it means the model.
    """
    store = Store()
    if ":" in what or store.deployments(what):
        return None
    versions = store.models(what)
    return versions[0] if len(versions) == 1 else None  # of several versions one has to be named anyway


def _models(what: str, versions: Sequence[Model], store: Store, *, files: bool, all_versions: bool) -> Deleted:
    if len(versions) > 1 and not all_versions:
        known = ", ".join(model.version for model in versions)
        hint = f"name one of them, such as {what}:{versions[0].version}, or add --all-versions"
        raise UsageError(f"model {what} has the versions {known}", hint=hint)
    for model in versions:
        registries.remove(model, store, files=files)
    uris = tuple(model.uri for model in versions)
    return Deleted(kind="model", name=what, removed=uris if files else (), kept=() if files else _still_there(uris))


def _run(found: Run, *, outputs: bool) -> Deleted:
    ended = all(one.status.finished for one in (found, *found.steps))
    places, left = found.outputs(), found.left()
    removed = harvest.remove(found) if outputs and ended else ()
    found.delete(outputs=outputs)
    kept = (*left, *(() if outputs else _still_there(places)))
    return Deleted(kind="run", name=found.id, removed=removed, kept=kept)


def _still_there(uris: Sequence[str]) -> tuple[str, ...]:
    """Return the places that are elsewhere, or on this machine and not gone."""
    return tuple(uri for uri in uris if (path := local_path(uri)) is None or path.exists())
