"""Models filed in a folder of this machine: ``HOME/models/NAME/VERSION/``, each whole or absent."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from cloudtune import storage
from cloudtune.checksums import sha256
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.home import check_name
from cloudtune.store import Model
from cloudtune.uri import absolute, local_path

#: The record that lies in every version's folder.
RECORD = "model.json"
_CONFIGS = ("config.json", "adapter_config.json")
#: Large files that nobody edits: a second name for them is as good as a copy.
_LINKED = (".safetensors",)


def register(model: str | Path, *, name: str, version: str | None = None, home: Path) -> Model:
    """File a model (a folder with a config.json) under a name and a version, by default the next whole number.

    Raises:
        UsageError: there is no model, or the version is taken.
        CloudtuneError: a copied file does not have its source's checksum.
    """
    check_name(name, "name of a model")
    if version is not None:
        check_name(version, "version of a model")
    shelf = home.absolute() / "models" / name
    shelf.mkdir(parents=True, exist_ok=True)
    partial = shelf / f".cloudtune-{secrets.token_hex(8)}.part"
    fetched = shelf / f".cloudtune-{secrets.token_hex(8)}.part"
    try:
        source = _model_at(str(model), fetched)
        partial.mkdir(parents=True)
        sums = _copied(source, partial)
        facts = _facts(source)
        while True:
            chosen = version or _next_version(shelf)
            place = shelf / chosen
            record = Model(name=name, version=chosen, uri=absolute(place), checksums=sums, created=time.time(), **facts)
            _write(partial / RECORD, record)
            try:
                # a folder that is there and not empty is never replaced, so two users get different versions
                os.rename(partial, place)  # noqa: PTH104 - replace() would overwrite on some systems
            except OSError:
                if not place.exists():
                    raise
                if version is not None:
                    raise UsageError(
                        f"model {name} has a version {version} already", hint="leave --version out for the next number"
                    ) from None
                continue
            return record
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(fetched, ignore_errors=True)


def remove(uri: str) -> None:
    """Remove the files of a filed model, and the shelf of its name once that is empty; what is gone is fine."""
    storage.remove(uri)
    place = local_path(uri)
    if place is not None:
        try:
            place.parent.rmdir()
        except OSError:  # other versions are there
            pass


def _model_at(named: str, fetched: Path) -> Path:
    """Return the folder of a model, which may lie in ``model/`` below the one that is named; fetch it if need be."""
    folder = local_path(named)
    if folder is None:
        storage.download(named, fetched)
        folder = fetched
    for place in (folder, folder / "model", folder / "adapter"):
        if any((place / name).is_file() for name in _CONFIGS):
            if not any(path.suffix in (".safetensors", ".bin") for path in place.iterdir()):
                raise UsageError(f"{named} has a config but no weights", hint="give the whole folder of the model")
            return place
    if not folder.exists():
        raise UsageError(f"there is no folder {named}", hint="give the folder of a model, such as merge leaves")
    found = next((str(path.parent) for path in sorted(folder.glob("*/config.json"))), None)
    hint = f"one is in {found}" if found else "give the folder of a model, such as merge leaves"
    raise UsageError(f"{named} holds no model: it has no config.json", hint=hint)


def _copied(source: Path, target: Path) -> dict[str, str]:
    """Copy a model's files, verify them, and return their checksums; logs and what is hidden stay behind."""
    sums: dict[str, str] = {}
    for path in sorted(source.iterdir()):
        if not path.is_file() or path.name.startswith(".") or path.name in (RECORD, "training_args.bin"):
            continue
        copy = target / path.name
        sums[path.name] = sha256(path)
        linked = _copy(path.resolve(), copy)
        if not linked and sha256(copy) != sums[path.name]:
            raise CloudtuneError(f"the copy of {path} is not equal to it", hint="check the disk, then register again")
    return sums


def _copy(path: Path, copy: Path) -> bool:
    """Give a file a second name where that can be, else copy it; return whether it is the same file."""
    if path.suffix in _LINKED:
        try:
            os.link(path, copy)
        except OSError:  # another file system, or one without links
            pass
        else:
            return True
    shutil.copy2(path, copy)
    return False


def _next_version(shelf: Path) -> str:
    taken = [int(path.name) for path in shelf.iterdir() if path.name.isdigit()]
    return str(max(taken, default=0) + 1)


def _facts(source: Path) -> dict[str, Any]:
    """Return base, run and metrics as merging or training left them in the folder or one folder up."""
    merged = _json(source / "cloudtune.json")
    training = _json(source / "training.json") or _json(source.parent / "training.json")
    metrics = _json(source / "metrics.json") or _json(source.parent / "metrics.json")
    return {
        "base": merged.get("base") or training.get("base"),
        "run": merged.get("run") or training.get("run"),
        "metrics": merged.get("metrics") or metrics,
    }


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write(path: Path, record: Model) -> None:
    path.write_text(json.dumps(record.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
