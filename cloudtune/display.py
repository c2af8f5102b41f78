"""Tables and the live view of a running job, for terminals; plain text everywhere else."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cloudtune.progress import Progress
from cloudtune.runs import label
from cloudtune.states import LogLine

#: Colours of the replicas, in turn; they can be told apart on light and dark terminals.
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print a table: aligned and coloured on a terminal, tab-separated for programs; ``empty`` when there is no row."""
    kept = list(rows)
    if not kept:
        print(empty, file=sys.stderr)
        return
    if not sys.stdout.isatty():
        for row in [head, *kept]:
            print("\t".join(_in_a_line(str(cell)) for cell in row))
        return
    console = Console()
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for index, name in enumerate(head):
        shown.add_column(name, overflow="fold", no_wrap=index == 0)
    # the first column names the row: it has what the others leave, or two fifths
    others = sum(2 + max(len(str(row[index])) for row in [head, *kept]) for index in range(1, len(head)))
    width = max(console.width - others, console.width * 2 // 5, 1)
    for first, *cells in kept:
        named = Text(_broken(str(first), width), style=_state_style(str(first)))
        shown.add_row(named, *(Text(str(cell), style=_state_style(str(cell))) for cell in cells))
    console.print(shown)


def findings(rows: Iterable[tuple[str, str, str, str, str | None]], *, head: Sequence[str], empty: str) -> None:
    """Print what was found (status, rule, where, message, what to do): one below the other on a terminal, else a table.

    Five columns of sentences would be too narrow to be read.
    """
    kept = list(rows)
    if not kept or not sys.stdout.isatty():
        table(head, [(*row[:4], row[4] or "") for row in kept], empty=empty)
        return
    console = Console(highlight=False)
    for status, rule, where, message, hint in kept:
        console.print(
            Text.assemble((status, _state_style(status)), "  ", (rule, "bold"), f"  {where}" if where else "")
        )
        for line in (message, f"hint: {hint}" if hint else ""):
            if line:
                console.print(Padding(Text(line), (0, 0, 0, 4)))


def live_lines(lines: Iterable[LogLine]) -> None:
    """Print lines as they come, coloured by replica, above a live line of step, loss, tokens/s and time left."""
    data, talk = Console(soft_wrap=True, highlight=False), Console(stderr=True)
    if not sys.stdout.isatty():
        # the lines go to a file or a pipe, which Live would take them from: the live line alone is for the terminal
        with Live(console=talk, refresh_per_second=4, transient=True, redirect_stdout=False) as live:
            for line, progress in _with_progress(lines):
                print(label(line) + line.text, flush=True)
                live.update(Text(str(progress), style="bold"))
        return
    with Live(console=data, refresh_per_second=4, transient=True) as live:
        for line, progress in _with_progress(lines):
            colour = COLOURS[(line.replica or 0) % len(COLOURS)]
            style = "dim" if line.stream == "agent" else ""
            data.print(Text.assemble((label(line), colour), (line.text, style)))
            live.update(Text(str(progress), style="bold"))


def _in_a_line(text: str) -> str:
    """Return a cell's text without what would end it for a program that reads the table."""
    return text.replace("\t", "\\t").replace("\n", "\\n")


def _broken(path: str, width: int) -> str:
    """Return a path in lines of a width, broken between its parts where they are short enough."""
    return "\n".join(re.findall(rf".{{1,{width}}}(?=[.\[/]|$)|.{{1,{width}}}", path))


def _with_progress(lines: Iterable[LogLine]) -> Iterable[tuple[LogLine, Progress]]:
    progress, step = Progress(), None
    for line in lines:
        if line.step != step:
            progress, step = Progress(), line.step
        progress = progress.after(line)
        yield line, progress


def _state_style(text: str) -> str:
    if os.environ.get("NO_COLOR"):
        return ""
    return {
        "succeeded": "green",
        "failed": "red",
        "lost": "red",
        "cancelled": "yellow",
        "running": "cyan",
        "error": "red",
        "problem": "red",
        "ok": "green",
        "warning": "yellow",
        "note": "cyan",
    }.get(text, "")
