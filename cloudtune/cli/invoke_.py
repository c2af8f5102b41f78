"""``cloudtune invoke``: ask a served model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from cloudtune.cli import options


@click.command("invoke")
@click.argument("deployment")
@click.argument("prompt", required=False)
@click.option(
    "--image",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="A picture; repeatable.",
)
@click.option("--body", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="The whole request as JSON.")
@options.output("text", "json")
def command(deployment: str, prompt: str | None, image: tuple[str, ...], body: str | None, output: str) -> None:
    """Ask a served model, or one of Bedrock's by its name; the answer appears as it comes.

    Without a prompt it is read from standard input.

    With ``-o json`` it is printed at the end, as {"answer": ...}.
    """
    from cloudtune import verbs

    data = _request(body) if body is not None else None
    text = prompt if prompt is not None or body is not None else sys.stdin.read()
    if text is not None and not text.strip():
        raise click.UsageError(f'there is no prompt: cloudtune invoke {deployment} "..."')
    if output == "json":
        options.emit({"answer": verbs.invoke(deployment, text, body=data, image=image)}, "json")
    elif data is not None:
        click.echo(verbs.invoke(deployment, text, body=data, image=image))
    else:
        verbs.invoke(deployment, text, image=image, show=lambda piece: click.echo(piece, nl=False))
        click.echo()


def _request(file: str) -> dict[str, Any]:
    """Return the request in a file."""
    try:
        data = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.UsageError(f"{file} is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise click.UsageError(f"{file} holds no JSON object")
    return data
