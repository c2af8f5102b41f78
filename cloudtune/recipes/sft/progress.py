"""What happens around the steps: lines of loss, a stop on SIGTERM, checkpoints to go on from."""

import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import torch
from checkpoints import doubts, look, look_at, order_by_age, write_list
from faults import RecipeError
from flags import called
from model import prove_sharding
from options import Options
from ranks import LOCAL_RANK, RANK, WORLD_SIZE, nodes, say
from torch import distributed
from transformers import TrainerCallback

CHECKPOINTS = "checkpoints"
NODE = int(os.environ.get("CLOUDTUNE_NODE_RANK") or os.environ.get("GROUP_RANK") or 0)


class LossLines(TrainerCallback):
    """Prints one line a log step on the first rank of the job, and adds tokens a second to what is logged."""

    def __init__(self) -> None:
        self.last_time = time.monotonic()
        self.last_tokens = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.last_time = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Print what was logged, as transformers prints it, with the step and how many there are."""
        if logs is None or RANK != 0:
            return
        logs.pop("total_flos", None)
        if "loss" in logs and "num_tokens" in logs:
            now, tokens = time.monotonic(), float(logs["num_tokens"])
            logs["tokens_per_second"] = (tokens - self.last_tokens) / max(now - self.last_time, 1e-9)
            self.last_time, self.last_tokens = now, tokens
        shown = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in logs.items()}
        if "loss" in shown:
            shown |= {"step": state.global_step, "max_steps": state.max_steps}
        print(shown, flush=True)


class Sharding(TrainerCallback):
    """Says at the start of training which strategy is really in use, and fails if it is not the one asked for."""

    def __init__(self, route: str) -> None:
        self.route = route
        self.line = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Count what is sharded."""
        self.line = prove_sharding(model, self.route)
        say(self.line)


class ListFiles(TrainerCallback):
    """Writes the list of a checkpoint's files when every rank has written its own."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the checkpoint that was just saved."""
        marks = [uuid.uuid4().hex]
        if distributed.is_initialized():
            distributed.broadcast_object_list(marks, src=0)
            distributed.barrier()
        if LOCAL_RANK == 0 if args.save_on_each_node else RANK == 0:
            number, expected = (NODE, nodes()) if args.save_on_each_node else (0, 1)
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_list(folder, mark=marks[0], number=number, expected=expected)


class StopOnSignal(TrainerCallback):
    """On SIGTERM: saves a checkpoint at the end of the step and stops, on all ranks at the same step."""

    def __init__(self) -> None:
        self.asked = False
        self.stopped = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the signal from here on."""
        signal.signal(signal.SIGTERM, self.ask)

    def ask(self, number: int, frame: Any) -> None:
        """Remember that the signal came; the step that is under way is finished first."""
        self.asked = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Stop if any rank was asked to: the signal may reach them in different steps."""
        asked = torch.tensor(float(self.asked), device=args.device)
        if distributed.is_initialized():
            distributed.all_reduce(asked, op=distributed.ReduceOp.MAX)
        if asked.item():
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
        return control


def checkpoint_folder(options: Options) -> Path:
    """Return where checkpoints go: a folder that outlives interruptions where the place has one, else the outputs'."""
    kept = os.environ.get("CLOUDTUNE_CHECKPOINT_DIR")
    return Path(kept) if kept else Path(options.output_dir) / CHECKPOINTS


def checkpoint_to_resume(options: Options, route: str) -> str | None:
    """Return the checkpoint to go on from, the same on all ranks, or None to start anew; every rank must call it."""
    if options.resume == "never":
        return None
    chosen = _newest_whole(checkpoint_folder(options)) if options.resume == "auto" else _named(Path(options.resume))
    if chosen is not None and route == "loaded":
        raise RecipeError(
            f"cannot go on from {chosen}: a model that is sharded while it is read "
            f"({called('sharding', 'fsdp')} on a CPU) keeps no optimizer state in its checkpoints\n"
            f"  hint: {called('resume', 'never')} starts anew; "
            f"{called('sharding', 'none')} can go on"
        )
    if chosen is not None:
        say(f"resume: going on from {chosen}")
    return str(chosen) if chosen is not None else None


def _named(path: Path) -> Path:
    """Return a checkpoint that was asked for; one of another trainer has no list of its files."""
    if fault := look_at(path).fault:
        raise RecipeError(
            f"{called('resume', path)}: no whole checkpoint there: {fault}\n"
            f"  hint: {called('resume', 'auto')} takes the newest one"
        )
    return path


def _newest_whole(folder: Path) -> Path | None:
    """Return the newest checkpoint that is whole; says why newer ones are not."""
    here = look(folder)
    everywhere = [here] * WORLD_SIZE
    if WORLD_SIZE > 1:
        distributed.all_gather_object(everywhere, here)
    doubted = doubts(everywhere)
    whole = [step for step, why in doubted.items() if not why]
    for step, why in sorted(doubted.items(), reverse=True):
        if why and step > max(whole, default=-1):
            say(f"resume: checkpoint-{step} is left out, it is not whole: {why}")
    if doubted and not whole:
        say("resume: no checkpoint is whole; starting anew")
    if LOCAL_RANK == 0:
        order_by_age(folder, (*(step for step, why in doubted.items() if why and step in here), *whole))
    return folder / f"checkpoint-{whole[-1]}" if whole else None
