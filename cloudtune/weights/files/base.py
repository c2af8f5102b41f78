"""The base model that a verb is told: a folder, a URI, or a name on the Hub, read where it lies."""

from __future__ import annotations

import os
from pathlib import Path

from cloudtune.errors import CloudtuneError, MissingExtra, UsageError
from cloudtune.uri import local_path, shown
from cloudtune.weights.files.filenames import CONFIG
from cloudtune.weights.files.folder import Folder, folder_at
from cloudtune.weights.files.model import shard_names
from cloudtune.weights.files.origins import is_hub_name


def base_at(base: str, *, weights: bool = True) -> Folder:
    """Return the files of a base model; of one on the Hub, those in the Hub's cache of this machine if they are whole.

    A folder or a URI goes before a name on the Hub. ``weights`` says whether the weights must be there.

    Raises:
        UsageError: there is no model of that name, it has no config, or the Hub does not hand it out.
        ServiceError, NotAllowed: a URI cannot be read.
    """
    path = local_path(base)
    if path is None or path.exists() or base.startswith((".", "/", "~", "file:")) or not is_hub_name(base):
        folder = folder_at(base)
    else:
        folder = _from_hub(base, weights=weights)
    if CONFIG not in folder:
        hint = "name the folder of the model that was trained, or its name on the Hub"
        raise UsageError(f"{shown(base)} is no model: it has no {CONFIG}", hint=hint)
    return folder


def _from_hub(name: str, *, weights: bool) -> Folder:
    cached = _cached(name)
    if cached is not None and _whole(cached):
        return cached
    reason: CloudtuneError | None = None
    try:
        folder = folder_at(f"hf://{name}")
    except MissingExtra:
        raise
    except CloudtuneError as error:
        reason = error
    else:
        if folder.files:
            return folder
    if cached is not None and CONFIG in cached and not weights:
        return cached
    hint = "name a folder with the model; or check the name, accept the licence on its page and set HF_TOKEN"
    said = f": {reason.message}" if reason is not None else ""
    raise UsageError(f"{name} is no folder here, and the Hub does not hand it out{said}", hint=hint) from reason


def _whole(folder: Folder) -> bool:
    try:
        shard_names(folder)
    except UsageError:
        return False
    return CONFIG in folder


def _cached(name: str) -> Folder | None:
    """Return what the Hub's cache has of a model's main revision: https://huggingface.co/docs/huggingface_hub/guides/manage-cache."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    place = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser() / f"models--{name.replace('/', '--')}"
    reference = place / "refs" / "main"
    if not reference.is_file():
        return None
    snapshot = place / "snapshots" / reference.read_text(encoding="utf-8").strip()
    return folder_at(str(snapshot)) if snapshot.is_dir() else None
