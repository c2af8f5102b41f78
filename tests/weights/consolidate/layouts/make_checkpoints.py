"""Writes checkpoints as real training loops do: one process of several, on gloo.

    python make_checkpoints.py RANK WORLD FOLDER [PARAMETERS]

All layouts are written in one go, because importing torch takes longer than everything else. With PARAMETERS (in
millions) one FSDP2 checkpoint of a model of that size is written, in bfloat16, for the benchmark.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardedStateDictConfig, StateDictType, fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module


class Layer(nn.Module):
    """A layer with names as a transformer's; ``odd`` is no multiple of any number of ranks."""

    def __init__(self, hidden: int, inner: int, odd: int) -> None:
        super().__init__()
        self.mlp = nn.Module()
        self.mlp.up_proj = nn.Linear(hidden, inner, bias=False)
        self.mlp.down_proj = nn.Linear(inner, hidden, bias=False)
        self.norm = nn.LayerNorm(hidden)
        self.odd = nn.Parameter(torch.randn(odd, 3))
        self.register_buffer("counter", torch.tensor(7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.mlp.down_proj(self.mlp.up_proj(x))) + self.odd.sum()


class Model(nn.Module):
    """A language model, as far as a checkpoint can tell."""

    def __init__(self, vocabulary: int = 37, hidden: int = 16, inner: int = 24, layers: int = 2, odd: int = 7) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(vocabulary, hidden)
        self.model.layers = nn.ModuleList(Layer(hidden, inner, odd) for _ in range(layers))
        self.lm_head = nn.Linear(hidden, vocabulary, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x)
        return self.lm_head(x)


class Adapted(nn.Module):
    """A linear layer as PEFT wraps it: frozen weights, and an adapter beside them."""

    def __init__(self, base: nn.Linear, rank: int = 3) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, base.out_features, bias=False)})


def save(state: dict, folder: Path, planner: object = None) -> None:
    dcp.save(state, storage_writer=dcp.FileSystemWriter(folder), planner=planner)


def write_fsdp2(folder: Path, world: int) -> None:
    torch.manual_seed(0)
    model = Model().bfloat16()
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 2, dtype=torch.long)).sum().backward()
    optimizer.step()
    state = get_model_state_dict(model)
    save({"model": state}, folder / "trainer/checkpoint-5/pytorch_model_fsdp_0")
    save({"optimizer": optimizer.state_dict()}, folder / "trainer/checkpoint-5/optimizer_0")
    save(state, folder / "plain")
    save({"app": {"model": state, "optim": optimizer.state_dict(), "step": 3}}, folder / "app")
    save({"model": {f"_orig_mod.module.{name}": value for name, value in state.items()}}, folder / "wrapped")
    # without flattening a nested state dict cannot be told from a flat one
    save(state, folder / "unflattened", dcp.DefaultSavePlanner(flatten_state_dict=False))


def write_lora(folder: Path) -> None:
    torch.manual_seed(1)
    model = nn.Module()
    model.base_model = nn.Module()
    model.base_model.model = Model(layers=1)
    mlp = model.base_model.model.model.layers[0].mlp
    mlp.up_proj, mlp.down_proj = Adapted(mlp.up_proj), Adapted(mlp.down_proj)
    fully_shard(model)
    state = get_model_state_dict(model)
    save({"model": {name: value for name, value in state.items() if "lora_" in name}}, folder / "lora")
    save({"model": state}, folder / "lora_with_base")


def write_fsdp1(folder: Path) -> None:
    torch.manual_seed(2)
    model = Model()
    wrapped = FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=True)
    config = ShardedStateDictConfig(offload_to_cpu=False)
    with FullyShardedDataParallel.state_dict_type(wrapped, StateDictType.SHARDED_STATE_DICT, config):
        save({"model": wrapped.state_dict()}, folder / "fsdp1/pytorch_model_fsdp_0")
    with FullyShardedDataParallel.state_dict_type(wrapped, StateDictType.LOCAL_STATE_DICT):
        state = wrapped.state_dict()
    save({"model": state}, folder / "fsdp1_local")


def write_parallel(folder: Path) -> None:
    torch.manual_seed(3)
    model = Model()
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    for layer in model.model.layers:
        plan = {"mlp.up_proj": ColwiseParallel(), "mlp.down_proj": RowwiseParallel()}
        parallelize_module(layer, mesh["tp"], plan)
        fully_shard(layer, mesh=mesh["dp"])
    fully_shard(model, mesh=mesh["dp"])
    save({"model": get_model_state_dict(model)}, folder / "tp_fsdp")


def write_hybrid(folder: Path) -> None:
    torch.manual_seed(4)
    model = Model()
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    fully_shard(model, mesh=mesh)
    save({"model": get_model_state_dict(model)}, folder / "hsdp")


def write_tensors(folder: Path, world: int) -> None:
    """Tensors of every type, cut along every dimension, in pieces of unequal size."""
    torch.manual_seed(5)
    types = (
        torch.float32,
        torch.bfloat16,
        torch.float16,
        torch.float64,
        torch.int64,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
    flat = init_device_mesh("cpu", (world,))
    square = init_device_mesh("cpu", (2, world // 2)) if world > 2 else flat
    state = {}
    for number, dtype in enumerate(types):
        for dims in ((5,), (7, 3), (4, 5, 6), (3, 1, 5, 7)):
            tensor = (torch.randn(dims) * 100).to(dtype)
            name = f"t{number}.{len(dims)}"
            for dim in range(len(dims)):
                state[f"{name}.{dim}"] = distribute_tensor(tensor, flat, [Shard(dim)])
            state[f"{name}.same"] = distribute_tensor(tensor, flat, [Replicate()])
            state[f"{name}.plain"] = tensor
            if square.ndim == 2 and len(dims) > 1:
                for first in range(len(dims)):
                    for second in range(len(dims)):
                        if first != second:
                            place = [Shard(first), Shard(second)]
                            state[f"{name}.{first}{second}"] = distribute_tensor(tensor, square, place)
    state["empty"] = torch.zeros(0, 3)
    state["scalar"] = torch.tensor(3.5)
    state["text"] = "not a tensor"
    save({"model": state}, folder / "tensors")


def write_large(folder: Path, millions: int) -> None:
    hidden, inner, vocabulary = 1024, 2816, 32000
    each = 4 * hidden * hidden + 3 * hidden * inner
    model = nn.Module()
    model.model = nn.Module()
    with torch.device("meta"):
        model.model.embed_tokens = nn.Embedding(vocabulary, hidden)
        model.model.layers = nn.ModuleList()
        for _ in range(max(1, (millions * 10**6 - 2 * vocabulary * hidden) // each)):
            layer = nn.Module()
            layer.self_attn = nn.Module()
            layer.mlp = nn.Module()
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                setattr(layer.self_attn, name, nn.Linear(hidden, hidden, bias=False))
            for name in ("gate_proj", "up_proj"):
                setattr(layer.mlp, name, nn.Linear(hidden, inner, bias=False))
            layer.mlp.down_proj = nn.Linear(inner, hidden, bias=False)
            layer.input_layernorm = nn.RMSNorm(hidden)
            layer.post_attention_layernorm = nn.RMSNorm(hidden)
            model.model.layers.append(layer)
        model.model.norm = nn.RMSNorm(hidden)
        model.lm_head = nn.Linear(hidden, vocabulary, bias=False)
    model = model.bfloat16()
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.to_local().normal_(0, 0.02)
    save({"model": get_model_state_dict(model, options=StateDictOptions())}, folder / "pytorch_model_fsdp_0")


def main() -> None:
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store-{world}", rank=rank, world_size=world)
    if len(sys.argv) > 4:
        write_large(folder, int(sys.argv[4]))
    else:
        write_tensors(folder, world)
        if world > 2:
            write_parallel(folder)
            write_hybrid(folder)
        write_fsdp2(folder, world)
        write_lora(folder)
        write_fsdp1(folder)
    dist.barrier()
    dist.destroy_process_group()
    # device meshes keep the group: a thread of Gloo that frees a tensor when the interpreter is gone would abort
    os._exit(0)


if __name__ == "__main__":
    main()
