"""What the parts of a model are called where others read it: in its card and in its record.

Both travel with the model, to registries and to the Hub. So a folder of this machine goes by the end of its path, which
says nothing of how a disk is laid out, and a registered one by its name and version; a model on the Hub goes by its
name there, anything else by its URI, without secrets.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from cloudtune.uri import local_path, shown
from cloudtune.weights.files.folder import Folder

#: What huggingface_hub takes for the name of a repository (validate_repo_id): with or without an owner.
_HUB_NAME = re.compile(r"(?:[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?/)?[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
_MOST_HUB_NAME = 96
#: A model in the Hub's cache: https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
_CACHED = re.compile(r"/models--([^/]+)/snapshots/[^/]+/?$")
#: Names of folders that say nothing of the model in them; the folder above is named with such a one.
_PLAIN = re.compile(
    r"(adapter|base|checkpoints?|data|final|merged|models?|out|outputs?|results?|tmp|checkpoint-\d+"
    r"|pytorch_model_fsdp_\d+|shards|adapter_shards)",
    re.IGNORECASE,
)
_MOST_FOLDERS = 4
#: Where ``register`` files models, by name and version, and the record that it leaves with each.
_SHELVES, _FILED = "models", "model.json"


@attrs.frozen(kw_only=True)
class Origin:
    """A part of a model: ``named`` by the user, ``title`` for others, and its name on the Hub if it is from there."""

    named: str
    title: str
    hub: str | None


def origin(named: str, folder: Folder | None = None) -> Origin:
    """Return what a model or an adapter is called; ``folder`` is where it was found, if it was looked for."""
    hub = _hub_name(folder.uri) if folder is not None else _likely_hub_name(named)
    return Origin(named=shown(named), title=hub or _title(named), hub=hub)


def is_hub_name(text: str) -> bool:
    """Return whether the Hub would take a text for the name of a model, with or without an owner."""
    bad = len(text) > _MOST_HUB_NAME or "--" in text or ".." in text or text.endswith((".git", ".ipynb"))
    return not bad and _HUB_NAME.fullmatch(text) is not None


def same_model(one: str, other: str) -> bool:
    """Return whether two names may be of one model; owner, folders, version and capital letters are passed over."""
    return _ending(one) == _ending(other)


def says_nothing(name: str) -> bool:
    """Return whether a name ends with a word that any model's folder may have."""
    return _PLAIN.fullmatch(_ending(name)) is not None


def _ending(name: str) -> str:
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return re.split("[@:]", last)[0].lower()


def _hub_name(uri: str) -> str | None:
    """Return the name on the Hub of a model that was found there, or in the Hub's cache."""
    if uri.startswith("hf://"):
        name = "/".join(part.partition("@")[0] for part in uri[5:].strip("/").split("/")[:2])
    else:
        cached = _CACHED.search(uri)
        name = cached[1].replace("--", "/") if cached is not None else ""
    return name if is_hub_name(name) else None


def _likely_hub_name(named: str) -> str | None:
    """Return a name that was only read if it must be the Hub's: it has an owner, and there is no such folder."""
    owner, slash, _ = named.partition("/")
    if not slash or not is_hub_name(named) or _PLAIN.fullmatch(owner):
        return None
    path = local_path(named)
    return named if path is not None and not path.exists() else None


def _title(named: str) -> str:
    path = local_path(named)
    if path is None:
        return shown(named).rstrip("/")
    if path.parent.parent.name == _SHELVES and (path / _FILED).is_file():
        return f"{path.parent.name}:{path.name}"
    found: list[str] = []
    while path.name and path != Path.home() and len(found) < _MOST_FOLDERS:
        found.insert(0, path.name)
        if not _PLAIN.fullmatch(path.name):
            break
        path = path.parent
    return "/".join(found) or "model"
