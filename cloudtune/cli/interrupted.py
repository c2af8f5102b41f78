"""What Ctrl-C has left, in one line: what goes on, and how to continue."""

from __future__ import annotations

_SAME = "the same command goes on where it stopped"
#: Verbs whose work is not simply over; whatever they say themselves goes before.
_LEFT = {
    "run": "cloudtune list shows what was submitted",
    "cancel": "the run may go on; cloudtune status RUN tells",
    "delete": "what is left goes with the same command",
    "outputs": "what has come lies in the folder; --force begins again, and writes over it",
    "merge": _SAME,
    "consolidate": _SAME,
    "register": "nothing is filed by halves; the same command does the rest",
    "deploy": "cloudtune list --deployments shows what is there of it",
}


def told(verb: str | None, error: KeyboardInterrupt) -> str:
    """Return the line for a verb that was interrupted; what the verb knows better stands in the error itself."""
    known = str(error) or _LEFT.get(verb or "", "")
    return f"interrupted; {known}" if known else "interrupted"
