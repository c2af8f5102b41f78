"""The recipes' own modules, which import each other by their plain names, as on a node."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import cloudtune

RECIPES = Path(cloudtune.__file__).parent / "recipes"


def module(recipe: str, name: str) -> ModuleType:
    """Return a module of a recipe, found as Python finds it beside the script that runs."""
    folder = str(RECIPES / recipe)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)
