"""Where cloudtune keeps what it must remember on this machine, and what may be called what there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from cloudtune.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def home() -> Path:
    """Return the folder of all that cloudtune keeps: ``$CLOUDTUNE_HOME``, else the user's data folder."""
    named = os.environ.get("CLOUDTUNE_HOME")
    if named:
        return Path(named).expanduser().absolute()
    return Path(platformdirs.user_data_dir("cloudtune"))


def runs_folder() -> Path:
    """Return the folder that holds a folder a run."""
    return home() / "runs"


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a folder that is kept for a model, a version or a deployment."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str, what: str) -> None:
    """Raise UsageError unless a text can be what it is to be, such as ``name of a model``."""
    if not is_name(text):
        hint = "letters, digits, dots, dashes and underscores, beginning with a letter or digit, 100 at most"
        raise UsageError(f"{text!r} cannot be the {what}", hint=hint)
