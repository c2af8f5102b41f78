"""``cloudtune watch``: every replica's log until the end."""

from __future__ import annotations

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
    from cloudtune.cli.watching import chosen, follow, show_json
    from cloudtune.states import EXIT_CODES, NOT_FINISHED

    found = verbs.status(run)
    if output == "json":
        show_json(chosen(found, filters, follow=True))
        return EXIT_CODES.get(found.state, NOT_FINISHED)
    return follow(found, lines=chosen(found, filters, follow=True))
