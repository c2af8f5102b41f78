"""``cloudtune outputs``: what a run has left."""

from __future__ import annotations

import click


@click.command("outputs")
@click.argument("run")
@click.option("-o", "--output", metavar="DIR|json", help="Download into a folder; `json` prints the list as JSON.")
def command(run: str, output: str | None) -> None:
    """List the files that a run has left, or download them with ``-o DIR``."""
    from cloudtune import verbs
    from cloudtune.cli import options

    directory = None if output in {None, "json", "text"} else output
    files = verbs.outputs(run, directory=directory)
    if output == "json":
        options.emit(files, "json")
        return
    if directory is not None:
        click.echo(f"{len(files)} files, {sum(file['bytes'] for file in files):,} bytes -> {directory}", err=True)
        return
    if not files:
        click.echo("the run has left no files", err=True)
    for file in files:
        click.echo(f"{file['bytes']:>14,}  {file['uri']}")
