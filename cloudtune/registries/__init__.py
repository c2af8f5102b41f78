"""Where models are filed: one file a registry, and one row of :data:`REGISTRIES` as the lazy import."""

from __future__ import annotations

from importlib import import_module

from cloudtune.errors import UsageError
from cloudtune.store import Model, Store

REGISTRIES = {"folder": "cloudtune.registries.folder"}


def register(model: str, *, to: str, name: str, version: str | None, store: Store) -> Model:
    """File a model and keep its record; raises UsageError for an unknown registry."""
    module = REGISTRIES.get(to)
    if module is None:
        raise UsageError(f"there is no registry {to!r}", hint=f"registries of this release: {', '.join(REGISTRIES)}")
    record: Model = import_module(module).register(model, name=name, version=version, home=store.folder)
    store.add_model(record)
    return record


def remove(model: Model, store: Store, *, files: bool) -> None:
    """Forget a model; its files go only if asked, and may be gone already."""
    if files:
        import_module(REGISTRIES["folder"]).remove(model.uri)
    store.remove_model(model)
