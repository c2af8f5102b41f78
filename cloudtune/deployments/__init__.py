"""Where models answer: one file a place, and one row of :data:`PLACES` as the lazy import."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.home import check_name, is_name
from cloudtune.store import Deployment, Store
from cloudtune.uri import local_path

PLACES = {"local": "cloudtune.deployments.local"}


def put_up(
    model: str,
    *,
    to: str,
    name: str | None,
    shape: str | None,
    store: Store,
    progress: Callable[[str], object] | None = None,
) -> Deployment:
    """Serve a registered model (``NAME`` or ``NAME:VERSION``) or a folder; returns once it answers.

    The name is taken before anything starts, and what runs is ended again if it cannot be recorded.
    """
    place = _place(to)
    if shape is not None and to == "local":
        raise UsageError("--shape is for clouds; this machine is what it is", hint="leave --shape out")
    folder, called = _model_folder(model, store)
    name = name or called
    check_name(name, "name of a deployment")
    if store.deployments(name):
        raise UsageError(f"deployment {name} exists already", hint=f"cloudtune delete {name}, or give --name")
    reserved = place.reserve(folder, name=name, directory=_folder(store, name))
    deployment = Deployment(
        name=name, backend=to, model=str(folder), created=time.time(), details=attrs.asdict(reserved)
    )
    store.add_deployment(deployment)
    try:
        served = place.deploy(reserved, progress=progress)
    except BaseException:
        store.remove_deployment(name)
        raise
    deployment = attrs.evolve(deployment, url=served.url, details=attrs.asdict(served))
    try:
        store.remove_deployment(name)
        store.add_deployment(deployment)
    except BaseException:
        place.stop(served)
        raise
    return deployment


def state_of(deployment: Deployment) -> str:
    """Return ``starting`` until it answers, ``running``, or ``lost`` if nothing is there any more."""
    place = _place(deployment.backend)
    if not place.alive(place.from_details(deployment.details)):
        return "lost"
    return "running" if deployment.url else "starting"


def take_down(deployment: Deployment, store: Store) -> None:
    """Stop a deployment, also one that is still starting, and forget it and its log."""
    place = _place(deployment.backend)
    place.stop(place.from_details(deployment.details))
    if is_name(deployment.name) and _folder(store, deployment.name).is_dir():
        shutil.rmtree(_folder(store, deployment.name))
    store.remove_deployment(deployment.name)


def ask(
    deployment: Deployment,
    prompt: str | None,
    *,
    body: Mapping[str, Any] | None = None,
    show: Callable[[str], object] | None = None,
) -> str:
    """Send a prompt, or a whole request body, and return the answer."""
    if deployment.url is None:
        hint = "cloudtune list --deployments tells its state; delete it if it is lost, and deploy it again"
        raise UsageError(f"deployment {deployment.name} does not answer yet", hint=hint)
    place = _place(deployment.backend)
    answer: str = place.invoke(place.from_details(deployment.details), prompt, body=body, show=show)
    return answer


def _folder(store: Store, name: str) -> Path:
    """Return the folder of a deployment's log and caches."""
    return store.folder / "deployments" / name


def _place(to: str) -> Any:
    module = PLACES.get(to)
    if module is None:
        raise UsageError(f"there is no place {to!r} to deploy to", hint=f"places of this release: {', '.join(PLACES)}")
    return import_module(module)


def _model_folder(model: str, store: Store) -> tuple[Path, str]:
    """Return the folder of a model and a name for its deployment."""
    name, _, version = model.partition(":")
    for known in store.models(name):
        if not version or known.version == version:
            folder = local_path(known.uri)
            if folder is None:
                hint = f"fetch it first: cloudtune register {known.uri} --name {name.rpartition('/')[2]}"
                raise UsageError(f"model {name} is not on this machine", hint=hint)
            return folder, name
    folder = Path(model.removeprefix("file://"))
    if (folder / "config.json").is_file():
        return folder.absolute(), folder.absolute().name
    raise UsageError(
        f"{model} is neither a registered model nor a folder with a config.json",
        hint="cloudtune list --models shows the registered ones",
    )
