"""What is mutated by tests/fuzz_weights.py: kinds of files, each with whole ones to begin with and a way to read them.

A new kind is a row of :data:`KINDS`: where whole files come from, what reads every byte of them, and changes that know
the format, if bytes alone would not get far.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from safetensors import SafetensorError, safe_open

from cloudtune.weights.consolidate.layouts import fsdp, torchstate
from cloudtune.weights.consolidate.verb import consolidate
from cloudtune.weights.files.assembly import length_of, stream
from cloudtune.weights.files.filenames import CONFIG
from cloudtune.weights.files.folder import Folder, folder_at
from cloudtune.weights.files.model import open_weights
from cloudtune.weights.files.safetensors import BITS, size_bytes
from cloudtune.weights.merge.adapters import adapter_at, tensors_of
from cloudtune.weights.merge.verb import merge
from tests.weights.forging import Saved, Storage, halves, save, tensor, torch_file
from tests.weights.making import shard_bytes

Files = dict[str, bytes]


class Sparse(bytes):
    """A file that says to be larger than it is: its bytes, then nothing up to ``size``."""

    size = 0


@attrs.frozen(kw_only=True)
class Kind:
    """A kind of files: whole ones, what reads them, the file that is changed half of the time, and special changes."""

    originals: Callable[[Path], list[Files]]
    read: Callable[[Path], None]
    favourite: str = ""
    changes: tuple[Callable[[str, bytes, random.Random], bytes], ...] = ()


# --- checkpoints


def _checkpoints(folder: Path) -> list[Files]:
    """Return checkpoints that are whole: sharded in two ways, and a state dict in one file."""
    draw = np.random.default_rng(3)
    rows, columns = draw.standard_normal((9, 4)).astype(np.float32), draw.integers(0, 999, (5, 6)).astype(np.uint16)
    grid = [((a[0], b[1]), (n[0], m[1])) for a, n in halves((5, 6), 2) for b, m in halves((5, 6), 3, 1)]
    tensors = {
        "model.a": Saved(rows, "F32", halves((9, 4), 4), ("model", "a")),
        "model.b": Saved(columns, "BF16", grid, ("model", "b")),
        "model.c": Saved(np.float32(1.5).reshape(()), "F32", [((), ())], ("model", "c")),
        "optim.a": Saved(rows, "F32", halves((9, 4), 2), ("optim", "a")),
    }
    save(folder / "whole", tensors, others={"step": b"bytes"})
    save(folder / "small", {"a": Saved(columns, "BF16", halves((5, 6), 1))})
    shared = Storage("F32", rows.tobytes())
    state = {"model": {"a": tensor(shared, (9, 4)), "b": tensor(shared, (2, 4), offset=3)}, "step": 3, "text": "x"}
    sharded = [_files(folder / name) for name in ("whole", "small")]
    return [*sharded, {"model.pt": torch_file(state)}]


def _files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _read_checkpoint(folder: Path) -> None:
    """Read a checkpoint as consolidating does, and every byte that it says there is."""
    found = folder_at(str(folder))
    layout = next((one for one in (fsdp, torchstate) if one.recognise(found)), None)
    if layout is None:
        return
    with ExitStack() as opened:
        checkpoint = layout.read(found, opened, config={})
        for part in checkpoint.tensors.values():
            size = sum(length_of(piece) for piece in part.pieces)
            assert size == size_bytes(part.dtype, part.shape)
            assert size == sum(len(memoryview(block)) for piece in part.pieces for block in stream(piece))


# --- models


def _models(_: Path) -> list[Files]:
    """Return a model in three shards, one in a file, and one whose index names a single file."""
    tensors = {
        name: (dtype, shape, bytes(range(size_bytes(dtype, shape))))
        for name, dtype, shape in (
            ("model.embed.weight", "BF16", (5, 4)),
            ("model.norm.weight", "F32", (4,)),
            ("empty", "F16", (0, 3)),
            ("scalar", "I64", ()),
            ("flags", "BOOL", (3,)),
            ("four", "F4", (2, 3)),
        )
    }
    names = list(tensors)
    config = b'{"architectures": ["LlamaForCausalLM"], "hidden_size": 4, "rope_scaling": {"factor": 2.0}, "x": null}'
    one = shard_bytes(tensors, {"format": "pt"})
    sharded: Files = {CONFIG: config}
    table = {}
    for number in range(3):
        shard = f"model-{number + 1:05}-of-00003.safetensors"
        held = {name: tensors[name] for name in names[number * 2 : number * 2 + 2]}
        sharded[shard] = shard_bytes(held, {"format": "pt"} if number else None)
        table.update(dict.fromkeys(held, shard))
    index = {"metadata": {"total_size": 99}, "weight_map": table}
    sharded["model.safetensors.index.json"] = json.dumps(index, indent=2).encode()
    indexed = {"weight_map": dict.fromkeys(names, "model.safetensors")}
    return [
        sharded,
        {CONFIG: config, "model.safetensors": one},
        {"model.safetensors": one, "model.safetensors.index.json": json.dumps(indexed).encode()},
    ]


def _read_model(folder: Path) -> None:
    """Read a model's tensors and its config; whatever is read, the format's own library reads the same."""
    found = folder_at(str(folder))
    _read_tensors(found, folder, "model.safetensors")
    if CONFIG in found:
        found.json(CONFIG)


def _read_tensors(found: Folder, folder: Path, single: str) -> None:
    with open_weights(found, single=single) as weights:
        for name in weights:
            facts = weights.tensor(name)
            assert len(weights.read(name)) == facts.length == size_bytes(facts.dtype, facts.shape)
        for shard in weights.shards:
            try:
                with safe_open(folder / shard.name, framework="np") as opened:
                    assert set(opened.keys()) == set(shard.header.tensors)
                    shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
            except SafetensorError as error:
                raise AssertionError(f"the library refuses {shard.name}: {error}") from error
            assert shapes == {name: facts.shape for name, facts in shard.header.tensors.items()}


# --- adapters


def _adapters(_: Path) -> list[Files]:
    """Return an adapter as PEFT writes it."""
    prefix = "base_model.model.model.layers.0.self_attn"
    tensors = {
        f"{prefix}.{module}.lora_{kind}.weight": ("F32", shape, bytes(4 * shape[0] * shape[1]))
        for module in ("q_proj", "v_proj")
        for kind, shape in (("A", (2, 4)), ("B", (4, 2)))
    }
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "bias": "none",
        "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False, "base_model_name_or_path": "base",
        "task_type": "CAUSAL_LM", "modules_to_save": None,
    }  # fmt: skip
    return [
        {
            "adapter_config.json": json.dumps(config).encode(),
            "adapter_model.safetensors": shard_bytes(tensors, {"format": "pt"}),
        }
    ]


def _read_adapter(folder: Path) -> None:
    """Read an adapter as merging does."""
    adapter = adapter_at(str(folder))
    with ExitStack() as opened:
        tensors_of(adapter, opened, folder)


# --- whole verbs


def _merges(_: Path) -> list[Files]:
    """Return a base and an adapter, each with what else merging reads."""
    (adapter,) = _adapters(_)
    attention = "model.layers.0.self_attn"
    base = {f"{attention}.{name}.weight": ("BF16", (4, 4), bytes(range(32))) for name in ("q_proj", "v_proj")}
    base["model.embed_tokens.weight"] = ("BF16", (6, 4), bytes(range(48)))
    rope = {"full_attention": {"rope_type": "default", "rope_theta": 1e4}, "rope_theta": 1e4, "rope_type": "llama3"}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": True,
        "text_config": {"tie_word_embeddings": True, "dtype": "bfloat16"}, "rope_parameters": rope, "dtype": "bfloat16",
        "transformers_version": "5.0.0", "_name_or_path": "org/base",
    }  # fmt: skip
    tokenizer = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<a>"], "chat_template": "{{ x }}"}
    training = {"run": "abc12345", "method": "lora", "base": "org/base"}
    values = {
        "base/config.json": config,
        "base/tokenizer_config.json": tokenizer,
        "base/cloudtune.json": {"name": "base"},
        "training.json": training,
        "metrics.json": {"eval_loss_before": 3.0, "eval_loss": 1.5},
    }
    return [
        {
            **{name: json.dumps(value).encode() for name, value in values.items()},
            "base/model.safetensors": shard_bytes(base, {"format": "pt"}),
            **{f"adapter/{name}": data for name, data in adapter.items()},
        }
    ]


def _merge(folder: Path) -> None:
    merge(str(folder / "base"), [str(folder / "adapter")], str(folder / "out"), target="bedrock")


def _consolidations(_: Path) -> list[Files]:
    """Return state dicts of a model with its base, and of an adapter, each with what else consolidating reads."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "text_config": {"torch_dtype": "bfloat16"},
    }  # fmt: skip
    table = tensor(Storage("BF16", bytes(range(48))), (6, 4))
    model = {
        "base/config.json": json.dumps(config).encode(),
        "base/model.safetensors": shard_bytes({"model.embed_tokens.weight": ("BF16", (6, 4), bytes(48))}),
        "checkpoint/training.json": b'{"run": "abc12345", "base": "org/base"}',
        "checkpoint/model.pt": torch_file({"model.embed_tokens.weight": table}),
    }
    (adapter,) = _adapters(_)
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    halves = {
        f"{name}.lora_{kind}.default.weight": tensor(Storage("F32", bytes(32)), shape)
        for kind, shape in (("A", (2, 4)), ("B", (4, 2)))
    }
    settings = {"checkpoint/adapter_config.json": adapter["adapter_config.json"]}
    return [model, {**settings, "checkpoint/pytorch_model.bin": torch_file(halves)}]


def _consolidate(folder: Path) -> None:
    base = folder / "base"
    consolidate(str(folder / "checkpoint"), str(folder / "out"), base=str(base) if base.exists() else None)


# --- changes that know the format

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 1.5, 1e300, 2**31, 2**62, 2**63, 2**64, 10**400, float("nan")),
    *("", "a", "..", "../x", "/etc/passwd", "\0", "\ud800", "\x1b[2J", "é😀", "model.safetensors", "none", "LORA"),
    *([], {}, [0, 0], [2**62, 2**62], [1] * 70, [[]], {"a": {}}, list(BITS)),
    *BITS,
)


def _tree(name: str, data: bytes, draw: random.Random) -> bytes:
    """Change something in the JSON of a file, or of a header, as JSON."""
    if name.endswith(".safetensors"):
        return _with_header(data, lambda text: _changed_json(text, draw))
    return _changed_json(data, draw)


def _settings(name: str, data: bytes, draw: random.Random) -> bytes:
    """Change something in a file of JSON, or in a header; others have their own kinds."""
    return _tree(name, data, draw) if name.endswith((".json", ".safetensors")) else data


def _changed_json(text: bytes, draw: random.Random) -> bytes:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for _ in range(draw.choice((1, 1, 2, 4))):
        value = _changed(value, draw)
    return json.dumps(value, ensure_ascii=draw.random() < 0.7).encode("utf-8", "surrogatepass")


def _changed(value: Any, draw: random.Random) -> Any:
    if not isinstance(value, (dict, list)) or not value or draw.random() < 0.15:
        if isinstance(value, int) and not isinstance(value, bool) and draw.random() < 0.5:
            return value + draw.choice((-1, 1, -8, 8, 2**40))
        return deepcopy(draw.choice(_VALUES))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    at, other = draw.choice(keys), draw.choice(keys)
    change = draw.random()
    if change < 0.1:
        del value[at]
    elif change < 0.2:
        value[at] = deepcopy(value[other])
    elif change < 0.25:
        value[at], value[other] = value[other], value[at]
    elif change < 0.3 and isinstance(value, dict):
        value[str(draw.choice(_VALUES))[:300]] = deepcopy(value[at])
    else:
        value[at] = _changed(value[at], draw)
    return value


def _twice(name: str, data: bytes, draw: random.Random) -> bytes:
    """Let a name be there twice."""
    places = [found.start() + 1 for found in re.finditer(rb"[{,]", data[:5000])]
    entry = re.search(rb'"[^"]+":\s*(\{[^{}]*\}|"[^"]*"|\d+),', data)
    if not places or entry is None:
        return data
    at = draw.choice(places)

    def doubled(text: bytes) -> bytes:
        return text[:at] + entry[0] + text[at:]

    return _with_header(data, doubled) if name.endswith(".safetensors") else doubled(data)


def _with_header(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change the header of a safetensors file and let its length be right."""
    length = int.from_bytes(data[:8], "little")
    header = change(data[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _header_length(name: str, data: bytes, draw: random.Random) -> bytes:
    """Let the header have another length than it has."""
    length = int.from_bytes(data[:8], "little")
    other = draw.choice((0, 1, 8, length - 1, length + 1, len(data), 2**25, 2**31, 2**40, 2**63, 2**64 - 1))
    return (other % 2**64).to_bytes(8, "little") + data[8:]


def _huge(name: str, data: bytes, draw: random.Random) -> bytes:
    """Let a file be huge, with a hole for most of it."""
    sparse = Sparse(data)
    sparse.size = draw.choice((1 << 24, 1 << 32, 1 << 40))
    if name.endswith(".safetensors") and draw.random() < 0.5:
        sparse = Sparse(draw.choice((31 << 20, 33 << 20, 90 << 20)).to_bytes(8, "little") + data[8:])
        sparse.size = 1 << 32
    return sparse


def _bomb(name: str, data: bytes, draw: random.Random) -> bytes:
    """Let a header or a JSON file be megabytes of the smallest things."""
    item = draw.choice((b"[],", b"{},", b'"ab",', b"0,", b"[[", b'{"a":', b"1e9,", b'"\\u0061",'))
    text = draw.choice((b"", b'{"weight_map":', b'{"__metadata__":{"a":', b'{"a":')) + b"[" + item * (1 << 19) + b"0]}"
    return len(text).to_bytes(8, "little") + text if name.endswith(".safetensors") else text


_FORMAT = (_tree, _tree, _tree, _tree, _tree, _tree, _tree, _tree, _twice, _header_length, _huge)
_SETTINGS = (_settings, _settings, _settings, _twice)
KINDS = {
    "checkpoints": Kind(originals=_checkpoints, read=_read_checkpoint, favourite=".metadata"),
    "models": Kind(originals=_models, read=_read_model, changes=_FORMAT),
    "adapters": Kind(originals=_adapters, read=_read_adapter, changes=_FORMAT),
    "merges": Kind(originals=_merges, read=_merge, favourite="adapter/adapter_config.json", changes=_FORMAT),
    "consolidations": Kind(originals=_consolidations, read=_consolidate, changes=_SETTINGS),
    "bombs": Kind(originals=_models, read=_read_model, changes=(_bomb,)),
}
