"""Checkpoints cut for Trainium, made whole and compared with what was cut; it needs torch."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import torch

from cloudtune.weights.consolidate.checkpoint import Checkpoint
from cloudtune.weights.consolidate.layouts import neuron
from cloudtune.weights.files.assembly import stream
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.files.model import open_weights
from cloudtune.weights.files.parts import Part
from tests.weights.consolidate.layouts.cut_for_neuron import Recipe, write

TYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
GROUPED = {"tp": 8, "heads": 16, "groups": 2, "copies": 4}


def bytes_of(part: Part) -> bytes:
    return b"".join(bytes(block) for piece in part.pieces for block in stream(piece))


def plain(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], bytes]:
    return TYPES[tensor.dtype], tuple(tensor.shape), tensor.contiguous().view(torch.uint8).numpy().tobytes()


def consolidated(folder: Path, *, config: dict | None = None) -> tuple[Checkpoint, dict[str, tuple]]:
    """Return what a folder holds, with the bytes of each tensor."""
    with ExitStack() as opened:
        found = neuron.read(folder_at(str(folder)), opened, config=config or {})
        return found, {name: (part.dtype, part.shape, bytes_of(part)) for name, part in found.tensors.items()}


def check(folder: Path, recipe: Recipe) -> Checkpoint:
    """Write a checkpoint, and compare what comes out of it with what went in."""
    originals = write(folder, recipe)
    assert neuron.recognise(folder_at(str(folder)))
    found, tensors = consolidated(folder)
    assert tensors == {name: plain(tensor) for name, tensor in originals.items()}
    return found


def edit_metadata(shards: Path, change) -> None:
    path = shards / "mp_metadata_pp_rank_0.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def edit_rank(shards: Path, change, rank: int = 1) -> None:
    path = shards / "model" / f"dp_rank_00_tp_rank_{rank:02d}_pp_rank_00.pt"
    torch.save(change(torch.load(path)), path)


def theirs(folder: Path) -> dict[str, tuple]:
    """Return the tensors of the one file that optimum-neuron wrote."""
    place = next(folder.rglob("*.safetensors")).parent
    name = "adapter_model.safetensors" if (place / "adapter_model.safetensors").is_file() else "model.safetensors"
    with open_weights(folder_at(str(place)), single=name) as weights:
        return {one: (weights.tensor(one).dtype, weights.tensor(one).shape, weights.read(one)) for one in weights}
