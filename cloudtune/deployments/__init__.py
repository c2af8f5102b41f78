"""Where models answer: one file a place, and one row of :data:`PLACES` as the lazy import."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.store import Deployment, Store

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
    """Serve a registered model (``NAME`` or ``NAME:VERSION``) or a folder; returns once it answers."""
    place = _place(to)
    if shape is not None and to == "local":
        raise UsageError("--shape is for clouds; this machine is what it is", hint="leave --shape out")
    folder, called = _model_folder(model, store)
    name = name or called
    if any(one.name == name for one in store.deployments(name)):
        raise UsageError(f"deployment {name} exists already", hint=f"cloudtune delete {name}, or give --name")
    directory = store.folder / "deployments" / name
    served = place.deploy(folder, name=name, directory=directory, progress=progress)
    deployment = Deployment(
        name=name, backend=to, model=str(folder), url=served.url, created=time.time(), details=attrs.asdict(served)
    )
    store.add_deployment(deployment)
    return deployment


def state_of(deployment: Deployment) -> str:
    """Return ``running`` or ``lost``."""
    place = _place(deployment.backend)
    return "running" if place.alive(place.from_details(deployment.details)) else "lost"


def take_down(deployment: Deployment, store: Store) -> None:
    """Stop a deployment and forget it."""
    place = _place(deployment.backend)
    place.stop(place.from_details(deployment.details))
    store.remove_deployment(deployment.name)


def ask(
    deployment: Deployment,
    prompt: str | None,
    *,
    body: Mapping[str, Any] | None = None,
    show: Callable[[str], object] | None = None,
) -> str:
    """Send a prompt, or a whole request body, and return the answer."""
    place = _place(deployment.backend)
    answer: str = place.invoke(place.from_details(deployment.details), prompt, body=body, show=show)
    return answer


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
            return Path(known.uri.removeprefix("file://")), name
    folder = Path(model.removeprefix("file://"))
    if (folder / "config.json").is_file():
        return folder.absolute(), folder.name
    raise UsageError(
        f"{model} is neither a registered model nor a folder with a config.json",
        hint="cloudtune list --models shows the registered ones",
    )
