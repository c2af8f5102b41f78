"""Options that several verbs share."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]
#: Forms of an answer; a folder of such a name is written ``./json``.
FORMS = ("text", "json", "yaml")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Since(click.ParamType[float]):
    """How long ago, as ``90s``, ``10m``, ``2h`` or ``1d``, or an ISO time; becomes seconds since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the moment."""
        from datetime import datetime

        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value)
        if match is not None:
            return time.time() - float(match[1]) * _UNITS[match[2]]
        try:
            return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
        except ValueError:
            self.fail(f"{value!r} is no time: write 90s, 10m, 2h, 1d or 2026-01-31T12:00:00Z", param, ctx)


class Pattern(click.ParamType[str]):
    """A regular expression."""

    name = "regex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the expression if it compiles."""
        try:
            re.compile(value)
        except re.error as error:
            self.fail(f"{value!r} is no regular expression: {error}", param, ctx)
        return str(value)


class Form(click.Choice[str]):
    """A form of the answer; what looks like a file or a folder is told how to become one."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return what is wrong, and what to write."""
        forms = [str(choice) for choice in self.choices]
        wanted = next((form for form in forms if str(value).endswith(f".{form}")), None)
        answer = f"-o {wanted}" if wanted else "-o json" if "json" in forms else ""
        return f"{value!r} is no form of the answer: {', '.join(forms)}; for a file write {answer} > {value}"


def output(*choices: str) -> Callable[[Command], Command]:
    """Return the option ``-o``."""
    return click.option(
        "-o", "--output", type=Form(choices or ("text", "json")), default="text", help="Form of the answer."
    )


def place_or_form(text: str) -> Callable[[Command], Command]:
    """Return the option ``-o`` of a verb that leaves files: a place for them, or a form for the answer, or both."""
    return click.option(
        "-o", "--output", "place_and_form", multiple=True, metavar="PLACE|text|json|yaml", callback=_apart, help=text
    )


def _apart(_: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str | None, str]:
    """Return the place, if one was named, and the form."""
    forms = [value for value in values if value in FORMS]
    places = [value for value in values if value not in FORMS]
    if len(forms) > 1 or len(places) > 1 or "" in places:
        hint = "-o FOLDER -o json; a folder that is called like a form is ./json"
        raise click.BadParameter(f"name one place and one form at most: {hint}", param=param)
    return (places[0] if places else None), (forms[0] if forms else "text")


def filters(command: Command) -> Command:
    """Add the options that choose log lines."""
    for option in reversed(
        (
            click.option("--since", type=Since(), help="Lines of the last 90s, 10m, 2h, 1d, or after an ISO time."),
            click.option("--tail", type=click.IntRange(min=0), metavar="N", help="The last N lines only."),
            click.option("--replica", type=click.IntRange(min=0), metavar="K", help="Lines of one replica only."),
            click.option("--grep", type=Pattern(), metavar="RE", help="Lines that match a regular expression."),
        )
    ):
        command = option(command)
    return command


def spec(command: Command) -> Command:
    """Add the options that change a job file on its way in."""
    for option in reversed(
        (
            click.option("--set", "set_", multiple=True, metavar="A.B=V", help="Set a key of the file; repeatable."),
            click.option(
                "-e",
                "--env",
                multiple=True,
                metavar="NAME[=V]",
                help="Set a variable; a bare name is read from the shell.",
            ),
            click.option(
                "--allow-file", multiple=True, metavar="PATH", help="Upload a file that looks like a credential."
            ),
        )
    ):
        command = option(command)
    return command


def emit(data: Any, form: str) -> None:
    """Print data as JSON or YAML."""
    if form == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
        return
    import json

    click.echo(json.dumps(data, indent=2, ensure_ascii=False))
