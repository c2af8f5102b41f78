"""Paths on the node: what an option names as one, and what to say where nothing, or something else, lies there."""

import os
from pathlib import Path

CONFIG, ADAPTER = "config.json", "adapter_config.json"


def looks_local(source: str) -> bool:
    """Return whether a source is meant as a path, not as the OWNER/NAME of something on the Hub."""
    return source.startswith((".", "/", "~")) or source.endswith((".jsonl", ".json")) or source.count("/") > 1


def nothing_at(source: str, what: str) -> str:
    """Return what to say of a path at which nothing lies; ``what`` is what the Hub would have in its place.

    >>> print(nothing_at("/none", "a data set"))
    /none: no such file or folder
      hint: look at the path; a data set on the Hub is called OWNER/NAME, other files are fetched by the job's inputs
    """
    if "://" in source:
        hint = "it is not fetched by the recipe: have it fetched by the job's inputs ({URI: path}), and give that path"
    elif Path(source).is_absolute():
        hint = f"look at the path; {what} on the Hub is called OWNER/NAME, other files are fetched by the job's inputs"
    else:
        where = "on the node, in" if "CLOUDTUNE_RUN_ID" in os.environ else "in"
        hint = f"paths are looked up {where} {Path.cwd()}; write the full path"
    return f"{source}: no such file or folder\n  hint: {hint}"


def nearest(folder: Path, name: str) -> Path | None:
    """Return the first folder, at most two floors down, that holds a file of this name."""
    for pattern in (f"*/{name}", f"*/*/{name}"):
        for found in sorted(folder.glob(pattern)):
            return found.parent
    return None


def model_fault(source: str) -> str | None:
    """Return why a model cannot be read from here, or None: it is a model, or something on the Hub."""
    path = Path(source)
    if path.is_file():
        return f"{source}: is a file; give the folder that holds the model ({CONFIG}, weights, tokenizer)"
    if not path.is_dir():
        return nothing_at(source, "a model") if looks_local(source) else None
    if (path / CONFIG).is_file():
        return None
    told = f"{source}: holds no model: no {CONFIG}"
    if inner := nearest(path, CONFIG):
        return f"{told}; one is in {inner}"
    adapter = path if (path / ADAPTER).is_file() else nearest(path, ADAPTER)
    if adapter:
        merge = "merge it with its base model first (cloudtune merge BASE ADAPTER)"
        return f"{told}; {adapter} holds an adapter\n  hint: {merge}"
    return told
