"""``cloudtune schema``: the JSON Schema of job files."""

from __future__ import annotations

import click

from cloudtune.cli import options


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of job files, for editors."""
    from cloudtune.spec.schema import schema

    options.emit(schema(), "json")
