"""``cloudtune logs``: what a run has logged so far."""

from __future__ import annotations

from typing import Any

import click

from cloudtune.cli import options


@click.command("logs")
@click.argument("run")
@options.filters
@options.output("text", "json")
def command(run: str, output: str, **filters: Any) -> None:
    """Print what all replicas of a run have logged so far, merged by time.

    With ``-o json`` one object a line: time, replica, rank, stream, text.
    """
    from cloudtune import verbs
    from cloudtune.cli.watching import show_json, show_lines

    lines = verbs.logs(run, **filters)
    if output == "json":
        show_json(lines)
    else:
        show_lines(lines)
