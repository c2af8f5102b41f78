"""Where models are filed: one file a registry, and one row of :data:`REGISTRIES` as the lazy import."""

from __future__ import annotations

from importlib import import_module

from cloudtune.errors import UsageError
from cloudtune.store import Model, Store
from cloudtune.uri import scheme_of

REGISTRIES = {"folder": "cloudtune.registries.folder", "hub": "cloudtune.registries.hub"}


def register(
    model: str, *, to: str, name: str, version: str | None = None, public: bool = False, store: Store
) -> Model:
    """File a model and keep its record; raises UsageError for an unknown registry."""
    module = REGISTRIES.get(to)
    if module is None:
        raise UsageError(f"there is no registry {to!r}", hint=f"registries of this release: {', '.join(REGISTRIES)}")
    record: Model = import_module(module).register(model, name=name, version=version, public=public, home=store.folder)
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
    if files:
        import_module(REGISTRIES["folder"]).remove(model.uri)
    store.remove_model(model)
