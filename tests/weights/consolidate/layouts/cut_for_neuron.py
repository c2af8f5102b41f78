"""Cuts models as optimum-neuron and neuronx-distributed do for Trainium, and writes the files that they write.

Written from what the parallel layers compute, not from the code that undoes it: a rank's key head must be beside the
query heads that attend to it. Files of ``use_xser`` are made as torch_xla makes them, with a class of its name.

    python cut_for_neuron.py FOLDER LAYERS

writes a model of TinyLlama's width for 8 ranks, in FOLDER/rank with a file a rank, in FOLDER/tensor with a file a
tensor, for the benchmark.
"""

from __future__ import annotations

import json
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import attrs
import torch

Tensors = dict[str, torch.Tensor]


@attrs.frozen(kw_only=True)
class Recipe:
    """A Llama of some size, how it is cut, and what of it is saved (``targets`` of LoRA, empty for the model).

    ``beside`` are other adapters of the same model, which are saved elsewhere.
    """

    tp: int = 2
    pp: int = 1
    heads: int = 4
    groups: int = 4
    copies: int = 1
    head: int = 4
    hidden: int = 8
    inner: int = 16
    vocabulary: int = 32
    layers: int = 2
    fuse_qkv: bool = False
    xser: bool = False
    tied: bool = False
    bias: bool = False
    dtype: torch.dtype = torch.bfloat16
    seed: int = 0
    targets: tuple[str, ...] = ()
    adapter: str = "default"
    beside: tuple[str, ...] = ()
    lora_rank: int = 2
    old: bool = False

    @property
    def grouped(self) -> bool:
        """Whether attention is one layer with repeated key heads."""
        return self.groups < self.tp or self.groups % self.tp != 0

    @property
    def fused_attention(self) -> bool:
        """Whether attention is one layer of three equal parts."""
        return self.fuse_qkv and not self.grouped and self.heads == self.groups and not self.old


class Cutter:
    """Makes random tensors of a whole model, and cuts each as it is made."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.originals: Tensors = {}
        # of each stage: what every rank saves, and the metadata
        self.ranks: list[list[Tensors]] = [[{} for _ in range(recipe.tp)] for _ in range(recipe.pp)]
        self.parameters: list[dict[str, Any]] = [{} for _ in range(recipe.pp)]
        self.specs: list[list[Any]] = [[] for _ in range(recipe.pp)]
        self.stage = 0

    def random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator).to(self.recipe.dtype)

    def original(self, name: str, *shape: int) -> torch.Tensor:
        self.originals[name] = self.random(*shape)
        return self.originals[name]

    def save(self, name: str, locals_: list[torch.Tensor], dim: int | None, stride: int = 1) -> None:
        """Note a parameter as all ranks have it; LoRA is saved without the name of the adapter."""
        listed = name
        for part in ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"):
            if not self.recipe.old:
                listed = listed.replace(f".{part}", f".{part}.{self.recipe.adapter}")
        cut = {"tensor_model_parallel": False} if dim is None else {
            "tensor_model_parallel": True, "partition_dim": dim, "partition_stride": stride,
            "num_partitions": self.recipe.tp,
        }  # fmt: skip
        self.parameters[self.stage][listed] = cut
        for rank, local in enumerate(locals_):
            self.ranks[self.stage][rank][name] = local.clone()

    def replicated(self, name: str, *shape: int) -> None:
        tensor = self.original(name, *shape)
        self.save(name, [tensor] * self.recipe.tp, None)

    def chunks(self, tensor: torch.Tensor, dim: int) -> list[torch.Tensor]:
        return list(torch.chunk(tensor, self.recipe.tp, dim))

    def column(self, name: str, rows: int, *columns: int) -> None:
        self.save(name, self.chunks(self.original(name, rows, *columns), 0), 0)

    def row(self, name: str, rows: int, columns: int) -> None:
        self.save(name, self.chunks(self.original(name, rows, columns), 1), 1)

    def fused(self, module: str, fused: str, linears: list[str], rows: int, columns: int) -> None:
        """Note linear layers as one, a rank's parts of each one after the other."""
        cut = [self.chunks(self.original(f"{module}.{linear}.weight", rows, columns), 0) for linear in linears]
        together = [torch.cat([parts[rank] for parts in cut]) for rank in range(self.recipe.tp)]
        self.save(f"{module}.{fused}.weight", together, 0, stride=len(linears))

    def fused_spec(self, module: str, fused: str, linears: list[str], rows: int, *, lora: bool) -> None:
        spec = {"fused_linear_name": fused, "linear_names": linears, "bias": False, "fuse_axis": 0,
                "original_dims": [rows] * len(linears), "tp_size": self.recipe.tp,
                "peft_type": "lora" if lora else None}  # fmt: skip
        self.specs[self.stage].append([module, ["FusedLinearsSpec", spec]])

    # --- grouped-query attention

    def slots(self) -> list[list[tuple[int, list[int]]]]:
        """Return of each rank its key heads in order, each with the query heads that attend to it there."""
        heads, groups, copies = self.recipe.heads, self.recipe.groups, self.recipe.copies
        repeated = [(group, copy) for copy in range(copies) for group in range(groups)]
        share = heads // groups // copies
        out = []
        for rank in range(self.recipe.tp):
            count = len(repeated) // self.recipe.tp
            mine = repeated[rank * count : (rank + 1) * count]
            first = [group * (heads // groups) + copy * share for group, copy in mine]
            out.append([(group, list(range(at, at + share))) for (group, _), at in zip(mine, first, strict=True)])
        return out

    def of_heads(self, tensor: torch.Tensor, count: int, picked: list[int], dim: int) -> torch.Tensor:
        heads = torch.chunk(tensor, count, dim)
        return torch.cat([heads[one] for one in picked], dim)

    def queries(self, tensor: torch.Tensor, dim: int = 0) -> list[torch.Tensor]:
        picked = [[head for _, heads in slots for head in heads] for slots in self.slots()]
        return [self.of_heads(tensor, self.recipe.heads, heads, dim) for heads in picked]

    def keys(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        picked = [[group for group, _ in slots] for slots in self.slots()]
        return [self.of_heads(tensor, self.recipe.groups, groups, 0) for groups in picked]

    def grouped(self, module: str, layer: str, kind: str, *columns: int) -> None:
        """Note query, key and value as one layer; ``layer`` and ``kind`` as in qkv_proj.lora_B, weight."""
        size = self.recipe.head
        names = [f"{module}.{name}{layer}.{kind}" for name in ("q_proj", "k_proj", "v_proj")]
        query = self.queries(self.original(names[0], self.recipe.heads * size, *columns))
        key, value = (self.keys(self.original(name, self.recipe.groups * size, *columns)) for name in names[1:])
        if self.recipe.fuse_qkv:
            together = [torch.cat(parts) for parts in zip(query, key, value, strict=True)]
            self.save(f"{module}.qkv_proj{layer}.{kind}_qkv", together, None)  # as the real metadata says
            return
        for letter, parts in zip("qkv", (query, key, value), strict=True):
            self.save(f"{module}.qkv_proj{layer}.{kind}_{letter}", parts, 0)

    def grouped_spec(self, module: str, *, lora: bool) -> None:
        recipe = self.recipe
        spec = {"gqa_qkv_projection_name": "qkv_proj", "query_projection_name": "q_proj",
                "key_projection_name": "k_proj", "value_projection_name": "v_proj", "output_projection_name": "o_proj",
                "num_attention_heads": recipe.heads, "num_key_value_heads": recipe.groups,
                "kv_size_multiplier": recipe.copies,
                "q_output_size_per_partition": recipe.heads * recipe.head // recipe.tp,
                "kv_output_size_per_partition": recipe.groups * recipe.copies * recipe.head // recipe.tp,
                "fuse_qkv": recipe.fuse_qkv, "bias": False, "tp_size": recipe.tp,
                "peft_type": "lora" if lora else None}  # fmt: skip
        self.specs[self.stage].append([module, ["GQAQKVColumnParallelLinearSpec", spec]])


def cut_model(recipe: Recipe) -> Cutter:
    """Return a whole model, cut."""
    cutter = Cutter(recipe)
    cutter.column("model.embed_tokens.weight", recipe.vocabulary, recipe.hidden)
    for number in range(recipe.layers):
        cutter.stage = number * recipe.pp // recipe.layers
        _layer(cutter, f"model.layers.{number}")
    cutter.stage = recipe.pp - 1
    cutter.replicated("model.norm.weight", recipe.hidden)
    if recipe.tied:
        # saved like everything else, but parameters that are the same are listed once
        for first, last in zip(cutter.ranks[0], cutter.ranks[-1], strict=True):
            last["lm_head.weight"] = first["model.embed_tokens.weight"]
    else:
        cutter.column("lm_head.weight", recipe.vocabulary, recipe.hidden)
    return cutter


def _layer(cutter: Cutter, layer: str) -> None:
    recipe = cutter.recipe
    attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
    width, narrow = recipe.heads * recipe.head, recipe.groups * recipe.head
    cutter.replicated(f"{layer}.input_layernorm.weight", recipe.hidden)
    if recipe.grouped:
        cutter.grouped(attention, "", "weight", recipe.hidden)
        if recipe.bias:
            cutter.grouped(attention, "", "bias")
        cutter.grouped_spec(attention, lora=False)
        cutter.save(
            f"{attention}.o_proj.weight",
            cutter.queries(cutter.original(f"{attention}.o_proj.weight", recipe.hidden, width), 1),
            1,
        )
    else:
        if recipe.fused_attention:
            cutter.fused(attention, "qkv_proj", ["q_proj", "k_proj", "v_proj"], width, recipe.hidden)
            cutter.fused_spec(attention, "qkv_proj", ["q_proj", "k_proj", "v_proj"], width, lora=False)
        else:
            for name, rows in (("q_proj", width), ("k_proj", narrow), ("v_proj", narrow)):
                cutter.column(f"{attention}.{name}.weight", rows, recipe.hidden)
                if recipe.bias:
                    cutter.column(f"{attention}.{name}.bias", rows)
        cutter.row(f"{attention}.o_proj.weight", recipe.hidden, width)
    if recipe.old:
        cutter.column(f"{mlp}.gate_proj.weight", recipe.inner, recipe.hidden)
        cutter.column(f"{mlp}.up_proj.weight", recipe.inner, recipe.hidden)
    else:
        cutter.fused(mlp, "gate_up_proj", ["gate_proj", "up_proj"], recipe.inner, recipe.hidden)
        cutter.fused_spec(mlp, "gate_up_proj", ["gate_proj", "up_proj"], recipe.inner, lora=False)
    cutter.row(f"{mlp}.down_proj.weight", recipe.hidden, recipe.inner)


def cut_adapter(recipe: Recipe) -> Cutter:
    """Return a LoRA adapter, cut: A is whole on every rank where B is cut, and the other way round."""
    cutter = Cutter(recipe)
    if "embed_tokens" in recipe.targets:
        # ParallelEmbedding keeps both whole; these have no .weight
        name = "base_model.model.model.embed_tokens"
        cutter.replicated(f"{name}.lora_embedding_A", recipe.lora_rank, recipe.vocabulary)
        cutter.replicated(f"{name}.lora_embedding_B", recipe.hidden, recipe.lora_rank)
    for number in range(recipe.layers):
        cutter.stage = number * recipe.pp // recipe.layers
        _adapted_layer(cutter, f"base_model.model.model.layers.{number}")
    _list_what_is_not_saved(cutter)
    return cutter


def _list_what_is_not_saved(cutter: Cutter) -> None:
    """Note the parameters of the base and of other adapters, as real metadata does."""
    recipe = cutter.recipe
    adapted = {"qkv": ("qkv_proj", "q_proj", "k_proj", "v_proj"), "mlp": ("gate_up_proj", "down_proj")}
    modules = [module for target in recipe.targets for module in adapted.get(target, (target,))]
    base = cut_model(attrs.evolve(recipe, targets=()))
    for stage, parameters in enumerate(base.parameters):
        listed = cutter.parameters[stage]
        for other in recipe.beside:
            mine = [(name, cut) for name, cut in listed.items() if f".{recipe.adapter}" in name]
            listed.update({name.replace(f".{recipe.adapter}", f".{other}"): cut for name, cut in mine})
        for name, cut in parameters.items():
            module, _, kind = name.rpartition(".")
            layer = ".base_layer" if module.rpartition(".")[2] in modules else ""
            listed[f"base_model.model.{module}{layer}.{kind}"] = cut


def _adapted_layer(cutter: Cutter, layer: str) -> None:
    recipe, rank = cutter.recipe, cutter.recipe.lora_rank
    attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
    width, narrow = recipe.heads * recipe.head, recipe.groups * recipe.head
    qkv = "qkv" in recipe.targets

    def shared(module: str, fused: str, names: list[str]) -> None:
        tensor = cutter.random(rank, recipe.hidden)
        cutter.save(f"{module}.{fused}.lora_A.weight", [tensor] * recipe.tp, None)
        cutter.originals.update({f"{module}.{name}.lora_A.weight": tensor for name in names})

    def fused_b(module: str, fused: str, names: list[str], rows: int) -> None:
        cut = [cutter.chunks(cutter.original(f"{module}.{name}.lora_B.weight", rows, rank), 0) for name in names]
        together = [torch.cat([parts[at] for parts in cut]) for at in range(recipe.tp)]
        cutter.save(f"{module}.{fused}.lora_B.weight", together, 0)

    names = ["q_proj", "k_proj", "v_proj"]
    if recipe.grouped:
        cutter.grouped_spec(attention, lora=qkv)
    elif recipe.fused_attention:
        cutter.fused_spec(attention, "qkv_proj", names, width, lora=qkv)
    if qkv and recipe.grouped:
        shared(attention, "qkv_proj", names)
        cutter.grouped(attention, ".lora_B", "weight", rank)
        if recipe.bias:
            cutter.grouped(attention, ".lora_B", "bias")
    elif qkv and recipe.fused_attention:
        shared(attention, "qkv_proj", names)
        fused_b(attention, "qkv_proj", names, width)
    elif qkv:
        for name, rows in zip(names, (width, narrow, narrow), strict=True):
            cutter.replicated(f"{attention}.{name}.lora_A.weight", rank, recipe.hidden)
            cutter.column(f"{attention}.{name}.lora_B.weight", rows, rank)
    if "o_proj" in recipe.targets:
        name = f"{attention}.o_proj.lora_A.weight"
        tensor = cutter.original(name, rank, width)
        cutter.save(name, cutter.queries(tensor, 1) if recipe.grouped else cutter.chunks(tensor, 1), 1)
        cutter.replicated(f"{attention}.o_proj.lora_B.weight", recipe.hidden, rank)
    cutter.fused_spec(mlp, "gate_up_proj", ["gate_proj", "up_proj"], recipe.inner, lora="mlp" in recipe.targets)
    if "mlp" in recipe.targets:
        shared(mlp, "gate_up_proj", ["gate_proj", "up_proj"])
        fused_b(mlp, "gate_up_proj", ["gate_proj", "up_proj"], recipe.inner)
        cutter.row(f"{mlp}.down_proj.lora_A.weight", rank, recipe.inner)
        cutter.replicated(f"{mlp}.down_proj.lora_B.weight", recipe.hidden, rank)


# --- files


def write(folder: Path, recipe: Recipe) -> Tensors:
    """Write a checkpoint below a folder; return what must come out of it."""
    cutter = cut_adapter(recipe) if recipe.targets else cut_model(recipe)
    place = folder / "shards"
    if recipe.targets:
        place = folder / ("adapter_shards" if recipe.old else f"adapter_{recipe.adapter}/adapter_shards")
        config = {"peft_type": "LORA", "r": recipe.lora_rank, "base_model_name_or_path": "the/base"}
        place.mkdir(parents=True)
        (place.parent / "adapter_config.json").write_text(json.dumps(config))
    (place / "model").mkdir(parents=True)
    (place / "checkpoint").write_text("1")
    for stage, ranks in enumerate(cutter.ranks):
        write_metadata(place, cutter, stage)
        for rank, tensors in enumerate(ranks):
            path = place / "model" / f"dp_rank_00_tp_rank_{rank:02d}_pp_rank_{stage:02d}.pt"
            others = [name for other in cutter.ranks[:stage] + cutter.ranks[stage + 1 :] for name in other[rank]]
            # what belongs to other stages was never given memory
            state = OrderedDict((name, torch.empty(2, 2, device="meta")) for name in others if not recipe.old)
            state.update(tensors)
            state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
            (write_xser if recipe.xser else torch.save)(state, path)
    (place / "done").write_text("1")
    return cutter.originals


def write_metadata(place: Path, cutter: Cutter, stage: int) -> None:
    """Write the metadata of a stage, in the words of today or of before release 0.2."""
    if cutter.recipe.old:
        torch.save(_old_metadata(cutter, stage), place / f"mp_metadata_pp_rank_{stage}.pt")
        return
    modules: dict[str, list[Any]] = {}
    for module, spec in cutter.specs[stage]:
        modules.setdefault(module, []).append(spec)
    listed = [{"module_fully_qualified_name": module, "specs": specs} for module, specs in modules.items()]
    metadata = {"parameters": cutter.parameters[stage], "model_weight_transformation_specs": listed}
    (place / f"mp_metadata_pp_rank_{stage}.json").write_text(json.dumps(metadata, indent=4))


def _old_metadata(cutter: Cutter, stage: int) -> dict[str, Any]:
    recipe = cutter.recipe
    sharded = {
        name: {"kind": "sharded" if cut["tensor_model_parallel"] else "tied", "partition_dim": cut.get("partition_dim")}
        for name, cut in cutter.parameters[stage].items()
    }
    table, outputs = {}, set()
    for number in range(recipe.layers if recipe.grouped else 0):
        module = f"model.layers.{number}.self_attn"
        for letter in "qkv":
            suffix = "qkv" if recipe.fuse_qkv else letter
            table[f"{module}.{letter}_proj.weight"] = f"{module}.qkv_proj.weight_{suffix}"
        outputs.add(f"{module}.o_proj.weight")
    if recipe.fuse_qkv:
        for entry in sharded:
            if entry.endswith("_qkv"):
                sharded[entry] = {"kind": "sharded", "partition_dim": 0}
    attention = {
        "original_names_to_gqa_qkv_names": table,
        "output_projections_names": outputs,
        "num_attention_heads": recipe.heads if table else None,
        "num_key_value_heads": recipe.groups if table else None,
        "kv_size_multiplier": recipe.copies if table else None,
        "fuse_qkv": recipe.fuse_qkv if table else None,
        "q_output_size_per_partition": recipe.heads * recipe.head // recipe.tp,
        "kv_output_size_per_partition": recipe.groups * recipe.copies * recipe.head // recipe.tp,
    }
    return {"sharded_metadata": sharded, "gqa_qkv_metadata": attention}


def write_xser(state: Tensors, path: Path) -> None:
    """Write a state dict as torch_xla's serialization does: references, and a file a tensor."""
    folder = path.with_name(path.name + ".tensors")
    folder.mkdir()
    references: dict[str, Any] = {}
    facts: dict[int, Any] = {}
    for name, tensor in state.items():
        if tensor.device.type == "meta":
            references[name] = tensor  # it is not on the accelerator
            continue
        number = len(facts)
        facts[number] = {"dtype": tensor.dtype, "shape": tensor.shape}
        torch.save(tensor.clone(), folder / f"tensor_{number}.pt")
        references[name] = _reference(number)
    torch.save(references, path)
    torch.save(facts, path.with_name(path.name + ".info.pt"))


def _reference(number: int) -> Any:
    """Return an object of the class that torch_xla pickles, by its name."""
    module = sys.modules.get("torch_xla.utils.serialization")
    if module is None:
        for name in ("torch_xla", "torch_xla.utils", "torch_xla.utils.serialization"):
            module = sys.modules[name] = types.ModuleType(name)
        kind = type("TensorReference", (), {"__module__": module.__name__})
        module.TensorReference = kind  # type: ignore[attr-defined]
    reference = module.TensorReference()
    reference.tid = number
    return reference


if __name__ == "__main__":
    wide = Recipe(
        tp=8, copies=2, heads=32, groups=4, head=64, hidden=2048, inner=5632, vocabulary=32000, layers=int(sys.argv[2])
    )
    for kind in ("rank", "tensor"):
        write(Path(sys.argv[1]) / kind, attrs.evolve(wide, xser=kind == "tensor"))
