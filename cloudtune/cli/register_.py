"""``cloudtune register``: file a model."""

from __future__ import annotations

import click

from cloudtune.cli import options


@click.command("register")
@click.argument("model")
@click.option("--to", default="folder", show_default=True, help="Registry: folder.")
@click.option("--name", required=True, help="Name of the model.")
@click.option("--version", help="Version; default: the next number.")
@options.output("text", "json")
def command(model: str, to: str, name: str, version: str | None, output: str) -> None:
    """File a model under a name and a version, with its base, its run, its checksums and its metrics."""
    from cloudtune import verbs

    record = verbs.register(model, to=to, name=name, version=version)
    if output == "json":
        options.emit(record.to_dict(), "json")
    else:
        click.echo(f"registered {record.name}:{record.version}", err=True)
        click.echo(record.uri)
