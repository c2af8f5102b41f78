"""The few lines of HTML in which values show themselves in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def block(title: str, text: str) -> str:
    """Return preformatted text under a title; both are escaped."""
    return f"<b>{html.escape(title)}</b><pre style='margin-top:0'>{html.escape(text)}</pre>"


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a small HTML table; every cell is escaped."""
    cells = "".join(f"<th style='text-align:left'>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f"<table><caption style='text-align:left;font-weight:bold'>{html.escape(title)}</caption>"
        f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
    )
