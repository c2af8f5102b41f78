"""Checkpoints of FSDP, and whatever else PyTorch's distributed checkpoint was told to save.

It lies where accelerate and transformers' Trainer put it (``checkpoint-N/pytorch_model_fsdp_0/``), where llama-recipes
does (``ROOT/FOLDER-MODEL/``, with ``train_params.yaml``), or in a folder of its own. What was saved is a nested dict:
the model is one of its branches, or all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from cloudtune.errors import UsageError
from cloudtune.weights.consolidate.branches import TRAINING_STATE, left_out, model_in
from cloudtune.weights.consolidate.checkpoint import Checkpoint
from cloudtune.weights.consolidate.layouts.distcp import METADATA, SUFFIX, open_parts, read_metadata
from cloudtune.weights.files.folder import Folder

_TRAIN_PARAMS = "train_params.yaml"
_MODEL_NAME = re.compile(r"^model_name:[ \t]*(['\"]?)([^'\"\n#]+)\1[ \t]*$", re.MULTILINE)
_MAX_PARAMS_BYTES = 1 << 20


def recognise(folder: Folder) -> bool:
    """Return whether a folder holds a distributed checkpoint of PyTorch, itself or somewhere below."""
    return any(_is_part(path.rpartition("/")[2]) for path in folder.files)


def read(folder: Folder, opened: ExitStack, *, config: Mapping[str, Any]) -> Checkpoint:  # noqa: ARG001 - see there
    """Describe the tensors of the model in a checkpoint; see :mod:`cloudtune.weights.consolidate.verb`.

    Raises:
        UsageError: there are several, it is damaged, hostile or not finished, or holds flat parameters.
    """
    place = place_of(folder)
    items, others = read_metadata(folder, place)
    saved = {item.path: item for item in items.values()}
    if len(saved) != len(items):
        raise UsageError(f"{folder.shown(place)} has two tensors in one place", hint="copy the checkpoint again")
    chosen = model_in(saved, {path: item.shape for path, item in saved.items()}, folder.shown(place))
    files = {chunk.file for item in chosen.values() for chunk in item.chunks}
    notes = left_out(saved, len(chosen))
    if others:
        notes += (f"{_few(others)} were left out: they are no tensors",)
    return Checkpoint(
        layout=f"PyTorch distributed checkpoint in {len(files)} file{'s' if len(files) != 1 else ''}",
        place=place,
        tensors=open_parts(folder, place, chosen, opened),
        notes=notes,
        base=_trained(folder, place),
    )


def place_of(folder: Folder) -> str:
    """Return where the checkpoint is below a folder: empty, or a path that ends with a slash.

    Raises:
        UsageError: there are several, or there is none that is whole.
    """
    found = [path.removesuffix(METADATA) for path in folder.files if path.rpartition("/")[2] == METADATA]
    models = [place for place in found if not TRAINING_STATE.search(place.rstrip("/").rpartition("/")[2])]
    if "" in models:
        return ""
    if len(models) == 1:
        return models[0]
    if models:
        newest = max(models, key=_natural)
        hint = f"name one of them: {folder.shown(newest)}"
        raise UsageError(f"{folder.shown()} holds {len(models)} checkpoints", hint=hint)
    if found:
        hint = "name the folder of the model, pytorch_model_fsdp_0"
        raise UsageError(f"{folder.shown(found[0])} is the optimizer's state, not the model's", hint=hint)
    hint = "rank 0 writes it when all files are there: the save was cut off, or that file was not copied"
    raise UsageError(f"{folder.shown()} has {SUFFIX} files, but no {METADATA}", hint=hint)


def _is_part(name: str) -> bool:
    return name == METADATA or name.endswith(SUFFIX)


def _natural(text: str) -> list[tuple[int, str]]:
    """Return what sorts texts with numbers in them by the numbers."""
    return [(int(number), "") if number else (-1, word) for number, word in re.findall(r"(\d+)|(\D+)", text)]


def _trained(folder: Folder, place: str) -> str | None:
    """Return the name of the base that llama-recipes left beside the checkpoint."""
    name = f"{place}{_TRAIN_PARAMS}"
    if not 0 < folder.files.get(name, 0) <= _MAX_PARAMS_BYTES:
        return None
    found = _MODEL_NAME.search(folder.read(name).decode("utf-8", "replace"))
    return found[2].strip() if found else None


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
