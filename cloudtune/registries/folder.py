"""Models filed in a folder of this machine: ``HOME/models/NAME/VERSION/``, each whole or absent."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from cloudtune import storage
from cloudtune.errors import UsageError
from cloudtune.home import check_name
from cloudtune.registries.source import FILED, find
from cloudtune.registries.workplace import claimed
from cloudtune.store import Model
from cloudtune.uri import absolute, local_path


def register(model: str | Path, *, name: str, version: str | None = None, public: bool = False, home: Path) -> Model:
    """File a model (a folder or URI with a config.json) under a name and a version, by default the next whole number.

    The files are gathered aside, with their checksums compared, and appear all at once. A model from elsewhere whose
    transfer was interrupted is continued by the next call.

    Raises:
        UsageError: there is no model, it is not what its own record says, or the version is taken.
        CloudtuneError: a copied file does not have its source's checksum.
    """
    check_name(name, "name of a model")
    if version is not None:
        check_name(version, "version of a model")
    if public:
        raise UsageError("--public is for the Hub; a folder has the rights of its files", hint="leave --public out")
    shelf = home.absolute() / "models" / name
    if version is not None and (shelf / version).exists():
        raise _taken(name, version)
    source = find(model)
    with claimed(shelf, source) as place:
        sums = place.gather(source)
        while True:
            chosen = version or _next_version(shelf)
            goal = shelf / chosen
            record = Model(
                name=name,
                version=chosen,
                uri=absolute(goal),
                checksums=sums,
                created=time.time(),
                **source.facts,
            )
            _write(place.folder / FILED, record)
            try:
                # a folder that is there and not empty is never replaced, so two users get different versions
                os.rename(place.folder, goal)  # noqa: PTH104 - replace() would overwrite on some systems
            except OSError:
                if not goal.exists():
                    raise
                if version is not None:
                    raise _taken(name, version) from None
                continue
            return record


def remove(uri: str) -> None:
    """Remove the files of a filed model, and the shelf of its name once that is empty; what is gone is fine."""
    storage.remove(uri)
    place = local_path(uri)
    if place is not None:
        try:
            place.parent.rmdir()
        except OSError:  # other versions are there
            pass


def _taken(name: str, version: str) -> UsageError:
    return UsageError(f"model {name} has a version {version} already", hint="leave --version out for the next number")


def _next_version(shelf: Path) -> str:
    taken = [int(path.name) for path in shelf.iterdir() if path.name.isdecimal()]
    return str(max(taken, default=0) + 1)


def _write(path: Path, record: Model) -> None:
    path.write_text(json.dumps(record.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
