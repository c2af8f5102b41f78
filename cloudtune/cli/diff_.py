"""``cloudtune diff``: one job in two places, or two runs, side by side."""

from __future__ import annotations

import json

import click

from cloudtune.cli import options


@click.command("diff")
@click.argument("runs", nargs=-1, metavar="[RUN RUN | PLACE]")
@click.option("-f", "--file", type=click.Path(), metavar="FILE", help="The job whose plans are compared.")
@click.option("--infrastructure", metavar="A", help="First place: a file or a profile; the second follows.")
@options.output("text", "json")
def command(runs: tuple[str, ...], file: str | None, infrastructure: str | None, output: str) -> int:
    """Compare what a job would send in two places, or what two runs sent.

    \b
    cloudtune diff -f job.yaml --infrastructure A B     two places
    cloudtune diff -f job.yaml --infrastructure A       the job's own place and another
    cloudtune diff RUN RUN                              two runs
    """  # noqa: D301 - click wants the character itself
    from cloudtune import verbs
    from cloudtune.display import table

    if file is not None:
        places = (infrastructure, *runs) if infrastructure else ()
        if not 1 <= len(places) <= 2:
            raise click.UsageError("name one or two places: cloudtune diff -f job.yaml --infrastructure A B")
        names = tuple(str(place) for place in places) if len(places) == 2 else (file, str(places[0]))
        first = verbs.read(file, infrastructure=places[0] if len(places) == 2 else None)
        second = verbs.read(file, infrastructure=places[-1])
        rows = verbs.diff(verbs.plan(first).to_dict(), verbs.plan(second).to_dict())
    elif len(runs) == 2:
        names = runs
        rows = verbs.diff(*(verbs.kept_plan(run) for run in runs))
    else:
        raise click.UsageError(
            "name two runs, or a job and its places: cloudtune diff -f job.yaml --infrastructure A B"
        )
    if output == "json":
        options.emit([{"path": path, "first": one, "second": other} for path, one, other in rows], "json")
    else:
        table(("path", *names), [(path, _cell(one), _cell(other)) for path, one, other in rows], empty="no difference")
    return 0


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
