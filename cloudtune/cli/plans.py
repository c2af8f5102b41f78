"""How plans are shown."""

from __future__ import annotations

from typing import Any

import click

from cloudtune.cli.options import emit
from cloudtune.pipeline_plans import is_led
from cloudtune.plan import Plan, request_name


def show_plan(plan: Plan, form: str) -> None:
    """Print a plan: as JSON or YAML for programs, as a page for people."""
    if form == "json":
        click.echo(plan.to_json(), nl=False)
        return
    data = plan.to_dict()
    if form == "yaml":
        emit(data, "yaml")
        return
    click.echo(f"{plan.name} on {plan.backend}, run id {plan.run_id} (a dry run: nothing is sent)")
    launches = data.get("launches") or ({"": data["launch"]} if "launch" in data else {})
    for step, launch in launches.items():
        click.echo(_launch(step, launch))
    if launches and plan.launch is None and not is_led(plan):
        kind = next((step["parameters"].get("kind") for step in data["steps"] if step["id"] == "job"), None)
        click.echo(f"one {kind or 'job'} of {len(launches)} steps: once it is submitted, this machine may be off")
    click.echo("steps:")
    for step in data["steps"]:
        files = step.get("files", ())
        count = f"{len(files)} file{'s' if len(files) > 1 else ''}"
        size = f"  {count}, {sum(file['bytes'] for file in files):,} bytes" if files else ""
        click.echo(f"  {step['id']:<20} {request_name(step)}{size}")
    for note in data["fields"]:
        click.echo(f"{note['status']}: {note['path']}: {note['reason']}")
    for warning in data["warnings"]:
        click.echo(f"warning: {warning['path']}: {warning['message']}")
    click.echo("the requests themselves: add -o yaml or -o json")


def _launch(step: str, launch: dict[str, Any]) -> str:
    what = launch["accelerator"] or "CPU"
    processes = "1 process" if launch["worldSize"] == 1 else f"{launch['worldSize']} processes"
    size = f"{launch['nodes']} x {launch['processesPerNode']} = {processes} on {what}"
    if launch.get("neuron", {}).get("precompileOnly"):
        size += ", compiled only"
    command = " ".join(str(launch["command"]).split())
    if len(command) > 100:
        command = command[:97] + "..."
    return f"  {step + ': ' if step else ''}{size}\n    {command}"
