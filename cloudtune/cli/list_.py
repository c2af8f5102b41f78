"""``cloudtune list``: runs, models, deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli import options

if TYPE_CHECKING:
    from cloudtune.store import Deployment


@click.command("list")
@click.option("--models", is_flag=True, help="List registered models.")
@click.option("--deployments", is_flag=True, help="List deployments.")
@click.option("--state", multiple=True, help="Runs or deployments in this state only; repeatable.")
@click.option("--since", type=options.Since(), help="Those of the last 90s, 10m, 2h, 1d, or after an ISO time.")
@click.option("--name", help="Those whose name has this in it.")
@click.option("--backend", help="Runs or deployments of one backend: local, oci, sagemaker, eks.")
@click.option("--limit", type=click.IntRange(min=1), help="So many at most.")
@options.output("text", "json")
def command(
    models: bool,
    deployments: bool,
    state: tuple[str, ...],
    since: float | None,
    name: str | None,
    backend: str | None,
    limit: int | None,
    output: str,
) -> None:
    """List runs, newest first; or registered models, or deployments."""
    from cloudtune import verbs
    from cloudtune.display import table
    from cloudtune.runs import age
    from cloudtune.states import STATES

    for one in state:
        if one not in STATES:
            raise click.UsageError(f"{one!r} is no state: {', '.join(STATES)}")
    if models and (deployments or state or backend):
        raise click.UsageError("--models goes with --since, --name and --limit only")
    if models:
        found = verbs.list(models=True, since=since, name=name, limit=limit)
        if output == "json":
            options.emit([model.to_dict() for model in found], "json")
            return
        rows = [(m.name, m.version, m.base or "", m.run or "", _short(m.metrics), m.uri) for m in found]
        table(("name", "version", "base", "run", "metrics", "uri"), rows, empty="no model is registered yet")
        return
    if deployments:
        kept = verbs.list(deployments=True, state=state, since=since, name=name, backend=backend, limit=limit)
        if output == "json":
            options.emit([{**_plain(one), "state": _state(one)} for one in kept], "json")
            return
        rows_ = [(one.name, one.backend, _state(one), one.url or "", one.model) for one in kept]
        table(("name", "backend", "state", "url", "model"), rows_, empty="nothing is deployed")
        return
    runs = verbs.list(state=state, since=since, name=name, backend=backend, limit=limit)
    if output == "json":
        options.emit(runs.to_dicts(), "json")
        return
    shown = [(run.id, run.name, run.record.backend if run.record else "", run.last_state, age(run)) for run in runs]
    table(("id", "name", "backend", "state", "age"), shown, empty="no run yet: cloudtune init quickstart")


def _short(metrics: object) -> str:
    items = metrics.items() if isinstance(metrics, dict) else ()
    return " ".join(f"{key}={value:.3g}" for key, value in items if isinstance(value, float) and "loss" in key)


def _state(deployment: Deployment) -> str:
    """Return the state of a deployment; that one cannot be asked is no reason to hide the others."""
    from cloudtune import verbs
    from cloudtune.cli.talk import say
    from cloudtune.errors import CloudtuneError

    try:
        return verbs.deployment_state(deployment)
    except CloudtuneError as error:
        say(f"{deployment.name}: {error.message}")
        return "unknown"


def _plain(value: object) -> dict[str, object]:
    import attrs

    return attrs.asdict(value)  # type: ignore[arg-type]
