"""State dicts that ``torch.save`` wrote whole: FULL_STATE_DICT of FSDP, ``pytorch_model.bin``, or any ``.pt`` file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from cloudtune.errors import UsageError
from cloudtune.ranges import LooseReader
from cloudtune.uri import join
from cloudtune.weights.consolidate.branches import TRAINING_STATE, Path, left_out, model_in
from cloudtune.weights.consolidate.checkpoint import Checkpoint
from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.parts import Part
from cloudtune.weights.files.torchfiles import TorchTensor, read_torch

_INDEX = "pytorch_model.bin.index.json"
#: In this order, whatever else there is.
_KNOWN = ("pytorch_model_fsdp.bin", "pytorch_model.bin", "adapter_model.bin")
_SUFFIXES = (".pt", ".pth", ".bin")
_RANK = re.compile(r"(_rank_?\d+|_\d+_mp_rank_\d+.*|consolidated\.\d+)\.(bin|pt|pth)$|mp_rank_\d+")
_OTHER = re.compile(r"training_args|trainer_state", re.IGNORECASE)
_MAX_DEPTH = 6
_MAX_VALUES = 4 << 20


def recognise(folder: Folder) -> bool:
    """Return whether there are files of torch.save that may be a model."""
    return bool(_candidates(folder)) or _INDEX in folder


def read(folder: Folder, opened: ExitStack, *, config: Mapping[str, Any]) -> Checkpoint:  # noqa: ARG001 - see there
    """Describe the tensors of the model in one file, or those of an index.

    See :mod:`cloudtune.weights.consolidate.verb`.

    Raises:
        UsageError: it is damaged or hostile, one rank's part of a model, or there are several to choose from.
    """
    files = _files(folder)
    saved: dict[Path, TorchTensor] = {}
    for name in files:
        uri = join(folder.uri, name)
        reader = opened.enter_context(LooseReader(uri, folder.files[name]))
        value = read_torch(reader, name=folder.shown(name))
        budget = iter(range(_MAX_VALUES))
        for path, tensor in _tensors(value, (), budget, folder.shown(name)):
            if path in saved:
                raise UsageError(f"{'.'.join(path)} is in two files of {folder.shown()}", hint="copy the whole folder")
            saved[path] = tensor
    chosen = model_in(saved, {path: tensor.shape for path, tensor in saved.items()}, folder.shown(files[0]))
    parts = {}
    for name, tensor in chosen.items():
        try:
            parts[name] = Part(dtype=tensor.dtype, shape=tensor.shape, pieces=(tensor.span(),))
        except ValueError as error:
            hint = "save it once with tensor.contiguous()"
            raise UsageError(f"{name} in {folder.shown()} cannot be copied: {error}", hint=hint) from error
    layout = f"state dict of torch.save in {len(files)} file{'s' if len(files) != 1 else ''}"
    return Checkpoint(layout=layout, tensors=parts, notes=left_out(saved, len(chosen)))


def _candidates(folder: Folder) -> list[str]:
    names = [name for name in folder.files if name.endswith(_SUFFIXES) and "/" not in name]
    return [name for name in names if not TRAINING_STATE.search(name) and not _OTHER.search(name)]


def _files(folder: Folder) -> tuple[str, ...]:
    if _INDEX in folder:
        table = folder.json(_INDEX).get("weight_map")
        if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
            raise UsageError(f"{folder.shown(_INDEX)} has no weight_map", hint="copy it again")
        names = tuple(sorted(set(table.values())))
        missing = next((name for name in names if name not in folder), None)
        if missing is not None:
            raise UsageError(f"{folder.shown(_INDEX)} names {missing}, which is not there", hint="copy all files")
        return names
    found = _candidates(folder)
    ranks = [name for name in found if _RANK.search(name)]
    if ranks:
        hint = "save with SHARDED_STATE_DICT or FULL_STATE_DICT"
        raise UsageError(f"{folder.shown(ranks[0])} is one rank's part, and does not say of what", hint=hint)
    known = next((name for name in _KNOWN if name in found), None)
    if known is None and len(found) > 1:
        raise UsageError(f"{folder.shown()} has {len(found)} files of torch.save", hint=f"name one: {found[0]}")
    return (known or found[0],)


def _tensors(value: Any, path: Path, budget: Iterator[int], shown: str) -> Iterator[tuple[Path, TorchTensor]]:
    """Yield the tensors of a nested dict; other values are passed over."""
    if type(value) is TorchTensor and path:
        yield path, value
    elif type(value) is dict and len(path) < _MAX_DEPTH:
        for key, item in value.items():
            if next(budget, None) is None:
                # the same dict may be named many times
                raise UsageError(f"{shown} holds more than {_MAX_VALUES} values", hint="that is no model")
            if type(key) is str:
                yield from _tensors(item, (*path, key), budget, shown)
