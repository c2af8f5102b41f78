"""Where models answer: one file a place, and one row of :data:`PLACES` as the lazy import."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs

from cloudtune.deployments.pictures import question
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.home import check_name, is_name
from cloudtune.naming import nearest, place_of
from cloudtune.store import Deployment, Model, Store
from cloudtune.uri import local_path, scheme_of, shown

PLACES = {
    "local": "cloudtune.deployments.local",
    "oci": "cloudtune.deployments.oci",
    "sagemaker": "cloudtune.deployments.sagemaker",
}
#: Places of clouds, which have to know the machines, and whose a deployment is.
CLOUDS = frozenset({"oci", "sagemaker"})
#: Registries whose models answer without being deployed, by the scheme of their URIs: name and module.
ANSWERING = {"bedrock-model": ("bedrock", "cloudtune.deployments.bedrock")}


def put_up(
    model: str,
    *,
    to: str,
    name: str | None,
    shape: str | None = None,
    image: str | None = None,
    replicas: int | None = None,
    max_length: int | None = None,
    infrastructure: str | None = None,
    store: Store,
    progress: Callable[[str], object] | None = None,
) -> Deployment:
    """Serve a registered model (``NAME`` or ``NAME:VERSION``) or a folder; returns once it answers.

    The name is taken before anything starts, and what runs is ended again if it cannot be recorded. What a cloud goes
    on with when this is interrupted stays in the record, and the same call again goes on with it.
    """
    place = _place(to)
    chosen = {
        "shape": shape,
        "image": image,
        "replicas": replicas,
        "max_length": max_length,
        "infrastructure": infrastructure,
    }
    _check(to, chosen)
    run: str | None = None
    if to in CLOUDS:
        found, called, run, kept_with = place.find(model, store)
        chosen["infrastructure"] = infrastructure or kept_with  # as it was registered, unless something else is said
    else:
        found, called = _model_folder(model)
    name = name or called
    check_name(name, "name of a deployment")
    reserved = place.reserve(found, name=name, run=run, step=_step(store), **chosen) if to in CLOUDS else None
    earlier = _earlier(to, name, reserved, store)
    if earlier is not None:
        reserved = earlier
    elif reserved is None:
        reserved = place.reserve(found, name=name, directory=_folder(store, name))
    kept = _Kept(
        store,
        Deployment(name=name, backend=to, model=str(found), created=time.time(), details=attrs.asdict(reserved)),
        goes_on=earlier is not None,
    )
    try:
        more = {"keep": kept.keep, "store": store} if to in CLOUDS else {}
        served = place.deploy(reserved, progress=progress, **more)
    except BaseException as error:
        kept.end(error, progress or str)
        raise
    try:
        return kept.keep(served)
    except BaseException:
        if to not in CLOUDS:  # there the record has it
            place.stop(served)
        raise


def _earlier(to: str, name: str, asked: Any, store: Store) -> Any:
    """Return the interrupted try of the same deployment in a cloud; raises UsageError if the name is another one's."""
    for known in store.deployments(name):
        if known.backend == to and to in CLOUDS:
            kept = _place(to).from_details(known.details)
            if _goes_on(kept, asked):
                return kept
        raise UsageError(f"deployment {name} exists already", hint=f"cloudtune delete {name}, or give --name")
    return None


def _goes_on(kept: Any, asked: Any) -> bool:
    """Whether what was kept is the very deployment that is asked for, and not complete, or of the same step.

    A pipeline that was killed before it knew that a step is done asks for it again when it is resumed.
    """
    same_step = kept.step is not None and kept.step == asked.step
    return bool(kept.asked == asked.asked and (same_step or not kept.complete))


def _step(store: Store) -> str | None:
    """Return the step of a pipeline that this is; None outside of one."""
    try:
        record = store.run(os.environ.get("CLOUDTUNE_RUN_ID") or "")
    except CloudtuneError:
        return None
    return f"{record.parent}/{record.step}" if record.parent else None


class _Kept:
    """The record of a deployment while it is made."""

    def __init__(self, store: Store, deployment: Deployment, *, goes_on: bool) -> None:
        self._store, self._deployment, self._goes_on = store, deployment, goes_on
        if not goes_on:
            store.add_deployment(deployment)

    def keep(self, served: Any) -> Deployment:
        """Record what is known by now; None says that there is nothing any more."""
        self._goes_on = served is not None
        if served is not None:
            self._deployment = attrs.evolve(self._deployment, url=served.url or None, details=attrs.asdict(served))
            self._store.replace_deployment(self._deployment)
        return self._deployment

    def end(self, error: BaseException, say: Callable[[str], object]) -> None:
        """Forget what is not there; what a cloud goes on with stays, and the error says so."""
        name = self._deployment.name
        left = f"{name} is kept: deploy it again to go on, or take it down: cloudtune delete {name}"
        if not self._goes_on:
            self._store.remove_deployment(name)
        elif isinstance(error, CloudtuneError):
            error.hint = f"{error.hint}; {left}" if error.hint else left
        else:
            say(f"the cloud goes on; {left}")


def answering(model: Model) -> Deployment | None:
    """Return a registered model as what it can be asked as, without being deployed; None if it must be deployed."""
    backend, _ = ANSWERING.get(scheme_of(model.uri) or "", (None, ""))
    if backend is None:
        return None
    details = {"name": model.name, "uri": model.uri}
    return Deployment(name=model.name, backend=backend, model=model.uri, url=model.uri, details=details)


def state_of(deployment: Deployment) -> str:
    """Return ``starting`` until it answers, ``running``, or ``lost`` if nothing is there; in a cloud what that says."""
    place = _place(deployment.backend)
    if deployment.backend in CLOUDS:
        said: str = place.state(place.from_details(deployment.details))
        return said
    if not place.alive(place.from_details(deployment.details)):
        return "lost"
    return "running" if deployment.url else "starting"


def take_down(deployment: Deployment, store: Store, *, progress: Callable[[str], object] | None = None) -> None:
    """Stop a deployment, also one that is still starting, and forget it and its log; a cloud takes its time for it."""
    place = _place(deployment.backend)
    served = place.from_details(deployment.details)
    if deployment.backend in CLOUDS:
        place.stop(served, progress=progress)
    else:
        place.stop(served)
    if is_name(deployment.name) and _folder(store, deployment.name).is_dir():
        shutil.rmtree(_folder(store, deployment.name))
    store.remove_deployment(deployment.name)


def ask(
    deployment: Deployment,
    prompt: str | None,
    *,
    body: Mapping[str, Any] | None = None,
    image: Sequence[str | os.PathLike[str]] = (),
    show: Callable[[str], object] | None = None,
) -> str:
    """Send a prompt, perhaps with pictures, or a whole request body, and return the answer."""
    if image:
        if prompt is None or body is not None:
            raise UsageError("pictures go with a prompt", hint="a body names its pictures itself")
        body, prompt = question(prompt, image), None
    if deployment.url is None:
        hint = "cloudtune list --deployments tells its state; delete it if it is lost, and deploy it again"
        raise UsageError(f"deployment {deployment.name} does not answer yet", hint=hint)
    place = _who_answers(deployment.backend)
    answer: str = place.invoke(place.from_details(deployment.details), prompt, body=body, show=show)
    return answer


def _folder(store: Store, name: str) -> Path:
    """Return the folder of a deployment's log and caches."""
    return store.folder / "deployments" / name


def _place(to: str) -> Any:
    module = PLACES.get(to)
    if module is None and any(to == name for name, _ in ANSWERING.values()):
        hint = f"cloudtune register MODEL --to {to} --name NAME, then: cloudtune invoke NAME"
        raise UsageError(f"models of {to} answer without being deployed", hint=hint)
    if module is None:
        raise UsageError(f"there is no place {to!r} to deploy to", hint=f"places of this release: {', '.join(PLACES)}")
    return import_module(module)


def _who_answers(backend: str) -> Any:
    modules = {**PLACES, **dict(ANSWERING.values())}
    return import_module(modules[backend]) if backend in modules else _place(backend)


def _check(to: str, chosen: Mapping[str, Any]) -> None:
    """Refuse options that a place has no use for."""
    for option, value in chosen.items():
        if value is not None and to not in CLOUDS:
            flag = f"--{option.replace('_', '-')}"
            raise UsageError(f"{flag} is for clouds; this machine is what it is", hint=f"leave {flag} out")
    for option in ("replicas", "max_length"):
        if chosen[option] is not None and chosen[option] < 1:
            raise UsageError(f"--{option.replace('_', '-')} must be 1 or more", hint="leave it out")


def _model_folder(model: str) -> tuple[Path, str]:
    """Return the folder of a model and a name for its deployment."""
    place = place_of(model, hub=True)
    folder, name = local_path(place), model.partition(":")[0]
    if folder is None:
        known = name.rpartition("/")[2] if place != model else "NAME"
        hint = f"fetch it first: cloudtune register {shown(place)} --name {known}"
        raise UsageError(f"model {shown(model)} is not on this machine", hint=hint)
    if place == model and not (folder / "config.json").is_file():
        raise UsageError(
            f"{model} is neither a registered model nor a folder with a config.json",
            hint=nearest(model),
        )
    return folder, folder.name if place == model else name
