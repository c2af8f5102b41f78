"""``cloudtune rehearse``: a job or pipeline against the stand-in of its cloud."""

from __future__ import annotations

import contextlib
import signal
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from cloudtune.cli import options
from cloudtune.cli.talk import say

if TYPE_CHECKING:
    from cloudtune.rehearsing.clouds import Left
    from cloudtune.rehearsing.rehearse import Rehearsal
    from cloudtune.runs import Run

#: Folders of the cloud that are listed, down to so many levels.
_MOST_FOLDERS, _LEVELS = 12, 4
_WIDTH, _NO_BREAK = 110, "\0"


@click.command("rehearse")
@click.argument("job", required=False, metavar="[FILE]")
@click.option("-f", "--file", type=click.Path(), metavar="FILE", help="The job or pipeline.")
@options.spec
@click.option("--infrastructure", metavar="FILE|PROFILE", help="Rehearse the same job elsewhere.")
@click.option("--nodes", type=click.IntRange(min=1), metavar="N", help="So many nodes at most.")
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="So many processes a node at most.")
@click.option(
    "--put", multiple=True, metavar="URI=PATH", help="Data that lie in the cloud before it starts; repeatable."
)
@click.option("--online", is_flag=True, help="Let nodes use the network: packages, repositories, the Hub.")
@click.option("--ask", default="Hello", show_default=True, metavar="TEXT", help="What deployed models are asked.")
@click.option("--shell", is_flag=True, help="At the end, open a shell in the rehearsal before it is taken down.")
@options.place_or_form(
    "Folder in which files, logs and every call are kept; text, json and yaml are forms of the answer."
)
@click.option("-q", "--quiet", is_flag=True, help="The result only.")
def command(
    job: str | None,
    file: str | None,
    set_: tuple[str, ...],
    env: tuple[str, ...],
    allow_file: tuple[str, ...],
    infrastructure: str | None,
    nodes: int | None,
    processes: int | None,
    put: tuple[str, ...],
    online: bool,
    ask: str,
    shell: bool,
    place_and_form: tuple[str | None, str],
    quiet: bool,
) -> int:
    """Run a job or pipeline against the stand-in of its cloud on this machine, exactly as `run` would there.

    The cloud answers on a loopback port, nodes are processes with the cloud's own paths, names and variables. Nothing
    is sent to the real one, none of your credentials is read, and all is taken down at the end, also after Ctrl-C.
    OCIDs and the like that are not filled in get throw-away values. Exit codes are those of `run`; interrupted, 130.
    """
    from cloudtune import verbs

    if (file is None) == (job is None):
        raise click.UsageError("name one job: cloudtune rehearse -f job.yaml")
    output, form = place_and_form
    try:
        with _hanging_up():
            found = verbs.rehearse(
                file or job or "",
                set=set_,
                env=env,
                infrastructure=infrastructure,
                allow_file=allow_file,
                nodes=nodes,
                processes=processes,
                put=put,
                online=online,
                ask=ask,
                shell=shell,
                output=output,
                show=lambda run: _show(run, form, quiet=quiet),
                progress=(lambda _: None) if quiet else say,
            )
    except KeyboardInterrupt:
        say("\ninterrupted; what was staged is taken down, nothing of it goes on")
        return 130
    if form != "text":
        options.emit(found.to_dict(), form)
    else:
        _sum_up(found, output)
    return found.exit_code


@contextlib.contextmanager
def _hanging_up() -> Iterator[None]:
    """Let a closed terminal take everything down, too."""
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _show(run: Run, form: str, *, quiet: bool) -> None:
    """Show a run until its end."""
    from cloudtune.cli.watching import show_lines, tell_end
    from cloudtune.runs import label

    if quiet:
        run.wait()
    elif form == "text":
        show_lines(run.lines(follow=True), live=sys.stderr.isatty())
        tell_end(run, goes=True)
    else:
        for line in run.lines(follow=True):
            say(label(line) + line.text)


def _sum_up(found: Rehearsal, output: str | None) -> None:
    """Say what was asked of the cloud and what lay there at the end."""
    services: dict[str, list[str]] = {}
    for one in found.asked:
        refused = f" ({one.refused} refused)" if one.refused else ""
        services.setdefault(one.service, []).append(f"{one.operation} {one.count}{refused}")
    click.echo(f"asked of the rehearsed cloud: {sum(one.count for one in found.asked)} requests")
    for service, operations in services.items():
        told = f"{service}: {', '.join(one.replace(' ', _NO_BREAK) for one in operations)}"
        told = textwrap.fill(told, _WIDTH, initial_indent="  ", subsequent_indent="      ")
        click.echo(told.replace(_NO_BREAK, " "))
    click.echo(f"left there: {len(found.left)} files, {sum(one.bytes for one in found.left):,} bytes")
    for folder, (number, size) in _folders(found.left).items():
        click.echo(f"  {size:>13,}  {folder}" + (f" ({number} files)" if number > 1 else ""))
    for name, answer in found.answers.items():
        click.echo(f"{name} answered: {answer}")
    where = f"kept in {output}" if output else "-o FOLDER keeps files, logs and calls"
    say(f"rehearsed: {found.run['state']}; all of it is taken down ({where})")


def _folders(left: Sequence[Left]) -> dict[str, tuple[int, int]]:
    """Return the number of files and bytes by folder: as many levels as can be read at a glance."""
    for levels in range(_LEVELS, 0, -1):
        folders: dict[str, tuple[int, int]] = {}
        for one in left:
            scheme, _, path = one.uri.partition("://")
            parts = path.split("/")
            name = f"{scheme}://{'/'.join(parts[:levels])}" + ("/" if len(parts) > levels else "")
            number, size = folders.get(name, (0, 0))
            folders[name] = (number + 1, size + one.bytes)
        if len(folders) <= _MOST_FOLDERS:
            break
    return folders
