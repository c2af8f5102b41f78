"""Words to people, on stderr; and what to do when nobody reads any more (``| head``)."""

from __future__ import annotations

import os
import sys
from typing import TextIO

import click


def say(text: str) -> None:
    """Print a line on stderr; that nobody reads there is no reason to stop what is going on."""
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        nobody_reads(sys.stderr)


def visible(text: str) -> str:
    """Return a text that may quote a file, with characters written out that would move the cursor or colour."""
    return "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)


def nobody_reads(stream: TextIO) -> None:
    """Let what is still written to a stream go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
