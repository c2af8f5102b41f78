"""Where a model's config.json comes from: a folder, the configs that come with cloudtune, the Hub's local cache."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from cloudtune.errors import NotAllowed, UsageError

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
#: Configs have some kilobytes; what is larger than this is another file, perhaps one of weights.
_MOST_BYTES = 16 << 20
_JOB = re.compile(rb"^kind: *(?:job|pipeline)\b", re.MULTILINE)


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
        NotAllowed: it may not be read.
    """
    path = Path(folder, os.path.expanduser(source.removeprefix("file://")))  # noqa: PTH111
    if not os.path.exists(path):  # noqa: PTH110 - a name on the Hub may be too long for a path
        return None
    with _told(path):
        if path.is_dir():
            if not (path / CONFIG).is_file():
                raise _no_config(source, path)
            path /= CONFIG
        if not path.is_file():
            return None
        data = _read(path)
    if path.name != CONFIG and _JOB.search(data):
        raise UsageError(f"{source} is a job, and a model is meant here", hint=f"cloudtune estimate -f {source}")
    return parsed(data, str(path))


def cached_config(name: str, *, environ: Mapping[str, str] | None = None) -> Mapping[str, Any] | None:
    """Return the config of a model in the local cache of the Hub, as huggingface_hub lays it out; None if not there."""
    root = cache_folder(os.environ if environ is None else environ) / f"models--{name.replace('/', '--')}"
    commit = root / "refs" / "main"
    if not os.path.isfile(commit):  # noqa: PTH113 - likewise
        return None
    path = root / "snapshots" / commit.read_text(encoding="utf-8").strip() / CONFIG
    with _told(path):
        return parsed(_read(path), str(path)) if path.is_file() else None


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the local cache of the Hub: HF_HUB_CACHE, else ``hub`` in HF_HOME, else in the user's cache folder."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return Path(environ[name]).expanduser()
    if environ.get("HF_HOME"):
        return Path(environ["HF_HOME"]).expanduser() / "hub"
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def check_size(size: int, place: str) -> None:
    """Raise UsageError if a file has more bytes than any config, before it is read."""
    if size > _MOST_BYTES:
        hint = "name the folder of a model, or its config.json"
        raise UsageError(f"{place} has {size / 1e6:.0f} MB, and is no config of a model", hint=hint)


def parsed(data: bytes, place: str) -> Mapping[str, Any]:
    """Return the config that a file holds.

    Raises:
        UsageError: the file holds no JSON object.
    """
    hint = "name the folder of a model, or copy its config.json again"
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place} is no JSON: {error}", hint=hint) from error
    if not isinstance(config, dict):
        raise UsageError(f"{place} holds no config: it is not a JSON object", hint=hint)
    return config


def adapter_meant(place: str, config: Mapping[str, Any]) -> UsageError:
    """Return the error that says of which model an adapter is, by its own config."""
    base, rank = config.get("base_model_name_or_path"), config.get("r")
    name = base if isinstance(base, str) and base.isprintable() and base else "BASE"
    more = f" --lora-rank {rank}" if isinstance(rank, int) and rank > 0 else ""
    hint = f"name the model that it adapts: cloudtune estimate {name} --method lora{more}"
    return UsageError(f"{place} is an adapter: it has no {CONFIG} of its own", hint=hint)


def nothing_known(name: str) -> UsageError:
    """Return the error that says where configs are looked for, with the names most like the one given."""
    if name.endswith((".yaml", ".yml")):
        hint = "a job is named with -f, a model by its folder or its name on the Hub"
        return UsageError(f"there is no file {name}", hint=hint)
    near = difflib.get_close_matches(name.lower(), _known(), n=3, cutoff=0.5)
    names = f"; nearest: {', '.join(_known()[key][0] for key in near)}" if near else ""
    return UsageError(
        f"no config.json is known of {name!r}{names}",
        hint="give a folder or URI with the model's config.json, or fetch it first: hf download NAME config.json",
    )


def _no_config(source: str, folder: Path) -> UsageError:
    """Return the error that says what lies in a folder that holds no model."""
    if (folder / ADAPTER_CONFIG).is_file():
        return adapter_meant(source, parsed(_read(folder / ADAPTER_CONFIG), str(folder / ADAPTER_CONFIG)))
    below = next(iter(sorted(folder.glob(f"*/{CONFIG}"))), next(iter(sorted(folder.glob(f"*/{ADAPTER_CONFIG}"))), None))
    hint = "name the folder of a model, or its name on the Hub"
    return UsageError(
        f"{source} holds no model: no {CONFIG}", hint=f"one is in {below.parent}" if below is not None else hint
    )


def _read(path: Path) -> bytes:
    check_size(path.stat().st_size, str(path))
    return path.read_bytes()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say of a file that cannot be read what to do about it."""
    try:
        yield
    except OSError as error:
        hint = "ask whoever owns it for the right to read it"
        raise NotAllowed(f"{error.filename or path} cannot be read: {error.strerror or error}", hint=hint) from error


@cache
def _known() -> Mapping[str, tuple[str, Mapping[str, Any] | None]]:
    """Return the configs that come with cloudtune, each with its name as written, by its name in lower case."""
    data = json.loads(Path(__file__).with_name("models.json").read_bytes())
    return {name.lower(): (name, row["config"]) for row in data["models"] for name in row["names"]}
