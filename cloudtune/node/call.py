"""Calls one function of the user's file, with the arguments that followed it, as Oracle ADS calls an entry function."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def split_arguments(words: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
    """Return positional and keyword arguments: ``--key value`` is a keyword, a last or lone ``--key`` has no value."""
    positional: list[str] = []
    keywords: dict[str, str | None] = {}
    key: str | None = None
    for word in words:
        if len(word) > 2 and word.startswith("--"):
            key = word[2:]
            keywords[key] = None
        elif key is not None:
            keywords[key] = word
            key = None
        else:
            positional.append(word)
    return positional, keywords


def call(file: str, function: str, words: Sequence[str]) -> int:
    """Load a file as a module and call its function; return 0, or 1 if there is no such file or function."""
    path = Path(file).absolute()
    if not path.is_file():
        sys.stderr.write(f"there is no {file} in {Path.cwd()}\n")
        return 1
    step_aside()
    sys.path[:0] = [str(path.parent)]
    sys.path += [folder for folder in (str(Path.cwd()),) if folder not in sys.path]
    sys.argv = [str(path), *words]
    module = _load(path)
    called = getattr(module, function, None)
    if not callable(called):
        known = ", ".join(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))
        sys.stderr.write(f"{file} has no function {function!r}; it has {known or 'none'}\n")
        return 1
    positional, keywords = split_arguments(words)
    called(*positional, **keywords)
    return 0


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # workers that are started afresh import it by this name
    spec.loader.exec_module(module)
    return module


def step_aside() -> None:
    """Take the agent's package off the path, so that ``import cloudtune`` finds what the image has."""
    archive = getattr(globals().get("__loader__"), "archive", None)
    if archive:
        sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != os.path.abspath(archive)]  # noqa: PTH100
        for name in [name for name in sys.modules if name == "cloudtune" or name.startswith("cloudtune.")]:
            del sys.modules[name]
