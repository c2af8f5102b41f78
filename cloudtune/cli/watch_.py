"""``cloudtune watch``: every replica's log until the end."""

from __future__ import annotations

import sys
from typing import Any

import click

from cloudtune.cli import options


@click.command("watch")
@click.argument("run")
@options.filters
@options.output("text", "json")
def command(run: str, output: str, **filters: Any) -> int:
    """Show every replica's log until the run has ended; ends with the run's result.

    RUN is a run id, a unique beginning of one, or the cloud's own id. It works from any terminal, also after the first
    one is gone and after the end of the run.
    """
    from cloudtune import verbs
    from cloudtune.cli.watching import follow, show_json, show_lines, tell_end

    found = verbs.status(run)

    def show() -> None:
        lines = () if verbs.unsubmitted(found) else found.logs(**filters, follow=True)
        if output == "json":
            show_json(lines)
        else:
            show_lines(lines, live=sys.stderr.isatty())
            tell_end(found)

    return follow(found, show)
