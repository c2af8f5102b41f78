"""How a running job is shown: its lines, a live line on a terminal, and how it ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from cloudtune.cli.talk import nobody_reads, say
from cloudtune.plan import Notice, Plan
from cloudtune.runs import Run, label
from cloudtune.states import NOT_FINISHED, LogLine
from cloudtune.verbs import filed_by, to_continue, unsubmitted
from cloudtune.workspace import Workspace


def follow(run: Run, show: Callable[[], None]) -> int:
    """Show a run until it has ended and return its exit code; Ctrl-C, or a reader that goes away, leaves it going."""
    try:
        show()
    except KeyboardInterrupt:
        say(f"\nrun {run.id} goes on; come back with: cloudtune watch {run.id}")
        say(f"  end it with: cloudtune cancel {run.id}")
        return 130
    except BrokenPipeError:
        nobody_reads(sys.stdout)
        if run.exit_code == NOT_FINISHED:
            say(f"run {run.id} goes on; come back with: cloudtune watch {run.id}")
    return run.exit_code


def warn(warnings: Iterable[Notice]) -> None:
    """Say a plan's warnings."""
    for warning in warnings:
        say(f"warning: {warning.path}: {warning.message}")


def tell_uploads(plan: Plan) -> None:
    """Say how many files and bytes travel with the job."""
    for step in plan.steps:
        if step.files:
            say(f"{step.id}: {Workspace(root=Path(), files=step.files).summary()}")


def show_lines(lines: Iterable[LogLine], *, live: bool = False) -> None:
    """Print lines with who wrote them; on a terminal with a live line of step, loss, tokens/s and time left below."""
    if live:
        from cloudtune.display import live_lines

        live_lines(lines)
        return
    for line in lines:
        click.echo(label(line) + line.text)


def show_json(lines: Iterable[LogLine]) -> None:
    """Print one JSON object a line."""
    for line in lines:
        click.echo(json.dumps(line_dict(line), ensure_ascii=False))


def line_dict(line: LogLine) -> dict[str, Any]:
    """Return a line as the contract's JSON has it."""
    moment = datetime.fromtimestamp(line.time, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    data = {"time": moment, "replica": line.replica, "rank": line.rank, "stream": line.stream, "text": line.text}
    return {**data, "step": line.step} if line.step else data


def tell_end(run: Run, *, goes: bool = False) -> None:
    """Say how the run ended, who failed first, and what to do next; nothing can be done with a run that ``goes``."""
    status = run.status
    if status.state == "succeeded":
        say(f"run {run.id} succeeded")
        if goes:
            return
        for uri in run.outputs():
            say(f"  outputs: {uri}")
        for model in filed_by(run):
            losses = [model.metrics.get(name) for name in ("eval_loss_before", "eval_loss")]
            told = f", evaluation loss {losses[0]:.3g} -> {losses[1]:.3g}" if all(losses) else ""
            say(f"  model: {model.name}:{model.version}{told}")
            say(f'  ask it: cloudtune deploy {model.name}; cloudtune invoke {model.name} "..."')
        return
    reason = status.reason if status.reason != status.state else None
    say(f"run {run.id} {status.state}" + (f": {reason}" if reason else ""))
    if unsubmitted(run) and not goes:
        say(f"  {to_continue(run)}")
    if status.failure is not None:
        say(f"  first to fail: {status.failure}" + ("; its last lines:" if status.failure.lines else ""))
        for line in status.failure.lines[-12:]:
            say(f"    {line}")
        if status.failure.hint:
            say(f"  hint: {status.failure.hint}")
    if status.state in {"failed", "lost"} and not goes:
        say(f"  the whole log: cloudtune logs {run.id}")
        if run.is_pipeline:
            say(f"  go on with the step that failed: cloudtune run --resume {run.id}")
