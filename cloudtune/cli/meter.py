"""A line on a terminal that says how many bytes are done, how fast, and how long it still takes; nothing elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

import click

from cloudtune.progress import clock

_PAUSE_S = 0.2


class Meter:
    """Shows the progress of a verb on stderr; a context, which takes the line away at its end.

    Called with the bytes done and the bytes in all, by whatever counts them.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.shown = sys.stderr.isatty()
        self.began: tuple[float, int] | None = None
        self.due_s = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is, a few times a second."""
        now = time.monotonic()
        if self.began is None:
            # what an earlier try has left is no work of this one
            self.began = (now, done)
        if self.shown and (now >= self.due_s or done == total):
            self.due_s = now + _PAUSE_S
            click.echo(
                f"\r\x1b[K{line(self.what, done, total, now - self.began[0], done - self.began[1])}", nl=False, err=True
            )

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.shown and self.began is not None:
            click.echo("\r\x1b[K", nl=False, err=True)


def line(what: str, done: int, total: int, took_s: float, moved: int) -> str:
    """Return the line: ``checking 1.2 of 2.2 GB  850 MB/s  0:01 left``."""
    size, unit = (1e9, "GB") if total >= 1e9 else (1e6, "MB")
    text = f"{what} {done / size:.1f} of {total / size:.1f} {unit}"
    if took_s <= 0 or moved <= 0:
        return text
    return f"{text}  {moved / took_s / 1e6:,.0f} MB/s  {clock((total - done) * took_s / moved)} left"
