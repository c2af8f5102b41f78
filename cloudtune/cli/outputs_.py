"""``cloudtune outputs``: what a run has left."""

from __future__ import annotations

import click

from cloudtune.cli import options
from cloudtune.cli.talk import say


@click.command("outputs")
@click.argument("run")
@options.place_or_form(
    "Folder to download into; text, json and yaml are forms of the list (write ./json for a folder)."
)
@click.option("--force", is_flag=True, help="Write over files that are there.")
def command(run: str, place_and_form: tuple[str | None, str], force: bool) -> None:
    """List the files that a run has left, or download them with ``-o DIR``.

    What the steps of a pipeline left goes into a folder for each step: DIR/STEP.
    """
    from cloudtune import verbs

    directory, form = place_and_form
    files = verbs.outputs(run, directory=directory, force=force)
    if directory is not None:
        say(f"{len(files)} files, {sum(file['bytes'] for file in files):,} bytes -> {directory}")
    if form != "text":
        options.emit(files, form)
    elif directory is None and not files:
        goes = not verbs.status(run).status.finished
        say("no files so far: they are copied while the run goes on" if goes else "the run has left no files")
    elif directory is None:
        for file in files:
            click.echo(f"{file['bytes']:>14,}  {file['uri']}")
