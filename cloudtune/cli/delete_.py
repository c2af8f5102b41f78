"""``cloudtune delete``: forget a run, a model or a deployment."""

from __future__ import annotations

import click


@click.command("delete")
@click.argument("what", metavar="RUN|MODEL|DEPLOYMENT")
@click.option("--outputs", is_flag=True, help="Delete its data too: a run's outputs, a model's files.")
def command(what: str, outputs: bool) -> None:
    """Forget a run and its logs, a registered model, or a deployment (which is stopped).

    Data is never deleted unasked: outputs and model files stay unless ``--outputs`` is given.
    """
    from cloudtune import verbs

    kind = verbs.delete(what, outputs=outputs)
    click.echo(f"{kind} {what} deleted" + ("" if outputs or kind == "deployment" else "; its files stay"), err=True)
