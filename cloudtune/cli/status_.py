"""``cloudtune status``: the state of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli import options
from cloudtune.cli.talk import say

if TYPE_CHECKING:
    from cloudtune.store import Deployment


@click.command("status")
@click.argument("run")
@options.output("text", "json")
def command(run: str, output: str) -> int:
    """Show the state of a run, and which replica and rank failed first; or that of a deployment, by its name.

    Exit codes: 0 succeeded (a deployment: running), 100 failed or lost, 101 not finished yet, 102 no such run,
    103 cancelled.
    """
    from cloudtune import verbs
    from cloudtune.errors import RunNotFound
    from cloudtune.states import EXIT_CODES, NOT_FINISHED

    try:
        found = verbs.status(run)
    except RunNotFound:
        for deployment in verbs.list(deployments=True, name=run):
            if deployment.name == run:
                return _deployment(deployment, output)
        raise
    data = found.to_dict(fresh=True)
    if output == "json":
        options.emit(data, "json")
    else:
        for key in ("id", "name", "backend", "state", "reason"):
            if data[key]:
                click.echo(f"{key:<9}{data[key]}")
        if found.failure is not None:
            click.echo(f"failure  {found.failure}")
            for line in found.failure.lines[-12:]:
                click.echo(f"           {line}")
            if found.failure.hint:
                click.echo(f"  hint: {found.failure.hint}")
        if verbs.unsubmitted(found):
            say(f"  {verbs.to_continue(found)}")
        for name, link in data["links"].items():
            click.echo(f"{name:<9}{link}")
        for uri in data["outputs"]:
            click.echo(f"outputs  {uri}")
        for step in data.get("steps", ()):
            click.echo(f"step     {step['id']:<28} {step['state']}")
    return EXIT_CODES.get(data["state"], NOT_FINISHED)


def _deployment(deployment: Deployment, output: str) -> int:
    """Show a deployment; return the exit code."""
    import attrs

    from cloudtune import verbs
    from cloudtune.states import EXIT_CODES, NOT_FINISHED

    data = {**attrs.asdict(deployment), "state": verbs.deployment_state(deployment)}
    if output == "json":
        options.emit(data, "json")
    else:
        for key in ("name", "backend", "state", "url", "model"):
            if data[key]:
                click.echo(f"{key:<9}{data[key]}")
    return 0 if data["state"] == "running" else EXIT_CODES.get(data["state"], NOT_FINISHED)
