"""Where cloudtune keeps what it must remember on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """Return the folder of all that cloudtune keeps: ``$CLOUDTUNE_HOME``, else the user's data folder."""
    named = os.environ.get("CLOUDTUNE_HOME")
    if named:
        return Path(named).expanduser().absolute()
    return Path(platformdirs.user_data_dir("cloudtune"))


def runs_folder() -> Path:
    """Return the folder that holds a folder a run."""
    return home() / "runs"
