"""The steps of a training: forward and backward over a share of the rows, the optimizer, lines of loss, a stop."""

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from batches import IGNORED, Collator, every_row, loader, steps_of, training_batches
from model import device, trained, uses_bf16
from options import Options
from pictures import Pictures
from ranks import RANK, WORLD_SIZE, device_kind, is_shared, nodes, say
from resuming import checkpoint_folder, chosen_checkpoint
from saving import load_checkpoint, save_checkpoint
from torch import distributed
from torch.nn import functional
from transformers import get_scheduler


def loss_of(model: Any, batch: dict[str, torch.Tensor], options: Options) -> tuple[torch.Tensor, int]:
    """Return the sum of the losses of all tokens of the answers in a batch, and how many tokens these are."""
    placed = {name: tensor.to(device(), non_blocking=True) for name, tensor in batch.items()}
    labels = placed.pop("labels")[:, 1:].reshape(-1)
    # what is sharded computes as its policy says; what is whole is told here
    whole = WORLD_SIZE == 1 and uses_bf16(options)
    with torch.autocast(device_kind(), torch.bfloat16) if whole else contextlib.nullcontext():
        logits = model(**placed).logits
    logits = logits[:, :-1].float().reshape(-1, logits.shape[-1])
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return total, int((labels != IGNORED).sum())


def summed(*values: float) -> list[float]:
    """Return the sums of numbers over all processes; every rank must call it."""
    numbers = torch.tensor(values, dtype=torch.float64, device="cpu" if device_kind() == "cpu" else device())
    if WORLD_SIZE > 1:
        distributed.all_reduce(numbers)
    return [float(one) for one in numbers.cpu()]


class Stop:
    """Remembers that SIGTERM came: the step that is under way is finished first."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self.ask)

    def ask(self, number: int, frame: Any) -> None:
        """Take the signal."""
        self.asked = True


class Trainer:
    """A training from where it stands to its end, or to a stop."""

    def __init__(
        self, model: Any, data: Pictures, apart: Pictures | None, collator: Collator, options: Options
    ) -> None:
        self.model, self.data, self.apart, self.collator, self.options = model, data, apart, collator, options
        self.once, self.steps = steps_of(options, len(data))
        parameters = trained(model)
        self.optimizer = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=options.weight_decay)
        self.workers = options.workers if options.workers >= 0 else 4 * (device_kind() != "cpu")
        self.folder = checkpoint_folder(options.output_dir)
        self.step, self.tokens, self.losses, self.seconds = 0, 0, 0.0, 0.0
        self.eval_before: float | None = None
        self.stop = Stop()

    def run(self) -> bool:
        """Train to the end; return False where a signal has stopped it. Every rank must call it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        spread = nodes() > 1 and not is_shared(self.folder)
        self._take_up()
        schedule = self._schedule()
        if self.apart is not None and self.eval_before is None:
            self.eval_before = self.evaluate()
        self.model.train()
        torch.manual_seed(self.options.seed + 1000 * self.step + RANK)
        coming = training_batches(self.options, self.data, self.collator, self.step, self.workers)
        began, seen = time.monotonic(), self.tokens
        logged: list[float] = []
        for parts in self._parts(coming):
            loss, norm, tokens = self._one(parts)
            schedule.step()
            self.step += 1
            self.tokens += tokens
            self.losses += loss
            logged.append(loss)
            if self.step % self.options.logging_steps == 0 or self.step == self.steps:
                speed = (self.tokens - seen) / max(time.monotonic() - began, 1e-9)
                self._tell(logged, norm, schedule.get_last_lr()[0], speed)
                logged = []
            stopped = bool(summed(float(self.stop.asked))[0])
            if stopped or self._is_due():
                self.seconds += time.monotonic() - began
                began, seen = time.monotonic(), self.tokens
                self._save(spread=spread)
            if stopped and self.step < self.steps:
                return False
        self.seconds += time.monotonic() - began
        return True

    def evaluate(self) -> float:
        """Return the mean loss of the answers' tokens in the rows for evaluation; every rank must call it."""
        assert self.apart is not None
        self.model.eval()
        chosen = every_row(self.options, len(self.apart))
        total, count = 0.0, 0
        batches = loader(self.apart, [rows for rows, _ in chosen], self.collator, self.workers)
        for batch, (_, valid) in zip(batches, chosen, strict=True):
            batch["labels"][valid:] = IGNORED  # rows that only fill up
            with torch.no_grad():
                loss, tokens = loss_of(self.model, batch, self.options)
            total, count = total + float(loss), count + tokens
        self.model.train()
        total, count = summed(total, count)
        return total / max(count, 1)

    def state(self) -> dict[str, Any]:
        """Return what a later process needs to know to go on."""
        return {
            "global_step": self.step,
            "max_steps": self.steps,
            "method": self.options.method,
            "tokens": self.tokens,
            "losses": self.losses,
            "seconds": self.seconds,
            "eval_loss_before": self.eval_before,
        }

    def _take_up(self) -> None:
        checkpoint = chosen_checkpoint(self.options.resume, self.options.output_dir)
        if checkpoint is None:
            return
        say(f"resume: going on from {checkpoint}")
        state = load_checkpoint(checkpoint, self.model, self.optimizer, self.options)
        self.step, self.tokens, self.losses = state["global_step"], state["tokens"], state["losses"]
        self.seconds, self.eval_before = state["seconds"], state["eval_loss_before"]

    def _schedule(self) -> Any:
        warmup = self.options.warmup
        first = math.ceil(warmup * self.steps) if warmup < 1 else int(warmup)
        schedule = get_scheduler(self.options.scheduler, self.optimizer, first, self.steps)
        if self.step:
            schedule.last_epoch = self.step - 1
            self.optimizer.step()  # without gradients nothing changes; the schedule wants it before its own
            schedule.step()
        return schedule

    def _parts(self, coming: Iterator[Any]) -> Iterator[list[Any]]:
        """Yield the batches of one step after the other."""
        while self.step < self.steps:
            yield [next(coming) for _ in range(self.options.gradient_accumulation)]

    def _one(self, parts: list[Any]) -> tuple[float, float, int]:
        """Make one step; return the mean loss of its answers over all processes, the norm, and the tokens it saw."""
        own = float(sum(int((part["labels"][:, 1:] != IGNORED).sum()) for part in parts))
        read = float(sum(int(part["attention_mask"].sum()) for part in parts))
        answers, seen = summed(own, read)
        total = 0.0
        for number, part in enumerate(parts, 1):
            if WORLD_SIZE > 1:
                self.model.set_requires_gradient_sync(number == len(parts))
            loss, _ = loss_of(self.model, part, self.options)
            # processes' gradients are averaged, and the mean over all tokens is wanted
            (loss * (WORLD_SIZE / max(answers, 1.0))).backward()
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(trained(self.model), self.options.max_grad_norm)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        self.optimizer.step()
        self.optimizer.zero_grad()
        return summed(total)[0] / max(answers, 1.0), float(norm), int(seen)

    def _is_due(self) -> bool:
        every = {"no": 0, "steps": self.options.save_steps, "epoch": self.once}[self.options.save_strategy]
        return bool(every) and (self.step % every == 0 or self.step == self.steps)

    def _save(self, *, spread: bool) -> None:
        save_checkpoint(self.folder, self.model, self.optimizer, self.state(), self.options, apart=spread)

    def _tell(self, losses: list[float], norm: float, rate: float, speed: float) -> None:
        if RANK != 0:
            return
        shown = {
            "loss": sum(losses) / len(losses),
            "grad_norm": norm,
            "learning_rate": rate,
            "epoch": self.step / self.once,
            "tokens_per_second": speed,
        }
        told = {key: float(f"{value:.4g}") for key, value in shown.items()}
        print({**told, "step": self.step, "max_steps": self.steps}, flush=True)


def begin(options: Options) -> None:
    """Join the other processes of the job, by torchrun's variables."""
    torch.manual_seed(options.seed)
    Path(options.output_dir).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if device_kind() != "cpu":
        torch.accelerator.set_device_index(device().index)
    if WORLD_SIZE > 1:
        kind = device_kind()
        distributed.init_process_group("gloo" if kind == "cpu" else None)
