"""Where a model's config.json comes from: a folder, the configs that come with cloudtune, the Hub's local cache."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cloudtune.errors import UsageError

CONFIG = "config.json"


def known_config(name: str) -> Mapping[str, Any] | None:
    """Return the config of a well-known model by its name on the Hub, whatever its case; None for others."""
    return _known().get(name.lower(), (name, None))[1]


def known_names() -> tuple[str, ...]:
    """Return the names of the models whose configs come with cloudtune."""
    return tuple(name for name, _ in _known().values())


def local_config(source: str, *, folder: str | os.PathLike[str] = ".") -> Mapping[str, Any] | None:
    """Return the config of a model in a folder (or of a config.json itself); None where nothing lies.

    Raises:
        UsageError: there is a folder without a config, or the config is none.
    """
    path = Path(folder, os.path.expanduser(source.removeprefix("file://")))  # noqa: PTH111
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise UsageError(f"{source} holds no model: no {CONFIG}")
        path /= CONFIG
    if not path.is_file():
        return None
    return parsed(path.read_bytes(), str(path))


def cached_config(name: str, *, environ: Mapping[str, str] | None = None) -> Mapping[str, Any] | None:
    """Return the config of a model in the local cache of the Hub, as huggingface_hub lays it out; None if not there."""
    root = cache_folder(os.environ if environ is None else environ) / f"models--{name.replace('/', '--')}"
    commit = root / "refs" / "main"
    if not commit.is_file():
        return None
    path = root / "snapshots" / commit.read_text(encoding="utf-8").strip() / CONFIG
    return parsed(path.read_bytes(), str(path)) if path.is_file() else None


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the local cache of the Hub: HF_HUB_CACHE, else ``hub`` in HF_HOME, else in the user's cache folder."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return Path(environ[name]).expanduser()
    if environ.get("HF_HOME"):
        return Path(environ["HF_HOME"]).expanduser() / "hub"
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def parsed(data: bytes, place: str) -> Mapping[str, Any]:
    """Return the config that a file holds.

    Raises:
        UsageError: the file holds no JSON object.
    """
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"{place} holds no config: it is not a JSON object")
    return config


def nothing_known(name: str) -> UsageError:
    """Return the error that says where configs are looked for, with the names most like the one given."""
    near = difflib.get_close_matches(name.lower(), _known(), n=3, cutoff=0.5)
    names = f"; nearest: {', '.join(_known()[key][0] for key in near)}" if near else ""
    return UsageError(
        f"no config.json is known of {name!r}{names}",
        hint="give a folder or URI with the model's config.json, or fetch it first: hf download NAME config.json",
    )


@cache
def _known() -> Mapping[str, tuple[str, Mapping[str, Any] | None]]:
    """Return the configs that come with cloudtune, each with its name as written, by its name in lower case."""
    data = json.loads(Path(__file__).with_name("models.json").read_bytes())
    return {name.lower(): (name, row["config"]) for row in data["models"] for name in row["names"]}
