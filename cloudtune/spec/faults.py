"""Collects everything that is wrong with a document, so that it is all said at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from cloudtune.errors import Fault, SpecError
from cloudtune.node.masks import shown

#: A document with more faults than this is hardly a job; the rest is counted only.
MOST = 1000
#: Looking for the nearest word costs time; the first so many faults get one.
HINTS = 200

Path = tuple[str | int, ...]


class Place(NamedTuple):
    """Where something stands: the file (or option) and, counted from 1, line and column."""

    file: str | None = None
    line: int | None = None
    column: int | None = None


def path_text(path: Iterable[str | int]) -> str:
    """Return a path as people write it: ``spec.steps[0].job``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part):
            text += f".{part}" if text else part
        else:
            text += f'["{shortened(part)}"]'
    return text


def shortened(text: str, limit: int = 80) -> str:
    """Return a text that fits into a message."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= limit else f"{text[:limit]}..."


def nearest(word: str, words: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the word that was probably meant: case, hyphens and underscores do not count, a prefix counts a lot."""
    plain = _plain(word)
    if not plain or len(plain) > 60:
        return None
    best, best_score = None, cutoff
    for candidate in words:
        other = _plain(candidate)
        score = SequenceMatcher(None, plain, other).ratio()
        if min(len(plain), len(other)) >= 3 and (other.startswith(plain) or plain.startswith(other)):
            score = max(score, 0.75 + score / 4)
        if score > best_score:
            best, best_score = candidate, score
    return best


def _plain(word: str) -> str:
    return word.replace("_", "").replace("-", "").replace(" ", "").lower()


class Faults:
    """The faults found so far, in the order of the document."""

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self.paths: set[Path] = set()
        self.more = 0

    @property
    def full(self) -> bool:
        """Whether more faults are only counted."""
        return len(self.found) >= MOST

    def add(self, message: str, place: Place = Place(), path: Path = (), hint: str | None = None) -> None:  # noqa: B008
        """Note one fault."""
        self.paths.add(path)
        if self.full:
            self.more += 1
            return
        fault = Fault(
            message=shown(message),
            path=shown(path_text(path)),
            file=place.file,
            line=place.line,
            column=place.column,
            hint=hint and shown(hint),
        )
        self.found.append(fault)

    def unknown(self, what: str, word: str, words: Sequence[str], place: Place, path: Path) -> str | None:
        """Note a word that is not one of those known, and return the one that was probably meant."""
        guess = nearest(word, words) if len(self.found) < HINTS else None
        known = ", ".join(words) if words and len(words) <= 12 else ""
        hint = f"did you mean {guess!r}?" if guess else (f"known: {known}" if known else None)
        self.add(f"unknown {what} {shortened(word)!r}", place, path, hint)
        return guess

    def covers(self, path: Path) -> bool:
        """Tell whether something wrong was already said about this place or one that holds it."""
        return any(path[:length] in self.paths for length in range(1, len(path) + 1))

    def check(self) -> None:
        """Raise all faults, if there are any."""
        if self.found:
            rest = [Fault(message=f"and {self.more} more faults")] if self.more else []
            raise SpecError([*sorted(self.found, key=_in_file), *rest])


def _in_file(fault: Fault) -> tuple[str, int, int]:
    return (fault.file or "", fault.line or 0, fault.column or 0)
