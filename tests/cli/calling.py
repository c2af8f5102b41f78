"""The command line, called in this process."""

from __future__ import annotations

from typing import NamedTuple

import click
from click.testing import CliRunner

from cloudtune.cli import cli
from cloudtune.errors import CloudtuneError


class Answer(NamedTuple):
    """What a call ended with, and what it said."""

    code: int
    out: str
    err: str


def call(*arguments: str, stdin: str = "") -> Answer:
    """Call a verb; an error becomes its exit code and its words on stderr, as the command itself makes it."""
    result = CliRunner().invoke(cli, arguments, input=stdin, standalone_mode=False)
    error = result.exception
    if isinstance(error, CloudtuneError):
        return Answer(error.exit_code, result.stdout, f"{result.stderr}error: {error}")
    if isinstance(error, click.ClickException):
        return Answer(error.exit_code, result.stdout, f"{result.stderr}{error.format_message()}")
    if error is not None:
        raise error
    return Answer(result.return_value or 0, result.stdout, result.stderr)
