"""Write docs/reference/command-line.md from the verbs themselves: ``python docs/reference/make_command_line.py``."""

from __future__ import annotations

from inspect import cleandoc
from pathlib import Path

import click

from cloudtune.cli import VERBS, cli

PAGE = Path(__file__).with_name("command-line.md")
HEAD = """# The command line

<!-- written by docs/reference/make_command_line.py; a test keeps it fresh -->

Data goes to stdout and talk to stderr; every verb that prints data has `-o json`. `NO_COLOR` and files or pipes in
place of a terminal are honoured. Every verb is also a function of the same name in `cloudtune.verbs`, with the same
options. Exit codes: [follow and end runs](../how-to/runs.md#exit-codes).

```bash
cloudtune --help
cloudtune run --help
```
"""


def option_row(option: click.Parameter, context: click.Context) -> str | None:
    """Return an option as a row of a table, or None for one that needs no words."""
    record = option.get_help_record(context) if isinstance(option, click.Option) else None
    if record is None or option.name == "help":
        return None
    flags, text = (part.replace("|", "\\|").replace("  [", " [") for part in record)
    return f"| `{flags}` | {text} |"


def section(verb: str) -> list[str]:
    """Return the section of one verb."""
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    context = click.Context(command, info_name=f"cloudtune {verb}", parent=None)
    usage = " ".join(command.collect_usage_pieces(context)).replace("[OPTIONS] ", "").replace("[OPTIONS]", "")
    text = cleandoc(command.help or "").replace("``", "`").replace("\\b\n", "\b\n")
    if "\b\n" in text:
        # what click must not wrap is a block of its own here
        before, _, block = text.partition("\b\n")
        text = f"{before}```text\n{block}\n```"
    rows = [row for option in command.params if (row := option_row(option, context))]
    table = ["| option | |", "|---|---|", *rows, ""] if rows else []
    return [f"### `{f'cloudtune {verb} {usage}'.strip()}`", "", text, "", *table]


def page() -> str:
    """Return the whole page."""
    lines = [HEAD]
    for title, verbs in VERBS.items():
        lines += [f"## {title}", ""]
        for verb in verbs:
            lines += section(verb)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
