"""Models of a few bytes, written for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cloudtune.weights.files.safetensors import make_header

#: Tensors by name: type, shape and bytes.
Held = Mapping[str, tuple[str, tuple[int, ...], bytes]]


def shard_bytes(tensors: Held, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file with these tensors."""
    header, _ = make_header([(name, dtype, shape) for name, (dtype, shape, _) in tensors.items()], metadata)
    return header + b"".join(data for _, _, data in tensors.values())


def write_model(folder: Path, shards: Mapping[str, Held]) -> None:
    """Write a model of several files, with the index that they need."""
    folder.mkdir(parents=True)
    for name, tensors in shards.items():
        (folder / name).write_bytes(shard_bytes(tensors))
    table = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
