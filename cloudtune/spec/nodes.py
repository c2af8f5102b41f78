"""YAML as a tree that knows where everything stands; read by events, bounded in depth and size.

A job is YAML 1.2 as its core schema has it, less what surprises people: only ``true`` and ``false`` are booleans (so
``on``, ``off``, ``yes`` and ``no`` are text), ``12:30:00`` and ``2024-05-01`` are text, ``1e-5`` is a number, numbers
with a leading zero are text (an account id stays what it is), ``.inf`` and ``.nan`` are text. Anchors, aliases, tags
and merge keys are refused: a job says what it means where it stands.

The tree is built from the parser's events, one at a time, because the C loader of PyYAML crashes the interpreter when
it composes deep input (libyaml composes by recursion).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import yaml
from yaml import events
from yaml.reader import Reader

from cloudtune.errors import Fault, SpecError
from cloudtune.spec.faults import Faults, Path, Place, shortened

#: A document is at most so large, so deep, and has at most so many values.
BYTES, DEPTH, NODES = 1 << 20, 64, 50_000

_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,63})|0x[0-9a-fA-F]{1,32}|0o[0-7]{1,32}")
_FLOAT = re.compile(
    r"[-+]?(?:(?:\.[0-9]+|(?:0|[1-9][0-9]*)\.[0-9]*)(?:[eE][-+]?[0-9]+)?|(?:0|[1-9][0-9]*)[eE][-+]?[0-9]+)"
)
#: Text that must be quoted to stay text, in YAML 1.2's reading.
NUMBER = re.compile(f"^(?:{_INTEGER.pattern}|{_FLOAT.pattern})$")
#: What YAML does not allow in a document.
_UNPRINTABLE = Reader.NON_PRINTABLE
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Node:
    """A value of the document and where it stands.

    ``value`` is a scalar, a list of nodes or a dict of nodes; ``text`` is a plain scalar as written; ``places`` says
    where the keys of a mapping stand. ``loose`` marks a scalar given on the command line, where nobody wants to quote
    twice; ``broken`` one of which everything that is wrong has been said.
    """

    __slots__ = ("broken", "loose", "place", "places", "text", "value")

    def __init__(self, value: Any, place: Place, text: str | None = None) -> None:
        self.value: Any = value
        self.place = place
        self.text = text
        self.places: dict[str, Place] = {}
        self.loose = self.broken = False

    def place_of(self, word: str) -> Place:
        """Return where a key of a mapping stands."""
        return self.places.get(word, self.place)


def inner(node: Node | None, word: str) -> Node | None:
    """Return what stands below a key, if the node is a mapping and has it."""
    return node.value.get(word) if node is not None and isinstance(node.value, dict) else None


def resolved(text: str) -> Any:
    """Return what a plain scalar means."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0)
    if len(text) < 100 and _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def parse(text: str, faults: Faults, file: str | None = None, *, loader: Any = _LOADER) -> Node:
    """Return the tree of a YAML document; faults that leave it readable go to ``faults``.

    Raises:
        SpecError: the text is no YAML, or larger, deeper or emptier than a job can be.
    """
    text = text.removeprefix("\ufeff")
    _check_text(text, file, faults)
    builder = _Builder(file, faults)
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        hint = "indent with spaces, not with tabs" if mark and _character(text, mark) == "\t" else None
        faults.add(f"this is no valid YAML: {error.problem or error.context}", place, hint=hint)
        faults.check()
    except (yaml.YAMLError, ValueError) as error:
        faults.add(f"this is no valid YAML: {shortened(str(error))}", Place(file))
        faults.check()
    if builder.root is None or (builder.root.value is None and builder.root.text == ""):
        faults.add("the file is empty", Place(file), hint="`cloudtune init NAME` writes one to start from")
        faults.check()
    assert builder.root is not None
    return builder.root


def _character(text: str, mark: yaml.Mark) -> str:
    lines = text.split("\n")
    line = lines[mark.line] if mark.line < len(lines) else ""
    return line[mark.column : mark.column + 1]


def _check_text(text: str, file: str | None, faults: Faults) -> None:
    if len(text) > BYTES:
        raise SpecError([Fault(message=f"a job has at most {BYTES} characters", file=file)])
    if found := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start())
        column = found.start() - text.rfind("\n", 0, found.start())
        message = f"the character {found[0]!r} cannot stand in YAML; this looks like a binary file"
        faults.add(message, Place(file, line + 1, column))
        faults.check()
    # libyaml compares each tag directive with all the others: 50,000 of them cost seconds
    if text.startswith("%") and (tag := re.search(r"^%TAG", text, re.MULTILINE)):
        faults.add("tags are not read", Place(file, text.count("\n", 0, tag.start()) + 1, 1), hint="take it out")
        faults.check()


class _Builder:
    """Builds the tree from events, with a stack of its own."""

    def __init__(self, file: str | None, faults: Faults) -> None:
        self.file = file
        self.faults = faults
        self.root: Node | None = None
        #: the open collections, the key in each that waits for its value, and the way to the innermost one
        self.stack: list[Node] = []
        self.keys: list[_Key | None] = []
        self.path: list[str | int] = []
        self.count = 0

    def take(self, event: Any) -> None:
        action = _ACTIONS.get(type(event))
        if action is not None:
            action(self, event)

    def document(self, event: Any) -> None:
        if self.root is not None:
            self.stop("a file holds one job; here a second document begins", event)

    def scalar(self, event: Any) -> None:
        plain = not event.style  # None in Python, "" in C
        node = Node(resolved(event.value) if plain else event.value, self.at(event), event.value if plain else None)
        self.unmarked(event, node)
        if self.wants_key():
            self.key(event.value, node)
        else:
            self.put(node)

    def alias(self, event: Any) -> None:
        node = Node(None, self.at(event))
        node.broken = True
        self.faults.add(f"aliases are not read: '*{shortened(event.anchor)}'", node.place, self.here(), "write it out")
        if self.wants_key():
            self.keys[-1] = _Key(None, node.place)
        else:
            self.put(node)

    def open(self, event: Any, value: list[Node] | dict[str, Node]) -> None:
        node = Node(value, self.at(event))
        self.unmarked(event, node)
        if len(self.stack) >= DEPTH:
            self.stop(f"this is nested more than {DEPTH} deep", event)
        if self.wants_key():
            self.faults.add("a key is one word", node.place, self.here())
            self.keys[-1] = _Key(None, node.place)
            self.path.append("?")
        else:
            if self.stack:
                self.path.append(self.here()[-1])
            self.put(node)
        self.stack.append(node)
        self.keys.append(None)

    def close(self, _: Any) -> None:
        self.stack.pop()
        self.keys.pop()
        if self.path:
            self.path.pop()

    def at(self, event: Any) -> Place:
        self.count += 1
        if self.count > NODES:
            self.stop(f"this has more than {NODES} values", event)
        return Place(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def stop(self, message: str, event: Any) -> None:
        self.faults.add(message, Place(self.file, event.start_mark.line + 1, event.start_mark.column + 1))
        self.faults.check()

    def here(self) -> Path:
        """Return the path of what comes next."""
        if not self.stack:
            return ()
        if isinstance(self.stack[-1].value, list):
            return (*self.path, len(self.stack[-1].value))
        key = self.keys[-1]
        return (*self.path, "?" if key is None or key.word is None else key.word)

    def unmarked(self, event: Any, node: Node) -> None:
        if event.anchor is not None:
            message = f"anchors are not read: '&{shortened(event.anchor)}'"
            self.faults.add(message, node.place, self.here(), "write the value out where it is needed")
        if event.tag is not None:
            message = f"tags are not read: '{shortened(event.tag.replace('tag:yaml.org,2002:', '!!'))}'"
            self.faults.add(message, node.place, self.here(), "quote a value that is text")

    def wants_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].value, dict) and self.keys[-1] is None

    def key(self, word: str, node: Node) -> None:
        mapping, path, shown = self.stack[-1], (*self.path, word), shortened(word)
        self.keys[-1] = _Key(word, node.place)
        if node.text == "<<":
            self.faults.add("merge keys are not read", node.place, path, "write the keys out")
            self.keys[-1] = _Key(None, node.place)
        elif not isinstance(node.value, str):
            self.faults.add(f"the key {shown!r} is no text", node.place, path, f'quote it: "{shown}"')
        if word in mapping.value:
            hint = f"it stands in line {mapping.places[word].line} already"
            self.faults.add(f"the key {shown!r} stands here twice", node.place, path, hint)
            self.keys[-1] = _Key(None, node.place)

    def put(self, node: Node) -> None:
        """Put a node where it belongs: at the root, or into the open list or mapping."""
        if not self.stack:
            self.root = node
            return
        parent, key = self.stack[-1], self.keys[-1]
        if key is None:
            parent.value.append(node)
            return
        if key.word is not None:
            parent.value[key.word] = node
            parent.places[key.word] = key.place
        self.keys[-1] = None


class _Key(NamedTuple):
    """A key that waits for its value; without a word the value is dropped."""

    word: str | None
    place: Place


_ACTIONS: dict[type[Any], Callable[[_Builder, Any], None]] = {
    events.DocumentStartEvent: _Builder.document,
    events.ScalarEvent: _Builder.scalar,
    events.AliasEvent: _Builder.alias,
    events.SequenceStartEvent: lambda builder, event: builder.open(event, []),
    events.MappingStartEvent: lambda builder, event: builder.open(event, {}),
    events.SequenceEndEvent: _Builder.close,
    events.MappingEndEvent: _Builder.close,
}


def planted(data: Any, faults: Faults, place: Place = Place(), path: Path = (), depth: int = DEPTH) -> Node:  # noqa: B008
    """Return the tree of plain data: mappings, lists and scalars."""
    if isinstance(data, (Mapping, list, tuple)) and not depth:
        faults.add(f"this is nested more than {DEPTH} deep", place, path, "is it part of itself?")
        data = None
    if isinstance(data, Mapping):
        node = Node({}, place)
        for key, value in data.items():
            if not isinstance(key, str):
                faults.add(f"the key {shortened(str(key))!r} is no text", place, (*path, str(key)))
            node.value[str(key)] = planted(value, faults, place, (*path, str(key)), depth - 1)
        return node
    if isinstance(data, (list, tuple)):
        items = [planted(value, faults, place, (*path, index), depth - 1) for index, value in enumerate(data)]
        return Node(items, place)
    node = Node(data, place)
    if not (data is None or isinstance(data, (str, bool, int)) or (isinstance(data, float) and math.isfinite(data))):
        node.broken = True
        faults.add(f"{shortened(repr(data))} is nothing that YAML can hold", place, path)
    return node
