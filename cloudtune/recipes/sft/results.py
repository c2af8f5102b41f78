"""What a training leaves: the adapter or model, its measures, and the record of how it was made."""

import json
import os
import resource
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import model as models
import torch
from faults import RecipeError
from options import Options
from ranks import RANK, WORLD_SIZE, nodes
from safetensors import safe_open
from templates import portable
from trl import SFTTrainer


def evaluation_losses(history: list[dict[str, Any]]) -> tuple[float | None, float | None, int]:
    """Return the evaluation loss before the first step, the last one, and the step that it was taken at."""
    taken = [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]
    before = next((loss for step, loss in taken if step == 0), None)
    last_step, last = taken[-1] if taken else (-1, None)
    return before, last, last_step


def measure(trainer: SFTTrainer, trained: Any, *, evaluates: bool) -> dict[str, Any]:
    """Return what the training came to; every rank must call it."""
    state = trainer.state
    before, after, step = evaluation_losses(state.log_history)
    if evaluates and step != state.global_step:
        after = trainer.evaluate()["eval_loss"]
    tokens = next((entry["num_tokens"] for entry in reversed(state.log_history) if "num_tokens" in entry), None)
    seconds = trained.metrics.get("train_runtime")
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "eval_loss_before": before,
        "eval_loss": after,
        "train_loss": trained.training_loss,
        "steps": state.global_step,
        "epochs": state.epoch,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds if tokens and seconds else None,
        "train_seconds": seconds,
        "peak_memory_bytes": peak_kib * (1 if sys.platform == "darwin" else 1024),
        "peak_accelerator_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }


def record_of(options: Options, trainer: SFTTrainer, sharding: str) -> dict[str, Any]:
    """Return what made this model: everything that a later step or reader needs to know."""
    names = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
    return {
        "run": os.environ.get("CLOUDTUNE_RUN_ID"),
        "recipe": "sft",
        "base": options.model,
        "revision": getattr(trainer.model.config, "_commit_hash", None),
        "method": options.method,
        "artifact": "model" if options.method == "full" else "adapter",
        "nodes": nodes(),
        "processes": WORLD_SIZE,
        "sharding": sharding,
        "options": options.record(),
        "versions": {name: metadata.version(name) for name in names},
    }


def whole_tensors(model: Any, *, trained_only: bool) -> dict[str, Any]:
    """Return the tensors of a sharded model, put together on the first rank; every rank must call it."""
    whole = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if trained_only and not tensor.requires_grad:
            continue
        gathered = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        if RANK == 0:
            whole[name] = gathered.detach().cpu()
    return whole


def save_whole(model: Any, state: dict[str, Any], options: Options, folder: Path) -> None:
    """Write tensors that were put together on this rank; a full model in the precision of its base."""
    if options.method != "full":
        model.save_pretrained(folder, state_dict=state)
        return
    dtype = models.stored_dtype(options)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    state = {name: tensor.to(dtype) for name, tensor in state.items() if name not in tied}
    model.save_pretrained(folder, state_dict=state)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, "dtype": str(dtype).removeprefix("torch.")})


def check_saved(folder: Path) -> None:
    """Make sure that tensors were written, since libraries have been seen to save adapters without any."""
    files = list(folder.glob("*.safetensors"))
    for path in files:
        with safe_open(path, framework="pt") as file:
            if file.keys():
                return
    names = ", ".join(path.name for path in files) or "no .safetensors file"
    raise RecipeError(
        f"nothing was saved: {folder} holds {names} without a tensor; the last checkpoint has the weights"
    )


def save_result(trainer: SFTTrainer, options: Options, route: str) -> Path:
    """Write the adapter or the model with its tokenizer, whole or not at all; every rank must call it."""
    output, tokenizer, full = Path(options.output_dir), trainer.processing_class, options.method == "full"
    final = output / ("model" if full else "adapter")
    partial = final.with_name(final.name + ".partial")
    if RANK == 0:
        shutil.rmtree(partial, ignore_errors=True)
    if isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = portable(tokenizer.chat_template)
    trainer.args.save_on_each_node = False
    trainer.model.config.use_cache = True  # the trainer turned it off; answers are slow without it
    if route == "wrapped":
        state = whole_tensors(trainer.model, trained_only=not full)
        if RANK == 0:
            save_whole(trainer.accelerator.unwrap_model(trainer.model), state, options, partial)
            tokenizer.save_pretrained(partial)
    else:
        if full:
            trainer.model.to(models.stored_dtype(options))
            trainer.model.tie_weights()
        trainer.save_model(str(partial))
    if RANK == 0:
        check_saved(partial)
        (partial / "training_args.bin").unlink(missing_ok=True)  # a pickle; training.json says the same in text
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    return final


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file for people and programs."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
