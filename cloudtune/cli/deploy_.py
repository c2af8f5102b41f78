"""``cloudtune deploy``: serve a model."""

from __future__ import annotations

import click

from cloudtune.cli import options
from cloudtune.cli.talk import say


@click.command("deploy")
@click.argument("model")
@click.option("--to", default="local", show_default=True, help="Place: local.")
@click.option("--name", help="Name of the deployment; default: the model's.")
@click.option("--shape", help="Machine shape, in a cloud.")
@options.output("text", "json")
def command(model: str, to: str, name: str | None, shape: str | None, output: str) -> None:
    """Serve a model (NAME, NAME:VERSION or a folder) with an OpenAI-compatible API; returns once it answers."""
    from cloudtune import verbs

    deployment = verbs.deploy(model, to=to, name=name, shape=shape, progress=say)
    if output == "json":
        import attrs

        options.emit(attrs.asdict(deployment), "json")
    else:
        say(f"{deployment.name} answers at {deployment.url}")
        say(f'  ask it: cloudtune invoke {deployment.name} "..."   end it: cloudtune delete {deployment.name}')
