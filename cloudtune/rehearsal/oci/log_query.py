r"""The query language of Logging Search, as far as reading a job's log goes.

``search "COMPARTMENT/GROUP/LOG", ... | where EXPRESSION | sort by FIELD [asc|desc], ...``: streams in double quotes,
texts in single quotes, ``*`` in a text stands for anything, names of fields may be quoted. The rest of the language
(select, summarize, ...) is refused by its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from cloudtune.rehearsal.messages import Refused

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|''|\\.)*')|(?P<quoted>\"(?:[^\"]|\"\")*\")|(?P<number>-?\d+(?:\.\d+)?)(?![\w.])"
    r"|(?P<word>[A-Za-z_]\w*)|(?P<sign><=|>=|!=|<>|=|<|>|\||,|\(|\)|\.|/|\*))"
)
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lambda ours, theirs: ours < theirs,
    "<=": lambda ours, theirs: ours <= theirs,
    ">": lambda ours, theirs: ours > theirs,
    ">=": lambda ours, theirs: ours >= theirs,
}
Path = tuple[str, ...]
#: One entry of a log, asked for a field by its path; None where it has none of that very name.
Look = Callable[[Path], Any]
Test = Callable[[Look], bool]


@attrs.frozen(kw_only=True)
class Query:
    """A query that was understood; ``order`` are fields, and whether the greatest comes first."""

    streams: tuple[tuple[str, ...], ...]
    test: Test = attrs.field(default=lambda _: True)
    order: tuple[tuple[Path, bool], ...] = ((("datetime",), True),)


def read_query(text: str) -> Query:
    """Return what a query asks for; Refused (400) where it is none, or asks for what the rehearsal does not have."""
    return _Reader(text).query()


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise _refused(f"cannot read the query at {text[at : at + 20]!r}")
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self._at = 0

    def query(self) -> Query:
        self._expect("search")
        streams = [self._stream()]
        while self._take("sign", ",") or self._peek()[0] == "quoted":
            streams.append(self._stream())
        query = Query(streams=tuple(streams))
        while self._take("sign", "|"):
            if self._word("where"):
                query = attrs.evolve(query, test=_both(query.test, self._any()))
            elif self._word("sort"):
                self._expect("by")
                query = attrs.evolve(query, order=self._order())
            else:
                raise _refused(f"the rehearsal does not have the operator {self._peek()[1]!r}; where and sort it has")
        if self._peek()[0]:
            raise _refused(f"{self._peek()[1]!r} is not expected there")
        return query

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _take(self, kind: str, *texts: str) -> str | None:
        found, text = self._peek()
        if found == kind and text.lower() in texts:
            self._at += 1
            return text.lower()
        return None

    def _word(self, word: str) -> bool:
        return self._take("word", word) is not None

    def _expect(self, word: str) -> None:
        if not self._word(word):
            raise _refused(f"expected {word}, not {self._peek()[1]!r}")

    def _stream(self) -> tuple[str, ...]:
        kind, text = self._next()
        if kind != "quoted":
            raise _refused(f'search takes "COMPARTMENT/GROUP/LOG" in double quotes, not {text}')
        parts = tuple(text[1:-1].split("/"))
        if not 1 <= len(parts) <= 3 or not all(parts):
            raise _refused(f"{text} names no logs")
        return parts

    def _order(self) -> tuple[tuple[Path, bool], ...]:
        found = []
        while True:
            path = self._field()
            found.append((path, self._take("word", "asc", "desc") == "desc"))
            if not self._take("sign", ","):
                return tuple(found)

    def _field(self) -> Path:
        path = []
        while True:
            kind, text = self._next()
            if kind not in ("word", "quoted"):
                raise _refused(f"{text!r} is no field; texts are in single quotes")
            path.append(text[1:-1].replace('""', '"') if kind == "quoted" else text)
            if not self._take("sign", "."):
                return tuple(path[1:] if path[0] == "logContent" and len(path) > 1 else path)

    def _any(self) -> Test:
        test = self._all()
        while self._word("or"):
            test = _either(test, self._all())
        return test

    def _all(self) -> Test:
        test = self._one()
        while self._word("and"):
            test = _both(test, self._one())
        return test

    def _one(self) -> Test:
        if self._word("not"):
            inner = self._one()
            return lambda look: not inner(look)
        if self._take("sign", "("):
            test = self._any()
            if not self._take("sign", ")"):
                raise _refused("a parenthesis is not closed")
            return test
        return self._comparison()

    def _comparison(self) -> Test:
        path = self._field()
        sign = self._take("sign", "=", "!=", "<>", "<", "<=", ">", ">=")
        if sign is None:
            raise _refused(f"expected a comparison after {'.'.join(path)}, not {self._peek()[1]!r}")
        kind, text = self._next()
        if kind == "number":
            return _numeric(path, sign, float(text))
        if kind != "text":
            raise _refused(f"{text or 'the end'} is no value: texts are in single quotes")
        wanted = text[1:-1].replace("''", "'")
        if path[-1] == "source" and wanted.startswith("ocid1."):
            raise _refused("source cannot be compared with an OCID; with '*' before it, it can")
        if sign in _COMPARE:
            return lambda look: isinstance(ours := look(path), str) and _COMPARE[sign](ours, wanted)
        return _equal(path, sign, _like(wanted))


def _like(wanted: str) -> Callable[[str], bool]:
    """Return whether a text is the one that is wanted, in which ``*`` stands for anything."""
    first, *rest = wanted.split("*")
    if rest and not first and len(rest) == 1:  # what everybody asks of the source
        return lambda ours: ours.endswith(rest[0])
    pattern = re.compile(".*".join(map(re.escape, [first, *rest])), re.DOTALL)
    return lambda ours: pattern.fullmatch(ours) is not None


def _equal(path: Path, sign: str, like: Callable[[str], bool]) -> Test:
    def test(look: Look) -> bool:
        ours = look(path)
        return ours is not None and like(str(ours)) == (sign == "=")

    return test


def _numeric(path: Path, sign: str, wanted: float) -> Test:
    def test(look: Look) -> bool:
        ours = look(path)
        if not isinstance(ours, (int, float)):
            return False
        return _COMPARE[sign](ours, wanted) if sign in _COMPARE else (ours == wanted) == (sign == "=")

    return test


def _both(one: Test, other: Test) -> Test:
    return lambda look: one(look) and other(look)


def _either(one: Test, other: Test) -> Test:
    return lambda look: one(look) or other(look)


def _refused(why: str) -> Refused:
    return Refused(400, "InvalidParameter", f"searchQuery: {why}")
