"""What happens around the steps: lines of loss, a stop on SIGTERM, checkpoints to go on from."""

import signal
import time
from pathlib import Path
from typing import Any

import torch
from faults import RecipeError
from flags import called
from model import prove_sharding
from options import Options
from ranks import RANK, say
from resuming import chosen_checkpoint, close
from torch import distributed
from transformers import TrainerCallback


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
        close(Path(args.output_dir) / f"checkpoint-{state.global_step}", apart=args.save_on_each_node)


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


def checkpoint_to_resume(options: Options, route: str) -> str | None:
    """Return the checkpoint to go on from, the same on all ranks, or None to start anew; every rank must call it."""
    chosen = chosen_checkpoint(options.resume, options.output_dir)
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
