"""``cloudtune cancel``: end a run."""

from __future__ import annotations

import click

from cloudtune.cli import options


@click.command("cancel")
@click.argument("run")
@options.output("text", "json")
def command(run: str, output: str) -> int:
    """End a run: every process of every node. A run that has ended already is left as it is."""
    from cloudtune import verbs

    status = verbs.cancel(run)
    if output == "json":
        options.emit(verbs.status(run).to_dict(), "json")
    else:
        click.echo(f"run {run} is {status.state}", err=True)
    if status.finished:
        return 0
    click.echo(f"  hint: it is still ending; cloudtune status {run} tells when it has", err=True)
    return 101
