"""``cloudtune invoke``: ask a served model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.command("invoke")
@click.argument("deployment")
@click.argument("prompt", required=False)
@click.option("--body", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="The whole request as JSON.")
def command(deployment: str, prompt: str | None, body: str | None) -> None:
    """Ask a served model; without a prompt it is read from standard input. The answer appears as it comes."""
    from cloudtune import verbs

    if body is not None:
        try:
            data = json.loads(Path(body).read_text())
        except ValueError as error:
            raise click.UsageError(f"{body} is no JSON: {error}") from error
        click.echo(verbs.invoke(deployment, body=data))
        return
    text = prompt if prompt is not None else sys.stdin.read()
    if not text.strip():
        raise click.UsageError("there is no prompt")
    verbs.invoke(deployment, text, show=lambda piece: click.echo(piece, nl=False))
    click.echo()
