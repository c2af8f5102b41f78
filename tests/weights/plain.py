"""Models and adapters of a few tensors, written and read without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.files.model import open_weights
from cloudtune.weights.files.rounding import narrow, view, widen
from cloudtune.weights.files.safetensors import make_header

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False}
Q, K = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"
TABLE, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
SHAPES = {
    TABLE: (20, 12),
    f"{Q}.weight": (12, 12),
    f"{K}.weight": (8, 12),
    f"{Q}.bias": (12,),
    NORM: (12,),
    HEAD: (20, 12),
}


def numbers(shape: tuple[int, ...], seed: int = 0, std: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(std)


def write_file(path: Path, tensors: Mapping[str, tuple[str, np.ndarray]]) -> None:
    """Write a safetensors file; each tensor is a type and its numbers, or its bytes in an array of that shape."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header, _ = make_header([(name, dtype, one.shape) for name, (dtype, one) in tensors.items()], {"format": "pt"})
    stored = [narrow(one.astype(np.float32), dtype) if dtype[0] in "BF" else one for dtype, one in tensors.values()]
    path.write_bytes(header + b"".join(one.tobytes() for one in stored))


def write_model(
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    *,
    dtype: str = "BF16",
    shards: int = 1,
    config: Mapping[str, Any] | None = None,
    **files: str,
) -> Path:
    """Write a model with random weights, in so many files."""
    tensors = {name: (dtype, numbers(shape, seed)) for seed, (name, shape) in enumerate(shapes.items())}
    names = list(tensors)
    parts = [names[i::shards] for i in range(shards)]
    if shards == 1:
        write_file(folder / "model.safetensors", tensors)
    else:
        table = {}
        for number, part in enumerate(parts, 1):
            file = f"model-{number:05}-of-{shards:05}.safetensors"
            write_file(folder / file, {name: tensors[name] for name in part})
            table |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    (folder / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def write_adapter(
    folder: Path,
    modules: Mapping[str, tuple[int, int]] = {Q: (12, 12), K: (8, 12)},
    *,
    rank: int = 4,
    more: Mapping[str, np.ndarray] | None = None,
    dtype: str = "F32",
    **config: Any,
) -> Path:
    """Write an adapter for modules of these shapes (outputs, inputs); ``more`` are tensors by their whole names."""
    tensors: dict[str, np.ndarray] = {}
    for seed, (module, (outputs, inputs)) in enumerate(modules.items(), 100):
        tensors[f"base_model.model.{module}.lora_A.weight"] = numbers((rank, inputs), seed)
        tensors[f"base_model.model.{module}.lora_B.weight"] = numbers((outputs, rank), seed + 1000)
    tensors |= more or {}
    write_file(folder / "adapter_model.safetensors", {name: (dtype, one) for name, one in tensors.items()})
    targets = sorted({module.rpartition(".")[2] for module in modules})
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": targets, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def read_model(place: Path | str) -> dict[str, np.ndarray]:
    """Return the tensors of a model, or with its own names those of an adapter, as float32."""
    with open_weights(folder_at(str(place))) as weights:
        found = {}
        for name in weights:
            tensor = weights.tensor(name)
            found[name] = widen(view(weights.read(name), tensor.dtype), tensor.dtype).reshape(tensor.shape)
        return found


def factors(folder: Path) -> dict[str, np.ndarray]:
    """Return the tensors of an adapter by their names without the prefix."""
    with open_weights(folder_at(str(folder)), single="adapter_model.safetensors") as weights:
        return {
            name.removeprefix("base_model.model."): view(weights.read(name), "F32").reshape(weights.tensor(name).shape)
            for name in weights
        }


def with_delta(base: np.ndarray, delta: np.ndarray, dtype: str = "BF16") -> np.ndarray:
    """Return a sum computed in 64 bits and rounded."""
    return widen(narrow((base.astype(np.float64) + delta).astype(np.float32), dtype), dtype)
