"""``cloudtune delete``: forget a run, a model or a deployment."""

from __future__ import annotations

import click

from cloudtune.cli.talk import say


@click.command("delete")
@click.argument("what", metavar="RUN|MODEL|DEPLOYMENT")
@click.option("--outputs", is_flag=True, help="Delete its data too: a run's outputs, a model's files.")
@click.option("--all-versions", is_flag=True, help="Delete every version of a model.")
def command(what: str, outputs: bool, all_versions: bool) -> None:
    """Forget a run and its logs, a registered model, or a deployment (which is stopped).

    The first of deployment, model and run that has the name is meant; one version of a model is NAME:VERSION. Data is
    never deleted unasked: outputs and model files stay unless ``--outputs`` is given, and it is said where.
    """
    from cloudtune import verbs

    deleted = verbs.delete(what, outputs=outputs, all_versions=all_versions, progress=say)
    say(f"{deleted.kind} {deleted.name} deleted" + (", and nothing else" if deleted.kind == "deployment" else ""))
    for place in deleted.removed:
        say(f"  removed: {place}")
    for place in deleted.kept:
        say(f"  stays: {place}")
