"""Profiles: infrastructures that a user keeps in a folder, to run the same job elsewhere.

A profile is a YAML file ``NAME.yaml`` in the user's config folder (or in ``$CLOUDTUNE_CONFIG``) that holds one
infrastructure block: ``{kind: infrastructure, type: ..., spec: {...}}``.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

from cloudtune.errors import Fault, SpecError
from cloudtune.spec.checks import check
from cloudtune.spec.convert import Reader
from cloudtune.spec.faults import Faults, Place, nearest, shortened
from cloudtune.spec.files import read_text
from cloudtune.spec.nodes import Node, inner, parse, planted
from cloudtune.spec.place import Infrastructure

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def folder() -> Path:
    """Return the folder of the profiles, which need not exist."""
    if said := os.environ.get("CLOUDTUNE_CONFIG"):
        return Path(said)
    return Path(str(importlib.import_module("platformdirs").user_config_dir("cloudtune")))


def names() -> tuple[str, ...]:
    """Return the names of the user's profiles."""
    found = [*folder().glob("*.yaml"), *folder().glob("*.yml")]
    return tuple(sorted({path.stem for path in found if path.is_file()}))


def load(name: str | os.PathLike[str]) -> Infrastructure:
    """Return the infrastructure of a profile, by its name or by the path of any such file.

    Raises:
        SpecError: there is no such profile, or something is wrong with it.
    """
    faults = Faults()
    node = read(name, faults)
    found = Reader(faults).block(Infrastructure, node, ())
    if isinstance(found, Infrastructure):
        check(found, node, faults)
    faults.check()
    assert isinstance(found, Infrastructure)
    return found


def read(name: str | os.PathLike[str], faults: Faults) -> Node:
    """Return the tree of a profile; ``local`` is this machine where no profile of that name says otherwise."""
    text = os.fspath(name)
    path = _path(text)
    if path is None:
        if text == "local":
            return planted({"kind": "infrastructure", "type": "local"}, faults, Place("--infrastructure local"))
        raise _unknown(text)
    node = parse(read_text(path), faults, str(path))
    # of a whole job or pipeline the infrastructure is meant
    return inner(inner(node, "spec"), "infrastructure") or node


def _path(text: str) -> str | None:
    if _NAME.fullmatch(text):
        for suffix in (".yaml", ".yml"):
            if (path := folder() / f"{text}{suffix}").is_file():
                return str(path)
    is_path = os.sep in text or "/" in text or text.endswith((".yaml", ".yml"))
    return text if is_path or os.path.exists(text) else None  # noqa: PTH110 - also for names that no Path can hold


def _unknown(name: str) -> SpecError:
    known = names()
    files = (f"{name}{suffix}" for suffix in (".yaml", ".yml"))
    beside = next((file for file in files if os.path.isfile(file)), None)  # noqa: PTH113 - as in _path
    guess = beside or nearest(name, (*known, "local"))
    hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join((*known, 'local'))}"
    message = f"no profile {shortened(name)!r} in {folder()}, and no such file"
    return SpecError([Fault(message=message, file="--infrastructure", hint=hint)])
