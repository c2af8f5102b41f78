"""``cloudtune init``: a ready-made job file."""

from __future__ import annotations

import click


@click.command("init")
@click.argument("name", required=False)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def command(name: str | None, force: bool) -> None:
    """Write a ready-made job file into this folder; without a name, list them."""
    from cloudtune import verbs

    if name is None:
        for known, summary in verbs.examples().items():
            click.echo(f"{known:<36} {summary}")
        return
    for path in verbs.init(name, force=force):
        click.echo(path)
