"""``cloudtune diff``: one job in several places, or two runs, side by side."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from cloudtune.cli import options

if TYPE_CHECKING:
    from cloudtune.comparison import Side


@click.command("diff")
@click.argument("runs", nargs=-1, metavar="[RUN RUN | PLACE...]")
@click.option("-f", "--file", type=click.Path(), metavar="FILE", help="The job whose plans are compared.")
@click.option("--infrastructure", metavar="A", help="First place: a file or a profile; others follow.")
@options.output("text", "json", "yaml")
def command(runs: tuple[str, ...], file: str | None, infrastructure: str | None, output: str) -> None:
    """Compare what a job would send in several places, or what two runs sent.

    First what differs in requests and ranks, then, for each place, which keys of the spec it supports, approximates
    and refuses.

    \b
    cloudtune diff -f job.yaml --infrastructure A B C   two places or more
    cloudtune diff -f job.yaml --infrastructure A       the job's own place and another
    cloudtune diff RUN RUN                              two runs
    """  # noqa: D301 - click wants the character itself
    from cloudtune import verbs
    from cloudtune.display import table

    if file is not None:
        found = verbs.diff(file=file, infrastructure=(infrastructure, *runs) if infrastructure else ())
    elif infrastructure is not None:
        raise click.UsageError("name the job: cloudtune diff -f job.yaml --infrastructure A B")
    else:
        found = verbs.diff(*runs)
    if output != "text":
        options.emit(found.to_dict(), output)
        return
    rows = [(path, *map(_cell, values)) for path, *values in found.differences]
    table(("path", *(side.name for side in found.sides)), rows, empty="no difference")
    for side in found.sides:
        _tell_fields(side)


def _cell(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _tell_fields(side: Side) -> None:
    """Print how a place honours the keys of the spec."""
    click.echo(f"\nfields in {side.name}")
    for status, lines in (
        ("supported", list(side.supported)),
        ("approximated", [f"{path}: {reason}" for path, reason in side.notes("approximated")]),
        ("refused", [f"{path}: {reason}" for path, reason in side.notes("refused")]),
    ):
        for line in lines or ["none"]:
            click.echo(f"  {status:<13} {line}")
