"""How a running job is shown: its lines, a live line on a terminal, and how it ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from cloudtune.plan import Notice, Plan
from cloudtune.runs import Run, label
from cloudtune.states import EXIT_CODES, NOT_FINISHED, LogLine, Status
from cloudtune.workspace import Workspace


def follow(run: Run, *, output: str = "text", quiet: bool = False, lines: Iterable[LogLine] | None = None) -> int:
    """Show the lines of a run until it has ended; return the exit code. Ctrl-C leaves the run going."""
    try:
        chosen = run.lines(follow=True) if lines is None else lines
        if quiet:
            run.wait()
        elif output == "text":
            show_lines(chosen, live=sys.stderr.isatty())
        else:
            for line in chosen:
                click.echo(label(line) + line.text, err=True)
        status = run.status
    except KeyboardInterrupt:
        click.echo(f"\nrun {run.id} goes on; come back with: cloudtune watch {run.id}", err=True)
        click.echo(f"  end it with: cloudtune cancel {run.id}", err=True)
        return 130
    if output != "text":
        from cloudtune.cli.options import emit

        emit(run.to_dict(), output)
    elif not quiet:
        tell_end(run, status)
    return EXIT_CODES.get(status.state, NOT_FINISHED)


def warn(warnings: Iterable[Notice]) -> None:
    """Say a plan's warnings."""
    for warning in warnings:
        click.echo(f"warning: {warning.path}: {warning.message}", err=True)


def tell_uploads(plan: Plan) -> None:
    """Say how many files and bytes travel with the job."""
    for step in plan.steps:
        if step.files:
            click.echo(f"{step.id}: {Workspace(root=Path(), files=step.files).summary()}", err=True)


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


def tell_end(run: Run, status: Status) -> None:
    """Say how the run ended, who failed first, and what to do next."""
    if status.state == "succeeded":
        click.echo(f"run {run.id} succeeded", err=True)
        for uri in run.outputs():
            click.echo(f"  outputs: {uri}", err=True)
        return
    click.echo(f"run {run.id} {status.state}" + (f": {status.reason}" if status.reason else ""), err=True)
    failure = status.failure
    if failure is not None:
        click.echo(f"  first to fail: {failure}; its last lines:", err=True)
        for line in failure.lines[-12:]:
            click.echo(f"    {line}", err=True)
    if status.state in {"failed", "lost"}:
        click.echo(f"  the whole log: cloudtune logs {run.id}", err=True)


def chosen(run: Run, filters: dict[str, Any], *, follow: bool) -> Iterator[LogLine]:
    """Return the lines that the options choose."""
    return run.logs(**filters, follow=follow)
