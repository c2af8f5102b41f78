"""Where models are filed: one file a registry, and one row of :data:`REGISTRIES` as the lazy import."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.store import Model, Store
from cloudtune.uri import scheme_of

REGISTRIES = {
    "folder": "cloudtune.registries.folder",
    "hub": "cloudtune.registries.hub",
    "oci": "cloudtune.registries.oci",
    "bedrock": "cloudtune.registries.bedrock",
    "sagemaker": "cloudtune.registries.sagemaker",
}
#: Registries of clouds, which have to know whose a model is.
CLOUDS = frozenset({"oci", "bedrock", "sagemaker"})
#: Registries whose models are deleted by themselves, by the scheme of their URIs.
_SCHEMES = {"oci-model": "oci", "bedrock-model": "bedrock", "sagemaker-package": "sagemaker"}


def register(
    model: str,
    *,
    to: str,
    name: str,
    version: str | None = None,
    public: bool = False,
    infrastructure: str | None = None,
    store: Store,
    progress: Callable[[str], object] | None = None,
) -> Model:
    """File a model and keep its record; raises UsageError for an unknown registry, or what it has no use for."""
    module = REGISTRIES.get(to)
    if module is None:
        raise UsageError(f"there is no registry {to!r}", hint=f"registries of this release: {', '.join(REGISTRIES)}")
    if infrastructure is not None and to not in CLOUDS:
        raise UsageError(
            "--infrastructure is for clouds", hint=f"leave it out, or add --to {' or '.join(sorted(CLOUDS))}"
        )
    if public and to in CLOUDS:
        raise UsageError("--public is for the Hub; a cloud has rights of its own", hint="leave --public out")
    options: dict[str, Any] = {"public": public}
    if to in CLOUDS:
        options = {"infrastructure": infrastructure, "progress": progress}
    record: Model = import_module(module).register(model, name=name, version=version, home=store.folder, **options)
    if infrastructure is not None:
        # a file by its whole path: who deploys the model may stand elsewhere
        named = os.path.abspath(infrastructure) if os.path.isfile(infrastructure) else infrastructure  # noqa: PTH100, PTH113
        record = attrs.evolve(record, details={**record.details, "infrastructure": named})
    store.add_model(record)
    return record


def remove(model: Model, store: Store, *, files: bool) -> None:
    """Forget a model; its files go only if asked, and may be gone already.

    Raises:
        UsageError: the files are on the Hub, where others may use them and a version shares its repository.
    """
    if files and scheme_of(model.uri) == "hf":
        hint = f"leave --outputs out to forget the record only; to end all its versions: hf repos delete {model.name}"
        raise UsageError(f"what is filed on the Hub is not deleted from here: {model.name}", hint=hint)
    if files and (registry := _SCHEMES.get(scheme_of(model.uri) or "")) is not None:
        import_module(REGISTRIES[registry]).remove(model)
    elif files:
        import_module(REGISTRIES["folder"]).remove(model.uri)
    store.remove_model(model)
