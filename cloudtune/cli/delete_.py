"""``cloudtune delete``: forget a run, a model or a deployment."""

from __future__ import annotations

import sys

import click

from cloudtune.cli.talk import say


@click.command("delete")
@click.argument("what", metavar="RUN|MODEL|DEPLOYMENT")
@click.option("--outputs", is_flag=True, help="Delete its data too: a run's outputs, a model's files.")
@click.option("--all-versions", is_flag=True, help="Delete every version of a model.")
def command(what: str, outputs: bool, all_versions: bool) -> None:
    """Forget a run and its logs, a registered model, or a deployment (which is stopped).

    The first of deployment, model and run that has the name is meant. A model is named with its version, NAME:VERSION,
    or confirmed in a terminal. Data is never deleted unasked: outputs and model files stay unless ``--outputs`` is
    given, and it is said where.
    """
    from cloudtune import verbs

    if not all_versions:
        _confirm_model(what)
    deleted = verbs.delete(what, outputs=outputs, all_versions=all_versions, progress=say)
    say(f"{deleted.kind} {deleted.name} deleted" + (", and nothing else" if deleted.kind == "deployment" else ""))
    for place in deleted.removed:
        say(f"  removed: {place}")
    for place in deleted.kept:
        say(f"  stays: {place}")


def _confirm_model(what: str) -> None:
    """Ask in a terminal whether the model is meant where no version is named; elsewhere refuse that."""
    from cloudtune.deletion import model_meant
    from cloudtune.errors import UsageError

    found = model_meant(what)
    if found is None:
        return
    named = f"{found.name}:{found.version}"
    if sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm(f"no deployment is called {what}: forget the registered model {named}?", abort=True, err=True)
        return
    hint = f"name its version to forget it: cloudtune delete {named}"
    raise UsageError(f"no deployment is called {what}; a registered model is, in version {found.version}", hint=hint)
