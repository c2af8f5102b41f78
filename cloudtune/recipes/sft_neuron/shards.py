"""Models and LoRA adapters as optimum-neuron leaves them: a file a rank, and how each pipeline stage was cut.

Layers with many outputs are cut by rows, those that follow them by columns; gate and up are one layer, each rank's part
of one after its part of the other. A LoRA matrix is cut where its layer is, the other one is whole on every rank.
"""

import dataclasses
import json
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import rows
import torch

Tensors = dict[str, torch.Tensor]

COLUMN = ("embed_tokens", "lm_head", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "gate_up_proj")
ROW = ("o_proj", "down_proj")
HALVES = ("gate_proj", "up_proj")
FUSED = "gate_up_proj"
_LAYER = re.compile(r"(.*\.layers\.(\d+))\.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a process stands: tensor ranks are neighbours, pipeline stages are far apart."""

    rank: int
    world: int
    tp: int
    pp: int

    @property
    def dp(self) -> int:
        """The data-parallel degree."""
        return self.world // (self.tp * self.pp)

    @property
    def tp_rank(self) -> int:
        """The tensor rank."""
        return self.rank % self.tp

    @property
    def dp_rank(self) -> int:
        """The data-parallel rank."""
        return self.rank // self.tp % self.dp

    @property
    def pp_rank(self) -> int:
        """The pipeline stage."""
        return self.rank // (self.tp * self.dp)

    def __str__(self) -> str:
        return f"{self.tp} tensor x {self.pp} pipeline shards"


@dataclasses.dataclass(kw_only=True)
class Stage:
    """What one pipeline stage saves: the tensors of each tensor rank, how each was cut, and what was fused."""

    ranks: list[Tensors]
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    specs: dict[str, list[Any]] = dataclasses.field(default_factory=dict)


def place_of(tp: int, pp: int) -> Place:
    """Return where this process stands, by torchrun's variables."""
    return Place(rank=int(os.environ.get("RANK", "0")), world=int(os.environ.get("WORLD_SIZE", "1")), tp=tp, pp=pp)


def check(config: Any, place: Place) -> None:
    """Raise DataError for a model that this cannot cut; optimum-neuron itself repeats key heads where it must."""
    for name in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(config, name)
        if heads % place.tp:
            raise rows.DataError(f"a rehearsal cannot cut {name} {heads} into {place.tp} parts: take a divisor")


def adapter_tensors(model: Any) -> Tensors:
    """Return the tensors of an adapter by the names under which they are saved, without the adapter's."""
    found = model.state_dict()
    return {name.replace(".default.", "."): found[name] for name in found if ".lora_" in name}


def cut(tensors: Tensors, config: Any, place: Place, adapted: tuple[str, ...] | None = None) -> list[Stage]:
    """Return what every stage saves of a model, or with ``adapted`` modules of an adapter."""
    stages = [Stage(ranks=[{} for _ in range(place.tp)]) for _ in range(place.pp)]
    tied = adapted is None and getattr(config, "tie_word_embeddings", False)
    for name, tensor in tensors.items():
        module, kind = _module(name)
        stage = stages[_stage_of(name, config, place)]
        if module.endswith(HALVES[1]):
            continue  # with the first half
        if module.endswith(HALVES[0]):
            _fused(stage, name, tensors, place, lora=adapted is not None)
            continue
        _save(stage, name, _parts(module, kind, tensor, place), listed=not (tied and name == "lm_head.weight"))
    for layer in range(config.num_hidden_layers):
        prefix = ("base_model.model." if adapted is not None else "") + f"model.layers.{layer}"
        stage = stages[layer * place.pp // config.num_hidden_layers]
        lora = adapted is not None and HALVES[0] in adapted
        stage.specs[f"{prefix}.mlp"] = [_fused_spec(config, place, lora=lora)]
    return stages


def _module(name: str) -> tuple[str, str]:
    """Return a tensor's module and what it is there: weight, bias, lora_A, lora_B."""
    stem, _, kind = name.rpartition(".")
    outer, _, last = stem.rpartition(".")
    return (outer, last) if last.startswith("lora_") else (stem, kind)


def _stage_of(name: str, config: Any, place: Place) -> int:
    found = _LAYER.match(name)
    if found is not None:
        return int(found[2]) * place.pp // int(config.num_hidden_layers)
    return 0 if "embed_tokens" in name else place.pp - 1


def _dim(module: str, kind: str) -> int | None:
    """Return by which dimension a tensor is cut; None for one that is whole on every rank."""
    if module.endswith(COLUMN) and kind in ("weight", "bias", "lora_B"):
        return 0
    return 1 if module.endswith(ROW) and kind in ("weight", "lora_A") else None


def _parts(module: str, kind: str, tensor: torch.Tensor, place: Place) -> tuple[list[torch.Tensor], int | None]:
    dim = _dim(module, kind)
    if dim is None:
        return [tensor] * place.tp, None
    if tensor.shape[dim] % place.tp:
        raise rows.DataError(f"{module} has {tensor.shape[dim]} rows, which {place.tp} ranks cannot share equally")
    return list(torch.chunk(tensor, place.tp, dim)), dim


def _fused(stage: Stage, name: str, tensors: Tensors, place: Place, *, lora: bool) -> None:
    """Note gate and up as one layer; LoRA's first matrix is the same for both."""
    module, kind = _module(name)
    together = name.replace(HALVES[0], FUSED)
    if kind == "lora_A":
        _save(stage, together, ([tensors[name]] * place.tp, None))
        return
    first, _ = _parts(module, kind, tensors[name], place)
    second, _ = _parts(module, kind, tensors[name.replace(*HALVES)], place)
    parts = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    _save(stage, together, (parts, 0), stride=1 if lora else 2)


def _save(
    stage: Stage, name: str, cut_parts: tuple[list[torch.Tensor], int | None], *, stride: int = 1, listed: bool = True
) -> None:
    parts, dim = cut_parts
    if listed:
        entry: dict[str, Any] = {"tensor_model_parallel": dim is not None}
        if dim is not None:
            entry |= {"partition_dim": dim, "partition_stride": stride, "num_partitions": len(parts)}
        stage.parameters[re.sub(r"\.(lora_[AB])\.", r".\1.default.", name)] = entry
    for rank, part in enumerate(parts):
        stage.ranks[rank][name] = part.detach().clone()


def _fused_spec(config: Any, place: Place, *, lora: bool) -> list[Any]:
    facts = {
        "fused_linear_name": FUSED,
        "linear_names": list(HALVES),
        "bias": False,
        "fuse_axis": 0,
        "original_dims": [config.intermediate_size] * 2,
        "tp_size": place.tp,
        "peft_type": "lora" if lora else None,
    }
    return ["FusedLinearsSpec", facts]


def write(folder: Path, stages: list[Stage], place: Place) -> None:
    """Write this rank's files; of ranks that have the same, the first one does it."""
    (folder / "model").mkdir(parents=True, exist_ok=True)
    if place.dp_rank:
        return
    own, stage = stages[place.pp_rank].ranks[place.tp_rank], stages[place.pp_rank]
    # what belongs to other stages was never given memory
    state = OrderedDict(
        (name, torch.empty(2, 2, device="meta"))
        for number, other in enumerate(stages)
        if number != place.pp_rank
        for name in other.ranks[place.tp_rank]
    )
    state.update(own)
    ranks = f"dp_rank_00_tp_rank_{place.tp_rank:02d}_pp_rank_{place.pp_rank:02d}"
    torch.save(state, folder / "model" / f"{ranks}.pt")
    if place.tp_rank == 0:
        specs = [{"module_fully_qualified_name": name, "specs": found} for name, found in stage.specs.items()]
        metadata = {"parameters": stage.parameters, "model_weight_transformation_specs": specs}
        (folder / f"mp_metadata_pp_rank_{place.pp_rank}.json").write_text(json.dumps(metadata, indent=4))
    if place.rank == 0:
        (folder / "checkpoint").write_text("1")
        (folder / "done").write_text("1")
