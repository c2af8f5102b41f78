"""``cloudtune init``: a ready-made job file."""

from __future__ import annotations

import click

from cloudtune.cli import options


@click.command("init")
@click.argument("name", required=False)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@options.output("text", "json")
def command(name: str | None, force: bool, output: str) -> None:
    """Write a ready-made job file into this folder; without a name, list them."""
    from cloudtune import verbs

    if name is None and output == "json":
        options.emit([{"name": known, "summary": summary} for known, summary in verbs.examples().items()], "json")
    elif name is None:
        for known, summary in verbs.examples().items():
            click.echo(f"{known:<36} {summary}")
    elif output == "json":
        options.emit([str(path) for path in verbs.init(name, force=force)], "json")
    else:
        for path in verbs.init(name, force=force):
            click.echo(path)
