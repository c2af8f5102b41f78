"""Ignore rules, read exactly as git reads them.

Git's own reading is a little different from what its manual says and from what other libraries do: it works on
bytes (``?`` is one byte, so two of them match ``é``), knows ``[[:alpha:]]``, treats a literal prefix apart (``foo**/x``
matches ``foox``), trims only spaces, and a pattern that it cannot parse matches nothing. A file too many is a leak
and a file too few is a job that fails on the node, so the rules here are git's, proved against git by the tests.

A path given to :meth:`Rules.verdict` is bytes, relative to the folder that the rules belong to the top of, with ``/``
between its parts. Whoever walks a tree asks for every folder before what lies in it, and does not enter one that is
left out: that is why a file below it cannot be brought back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

_SPECIAL = re.compile(rb"[*?\[\\]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SLASH = ord("/")
_NEVER = rb"(?!)"


def _ascii(text: bytes) -> frozenset[int]:
    return frozenset(text)


_DIGIT = _ascii(b"0123456789")
_LOWER = _ascii(b"abcdefghijklmnopqrstuvwxyz")
_UPPER = _ascii(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_GRAPH = frozenset(range(0x21, 0x7F))
#: The named classes of a bracket; white space is what git's own table says, without vertical tab and form feed.
_CLASSES = {
    b"alnum": _DIGIT | _LOWER | _UPPER,
    b"alpha": _LOWER | _UPPER,
    b"blank": _ascii(b" \t"),
    b"cntrl": frozenset(range(0x20)) | {0x7F},
    b"digit": _DIGIT,
    b"graph": _GRAPH,
    b"lower": _LOWER,
    b"print": _GRAPH | {0x20},
    b"punct": _GRAPH - _DIGIT - _LOWER - _UPPER,
    b"space": _ascii(b" \t\n\r"),
    b"upper": _UPPER,
    b"xdigit": _DIGIT | _ascii(b"abcdefABCDEF"),
}


class _UnreadableError(Exception):
    """The pattern cannot be parsed; git lets it match nothing."""


@attrs.frozen(kw_only=True)
class Pattern:
    """One line of an ignore file.

    ``text`` is the line as written; ``negated`` brings back what an earlier line left out; ``folders_only`` is a
    trailing slash; ``by_name`` patterns have no other slash and look at a path's last part alone.
    """

    text: bytes
    negated: bool
    folders_only: bool
    by_name: bool
    shape: re.Pattern[bytes]


@attrs.frozen(kw_only=True)
class Rules:
    """The patterns of one ignore file, and the folder that it lies in (``b""`` or ``b"a/b/"``)."""

    base: bytes = b""
    patterns: tuple[Pattern, ...] = ()
    ignore_case: bool = False

    def verdict(self, path: bytes, *, folder: bool) -> bool | None:
        """Return whether the path is left out, or None when no line speaks of it; the last line that does decides.

        ``folder`` says that the path is a real folder, not a link to one.
        """
        pattern = self.deciding(path, folder=folder)
        return None if pattern is None else not pattern.negated

    def deciding(self, path: bytes, *, folder: bool) -> Pattern | None:
        """Return the pattern that decides about the path."""
        below = path[len(self.base) :]
        if self.ignore_case:
            below = below.lower()
        name = below.rpartition(b"/")[2]
        for pattern in reversed(self.patterns):
            if pattern.folders_only and not folder:
                continue
            if pattern.shape.fullmatch(name if pattern.by_name else below):
                return pattern
        return None

    def without(self, pattern: Pattern) -> Rules:
        """Return the rules less one pattern."""
        return attrs.evolve(self, patterns=tuple(each for each in self.patterns if each is not pattern))


def parse_rules(data: bytes, *, base: bytes = b"", ignore_case: bool = False) -> Rules:
    """Return the rules of an ignore file's bytes.

    ``base`` is the folder of the file, relative to the top of the tree, with a trailing slash; ``ignore_case`` is
    git's setting ``core.ignoreCase``, which is on where file names do not tell ``A`` from ``a``.
    """
    lines = data.removeprefix(_BYTE_ORDER_MARK).split(b"\n")
    patterns = (_pattern(line, ignore_case) for line in lines if line and not line.startswith(b"#"))
    return Rules(base=base, patterns=tuple(filter(None, patterns)), ignore_case=ignore_case)


def first_verdict(rules: Iterable[Rules], path: bytes, *, folder: bool) -> bool | None:
    """Return the verdict of the first rules that speak of the path; pass the strongest, the deepest file, first."""
    for each in rules:
        verdict = each.verdict(path, folder=folder)
        if verdict is not None:
            return verdict
    return None


def lift(rules: tuple[Rules, ...], folder: bytes) -> tuple[Rules, ...]:
    """Return the rules less the patterns that leave a folder out: for a folder that was asked for by name."""
    for index, each in enumerate(rules):
        pattern = each.deciding(folder, folder=True)
        if pattern is None:
            continue
        if pattern.negated:
            break
        return lift((*rules[:index], each.without(pattern), *rules[index + 1 :]), folder)
    return rules


def _pattern(line: bytes, ignore_case: bool) -> Pattern | None:
    text = _trimmed(line.removesuffix(b"\r").partition(b"\0")[0])
    negated = text.startswith(b"!")
    body = text[1:] if negated else text
    folders_only = body.endswith(b"/")
    body = body[:-1] if folders_only else body
    if not body:
        return None
    by_name = b"/" not in body
    shape = _shape(body if by_name else body.removeprefix(b"/"), ignore_case)
    return Pattern(text=text, negated=negated, folders_only=folders_only, by_name=by_name, shape=shape)


def _trimmed(line: bytes) -> bytes:
    """Return the line without its trailing spaces, save one that a backslash protects."""
    end, position = len(line), 0
    spaces_from: int | None = None
    while position < end:
        if line[position : position + 1] == b" ":
            spaces_from = position if spaces_from is None else spaces_from
        else:
            if line[position : position + 1] == b"\\":
                position += 1
                if position == end:
                    return line
            spaces_from = None
        position += 1
    return line if spaces_from is None else line[:spaces_from]


def _shape(pattern: bytes, ignore_case: bool) -> re.Pattern[bytes]:
    """Return the regular expression of a pattern, for a path in lower case where case is ignored."""
    special = _SPECIAL.search(pattern)
    cut = special.start() if special else len(pattern)
    literal = pattern[:cut].lower() if ignore_case else pattern[:cut]
    try:
        # git compares the literal prefix first and matches the rest on its own: "**" right after it is at a start
        body = re.escape(literal) + _glob(pattern[cut:], ignore_case)
    except _UnreadableError:
        body = _NEVER
    return re.compile(body, re.DOTALL)


def _glob(glob: bytes, ignore_case: bool) -> bytes:
    out, position = b"", 0
    while position < len(glob):
        char = glob[position : position + 1]
        if char == b"*":
            piece, position = _stars(glob, position)
        elif char == b"?":
            piece, position = b"[^/]", position + 1
        elif char == b"[":
            members, position = _bracket(glob, position + 1, ignore_case)
            piece = b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(members)) + b"]" if members else _NEVER
        elif char == b"\\":
            if position + 1 == len(glob):
                raise _UnreadableError
            piece, position = re.escape(glob[position + 1 : position + 2]), position + 2
        else:
            piece, position = re.escape(char.lower() if ignore_case else char), position + 1
        out += piece
    return out


def _stars(glob: bytes, start: int) -> tuple[bytes, int]:
    """Return the expression of a run of stars, and where it ends; two or more between slashes cross folders."""
    end = start
    while glob[end : end + 1] == b"*":
        end += 1
    rest = glob[end:]
    whole_part = (start == 0 or glob[start - 1 : start] == b"/") and (not rest or rest.startswith((b"/", b"\\/")))
    if end - start == 1 or not whole_part:
        return b"[^/]*", end
    if rest.startswith(b"/"):
        return b"(?:.*/)?", end + 1
    return b".*", end


def _bracket(glob: bytes, position: int, ignore_case: bool) -> tuple[frozenset[int], int]:
    """Return the bytes that a bracket stands for, and where it ends; never a slash.

    ``position`` is just behind the opening bracket. Where case is ignored only ranges and ``[:upper:]`` take part.
    """

    def byte_at(index: int) -> int:
        if index >= len(glob):
            raise _UnreadableError
        return glob[index]

    negated = byte_at(position) in b"!^"
    position += negated
    members: set[int] = set()
    previous: int | None = None
    first = True
    while first or byte_at(position) != ord("]"):
        first = False
        byte = byte_at(position)
        if byte == ord("-") and previous is not None and byte_at(position + 1) != ord("]"):
            position += 1
            if byte_at(position) == ord("\\"):
                position += 1
            members |= _span(previous, byte_at(position), ignore_case)
            previous = None
        elif glob[position : position + 2] == b"[:" and (named := _named_class(glob, position + 2, ignore_case)):
            found, position = named
            members |= found
            previous = None
        else:
            if byte == ord("\\"):
                position += 1
                byte = byte_at(position)
            members.add(byte)
            previous = byte
        position += 1
    chosen = frozenset(range(1, 256)) - members if negated else frozenset(members)
    return chosen - {_SLASH}, position + 1


def _span(first: int, last: int, ignore_case: bool) -> frozenset[int]:
    span = frozenset(range(first, last + 1))
    return span | frozenset(byte + 32 for byte in span & _UPPER) if ignore_case else span


def _named_class(glob: bytes, start: int, ignore_case: bool) -> tuple[frozenset[int], int] | None:
    """Return the class ``[:name:]`` and where its closing bracket stands, or None where it is only a ``[``."""
    end = glob.find(b"]", start)
    if end < 0:
        raise _UnreadableError
    if end == start or glob[end - 1 : end] != b":":
        return None
    name = glob[start : end - 1]
    if name not in _CLASSES:
        raise _UnreadableError
    return (_CLASSES[b"alpha"] if ignore_case and name == b"upper" else _CLASSES[name]), end
