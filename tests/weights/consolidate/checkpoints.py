"""Checkpoints and their bases, made without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.files.model import open_weights
from tests.weights.forging import Saved, halves, save
from tests.weights.making import shard_bytes, write_model

CONFIG = {"model_type": "toy", "torch_dtype": "float32", "tie_word_embeddings": False}
SHAPES = {
    "model.embed_tokens.weight": (37, 4),
    "model.layers.0.mlp.up_proj.weight": (6, 4),
    "model.layers.0.mlp.down_proj.weight": (4, 6),
    "model.layers.10.norm.weight": (7,),
    "model.layers.2.norm.weight": (7,),
    "lm_head.weight": (37, 4),
}


def arrays(shapes=SHAPES, kind=np.float32) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(7)
    return {name: draw.standard_normal(shape).astype(kind) for name, shape in shapes.items()}


def write_checkpoint(folder: Path, values: dict[str, np.ndarray], *, ranks: int = 3, branch: str = "model") -> Path:
    """Write a checkpoint as FSDP does; matrices with ``down`` in their names are cut along both dimensions."""
    tensors = {}
    for name, value in values.items():
        boxes = halves(value.shape, ranks) if value.ndim else [((), ())]
        if "down" in name:
            rows, columns = halves(value.shape, 2, 0), halves(value.shape, 2, 1)
            boxes = [((a[0], b[1]), (n[0], m[1])) for a, n in rows for b, m in columns]
        path = (branch, name) if branch else ()
        tensors[f"{branch}.{name}" if branch else name] = Saved(value, "F32", boxes, path)
    save(folder, tensors)
    return folder


def write_base(folder: Path, values: dict[str, np.ndarray], config=CONFIG, *, shards: int = 1) -> Path:
    held = {name: ("F32", value.shape, value.tobytes()) for name, value in values.items()}
    if shards == 1:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(shard_bytes(held, {"format": "pt"}))
    else:
        names = sorted(held)
        files = {f"model-{i + 1:05}-of-{shards:05}.safetensors": names[i::shards] for i in range(shards)}
        write_model(folder, {file: {name: held[name] for name in group} for file, group in files.items()})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "generation_config.json").write_text("{}")
    (folder / "LICENSE").write_text("as is")
    return folder


def held(place: Path | str, single: str = "model.safetensors") -> dict[str, np.ndarray]:
    """Return the tensors of a model in float32."""
    with open_weights(folder_at(str(place)), single=single) as weights:
        return {name: np.frombuffer(weights.read(name), "<f4").reshape(weights.tensor(name).shape) for name in weights}


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    return found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)


def nothing_written(place: Path) -> bool:
    return not place.exists() and not list(place.parent.glob(f".{place.name}*"))
