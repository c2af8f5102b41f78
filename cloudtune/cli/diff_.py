"""``cloudtune diff``: one job in several places, or two runs, side by side."""

from __future__ import annotations

import json

import click

from cloudtune.cli import options


@click.command("diff")
@click.argument("runs", nargs=-1, metavar="[RUN RUN | PLACE...]")
@click.option("-f", "--file", type=click.Path(), metavar="FILE", help="The job whose plans are compared.")
@click.option(
    "--infrastructure", multiple=True, metavar="A", help="A place: a file or a profile; others follow. Repeatable."
)
@options.output("text", "json", "yaml")
def command(runs: tuple[str, ...], file: str | None, infrastructure: tuple[str, ...], output: str) -> None:
    """Compare what a job would send in several places, or what two runs sent.

    First every key of the spec with how each place honours it, and why where it does not. Then what differs in ranks
    and requests: the requests' names, and what those hold that several places make. There the run ids count as equal,
    and a file is one line; `-o json` has all that differs, and `run --dry-run` each request whole.

    \b
    cloudtune diff -f job.yaml --infrastructure A B C   two places or more
    cloudtune diff -f job.yaml --infrastructure A       the job's own place and another
    cloudtune diff RUN RUN                              two runs
    """  # noqa: D301 - click wants the character itself
    from cloudtune import verbs
    from cloudtune.display import table

    if file is not None:
        found = verbs.diff(file=file, infrastructure=(*infrastructure, *runs) if infrastructure else ())
    elif infrastructure:
        raise click.UsageError("name the job: cloudtune diff -f job.yaml --infrastructure A B")
    else:
        found = verbs.diff(*runs)
    if output != "text":
        options.emit(found.to_dict(), output)
        return
    places = [side.name for side in found.sides]
    table(("key", *places), found.honoured, empty="")
    for side in found.sides:
        notes = [(status, note) for status in ("approximated", "refused") for note in side.notes(status)]
        for status, (path, reason) in (*notes, *(("warning", one) for one in side.warnings)):
            click.echo(f"{side.name}: {status}: {path}: {reason}")
    click.echo()
    table(("differs", *places), [(path, *map(_cell, values)) for path, *values in found.outline], empty="no difference")


def _cell(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
