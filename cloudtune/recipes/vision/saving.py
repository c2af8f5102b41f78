"""What a training writes: sharded checkpoints to go on from, and at the end a model, its shards, or an adapter.

Every process writes what it holds, by PyTorch's distributed checkpoints. They lie where accelerate puts them
(``checkpoint-N/pytorch_model_fsdp_0``), so that ``cloudtune consolidate`` makes a model of any of them.
"""

import json
import resource
import shutil
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from faults import RecipeError
from model import stored_dtype
from options import Options
from ranks import LOCAL_RANK, RANK, WORLD_SIZE, is_shared, nodes
from resuming import close
from torch import distributed
from torch.distributed import checkpoint as dcp

MODEL, OPTIMIZER, STATE = "pytorch_model_fsdp_0", "optimizer_0", "trainer_state.json"
#: What Adam remembers of each parameter.
MOMENTS = ("exp_avg", "exp_avg_sq")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file for people and programs."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def kept_tensors(model: Any, options: Options) -> dict[str, Any]:
    """Return the parameters that a checkpoint has: all of them, or those of an adapter."""
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if options.method == "full" or parameter.requires_grad
    }


def moments(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what the optimizer remembers, by the names of the parameters; nothing yet are zeros."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            state = optimizer.state.get(parameter) or {}
            for kind in MOMENTS:
                found[f"{name}.{kind}"] = state[kind] if kind in state else torch.zeros_like(parameter.detach())
    return found


def save_checkpoint(
    folder: Path, model: Any, optimizer: torch.optim.Optimizer, state: dict[str, Any], options: Options, *, apart: bool
) -> None:
    """Write a checkpoint of this step; every rank must call it. ``apart``: the nodes share no folder."""
    checkpoint = folder / f"checkpoint-{state['global_step']}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    _write(checkpoint / MODEL, {"model": kept_tensors(model, options)})
    _write(checkpoint / OPTIMIZER, {"optimizer": moments(model, optimizer)})
    if apart:
        for name in (MODEL, OPTIMIZER):
            _spread_metadata(checkpoint / name)
    if RANK == 0 or (apart and LOCAL_RANK == 0):
        write_json(checkpoint / STATE, state)
    close(checkpoint, apart=apart)
    if RANK == 0 or (apart and LOCAL_RANK == 0):
        _forget(folder, options.save_total_limit)


def load_checkpoint(checkpoint: Path, model: Any, optimizer: torch.optim.Optimizer, options: Options) -> dict[str, Any]:
    """Take up a checkpoint; return the state of the training then. Every rank must call it."""
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    if state.get("method") != options.method:
        raise RecipeError(
            f"{checkpoint} is of a training by {state.get('method')}, and this one is by {options.method}\n"
            "  hint: resume: never starts anew; another output folder keeps both"
        )
    _read(checkpoint / MODEL, {"model": kept_tensors(model, options)})
    remembered = moments(model, optimizer)
    _read(checkpoint / OPTIMIZER, {"optimizer": remembered})
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = {kind: remembered[f"{name}.{kind}"] for kind in MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(state["global_step"])), **own}
    return state


def save_result(model: Any, processor: Any, options: Options) -> Path:
    """Write what the training has made, whole or not at all; every rank must call it.

    ``adapter`` for LoRA; ``model`` where one process has all of it; else ``sharded``, of which ``cloudtune
    consolidate`` makes a model: no process could hold a large one whole. Nodes that share the folder write one result.
    """
    output, full = Path(options.output_dir), options.method == "full"
    final = output / ("adapter" if not full else "model" if WORLD_SIZE == 1 else "sharded")
    partial = final.with_name(final.name + ".partial")
    keeps = RANK == 0 if is_shared(output) else LOCAL_RANK == 0
    if keeps:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    _meet()
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = True
    if full and WORLD_SIZE > 1:
        dtype = stored_dtype(options)
        _write(partial, {"model": {name: one.to(dtype) for name, one in kept_tensors(model, options).items()}})
    else:
        whole = _whole(model) if not full else None
        if RANK == 0:
            _save_pretrained(model, whole, options, partial)
    if RANK == 0:
        processor.save_pretrained(partial)
        if full and WORLD_SIZE > 1:
            model.config.save_pretrained(partial)
    _meet()
    if keeps:
        if any(partial.iterdir()):
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
        else:
            partial.rmdir()
    _meet()
    return final


def record_of(options: Options, model: Any, sharding: str, run: str | None) -> dict[str, Any]:
    """Return what made this model: everything that a later step or reader needs to know."""
    names = ("torch", "transformers", "peft", "accelerate", "datasets")
    whole = "model" if WORLD_SIZE == 1 else "sharded"
    return {
        "run": run,
        "recipe": "vision",
        "base": options.model,
        "revision": getattr(model.config, "_commit_hash", None),
        "method": options.method,
        "artifact": whole if options.method == "full" else "adapter",
        "nodes": nodes(),
        "processes": WORLD_SIZE,
        "sharding": sharding,
        "options": options.record(),
        "versions": {name: metadata.version(name) for name in names},
    }


def peak_memory_bytes() -> int:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _meet() -> None:
    if distributed.is_initialized():
        distributed.barrier()


def _write(folder: Path, value: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.distributed")
        dcp.save(value, checkpoint_id=folder, no_dist=WORLD_SIZE == 1)


def _read(folder: Path, value: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.distributed")
        dcp.load(value, checkpoint_id=folder, no_dist=WORLD_SIZE == 1)


def _spread_metadata(folder: Path) -> None:
    """Put beside the shards of every node what says where all of them are."""
    told = [(folder / ".metadata").read_bytes() if RANK == 0 else b""]
    distributed.broadcast_object_list(told, src=0)
    if LOCAL_RANK == 0 and RANK != 0:
        (folder / ".metadata").write_bytes(told[0])


def _forget(folder: Path, limit: int) -> None:
    found = sorted((int(path.name.rpartition("-")[2]), path) for path in folder.glob("checkpoint-*") if path.is_dir())
    for _, path in found[: max(0, len(found) - limit)]:
        shutil.rmtree(path, ignore_errors=True)


def _whole(model: Any) -> dict[str, Any]:
    """Return the tensors of an adapter, put together on the first rank; every rank must call it."""
    whole = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensor = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
            if RANK == 0:
                whole[name] = tensor.detach().cpu()
    return whole


def _save_pretrained(model: Any, adapter: dict[str, Any] | None, options: Options, folder: Path) -> None:
    if adapter is not None:
        if not adapter:
            raise RecipeError("the adapter has no tensor: nothing was trained")
        model.save_pretrained(folder, state_dict=adapter)
        return
    model.to(stored_dtype(options)).save_pretrained(folder)
