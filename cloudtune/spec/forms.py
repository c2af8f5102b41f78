"""Reads the simple forms of YAML strictly: text, numbers, booleans, lists, mappings and plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cloudtune.spec.faults import Faults, Path, shortened
from cloudtune.spec.fields import DEPTH, keys_of
from cloudtune.spec.nodes import Node, resolved

#: What a key is read as that is empty or faulty: its default stands.
UNSET: Any = object()

_UNQUOTED = frozenset({"a whole number", "a number", "true or false"})


def kind_of(node: Node) -> str:
    """Return what a node is, in words."""
    value = node.value
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return f"{str(value).lower()}, a boolean"
    if isinstance(value, (int, float)):
        return f"{node.text or value}, a number"
    return f"the text {shortened(value, 40)!r}"


class FormReader:
    """Reads nodes of the simple forms; what is wrong goes to ``faults``."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    # --- scalars and plain data

    def text(self, node: Node, path: Path) -> Any:
        """Read text; None where it is empty or none."""
        value = node.value
        if node.broken or value is None:
            return None
        if node.loose and node.text is not None and not isinstance(value, (list, dict)):
            value = node.text
        if not isinstance(value, str):
            hint = None if isinstance(value, (list, dict)) else f'quote it: "{node.text or value}"'
            self.faults.add(f"text is needed here; this is {kind_of(node)}", node.place, path, hint)
            return None
        return self.clean(value, node, path)

    def clean(self, value: str, node: Node, path: Path) -> str:
        """Refuse characters that no process, service or file can be given."""
        bad = next((character for character in value if character == "\0" or "\ud800" <= character <= "\udfff"), None)
        if bad is not None:
            self.faults.add(f"the text holds {bad!r}, which cannot be passed on", node.place, path)
            return ""
        return value

    def integer(self, node: Node, path: Path) -> Any:
        """Read a whole number."""
        if isinstance(node.value, int) and not isinstance(node.value, bool):
            return node.value
        return self.no("a whole number", node, path)

    def number(self, node: Node, path: Path) -> Any:
        """Read a number."""
        if isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            return node.value
        return self.no("a number", node, path)

    def boolean(self, node: Node, path: Path) -> Any:
        """Read true or false."""
        return node.value if isinstance(node.value, bool) else self.no("true or false", node, path)

    def texts(self, node: Node, path: Path) -> Any:
        """Read a list of text."""
        items = self.items(node, path)
        return UNSET if items is None else tuple(self.item(item, (*path, i)) for i, item in enumerate(items))

    def numbers(self, node: Node, path: Path) -> Any:
        """Read a list of numbers."""
        items = self.items(node, path)
        found = [self.number(item, (*path, i)) for i, item in enumerate(items or ())]
        return UNSET if items is None else tuple(float(one) for one in found if one is not UNSET)

    def command(self, node: Node, path: Path) -> Any:
        """Read a line of text or a list of words."""
        return self.texts(node, path) if isinstance(node.value, list) else self.text(node, path)

    def text_map(self, node: Node, path: Path) -> Any:
        """Read a mapping of text to text."""
        items = self.items_of(node, path)
        return UNSET if items is None else {key: self.item(item, (*path, key)) for key, item in items.items()}

    def item(self, node: Node, path: Path) -> str:
        """Read text that must be there."""
        found = self.text(node, path)
        if found is None and not node.broken and node.value is None:
            self.faults.add("text is needed here; this is empty", node.place, path, 'for empty text write ""')
        return found or ""

    def json(self, node: Node, path: Path, depth: int = DEPTH) -> Any:
        """Read data of any form; UNSET where it cannot be kept."""
        value = node.value
        if isinstance(value, (dict, list)) and not depth:
            self.faults.add(f"this is nested more than {DEPTH} deep", node.place, path)
            return UNSET
        if isinstance(value, dict):
            found = {key: self.json(item, (*path, key), depth - 1) for key, item in value.items()}
            return {key: item for key, item in found.items() if item is not UNSET}
        if isinstance(value, list):
            listed = [self.json(item, (*path, i), depth - 1) for i, item in enumerate(value)]
            return tuple(item for item in listed if item is not UNSET)
        return self.clean(value, node, path) if isinstance(value, str) else value

    def json_map(self, node: Node, path: Path) -> Any:
        """Read a mapping of any data."""
        return UNSET if self.items_of(node, path) is None else self.json(node, path)

    def json_maps(self, node: Node, path: Path) -> Any:
        """Read a list of mappings of any data."""
        items = self.items(node, path)
        if items is None:
            return UNSET
        found = [self.json_map(item, (*path, i)) for i, item in enumerate(items)]
        return tuple({} if item is UNSET else item for item in found)

    # --- forms

    def mapping(
        self, node: Node, path: Path, words: tuple[str, ...], about: str, inner: Mapping[str, type[Any]] | None = None
    ) -> dict[str, Node]:
        """Return the known keys of a mapping; unknown ones are faults."""
        if not isinstance(node.value, dict):
            self.no("a mapping", node, path, about.splitlines()[0] if about else None)
            return {}
        known = {}
        for word, child in node.value.items():
            if word in words:
                known[word] = child
                continue
            place = node.place_of(word)
            if inner and any(word == key.word for cls in inner.values() for key in keys_of(cls)):
                self.faults.add(f"{word!r} belongs one level deeper", place, (*path, word), "below `spec:`")
            elif guess := self.faults.unknown("key", word, words, place, (*path, word)):
                # what it was meant to say is not missing as well
                self.faults.paths.add((*path, guess))
        return known

    def items(self, node: Node, path: Path, what: str = "a list") -> list[Node] | None:
        """Return the items of a list."""
        if isinstance(node.value, list):
            return node.value
        shown = isinstance(node.value, str) and "env" not in path
        hint = f"write [{shortened(node.value, 30)}]" if shown else None
        self.no(what, node, path, hint)
        return None

    def items_of(self, node: Node, path: Path) -> dict[str, Node] | None:
        """Return the items of a mapping with keys of the user's own."""
        if isinstance(node.value, dict):
            return node.value
        self.no("a mapping", node, path)
        return None

    def no(self, what: str, node: Node, path: Path, hint: str | None = None) -> Any:
        """Say that a node is not what it should be."""
        if not node.broken:
            if what in _UNQUOTED and isinstance(node.value, str) and not isinstance(resolved(node.value), str):
                hint = hint or "write it without quotes"
            # what stands among the variables may be a secret: it is not shown
            kind = "text" if isinstance(node.value, str) and "env" in path else kind_of(node)
            self.faults.add(f"{what} is needed here; this is {kind}", node.place, path, hint)
        return UNSET

    def missing(self, word: str, node: Node, path: Path, hint: str | None = None) -> None:
        """Say that a key is missing."""
        self.faults.add(f"{word!r} is missing", node.place, (*path, word), hint)


READ: dict[str, Callable[[FormReader, Node, Path], Any]] = {
    "text": FormReader.text,
    "integer": FormReader.integer,
    "number": FormReader.number,
    "boolean": FormReader.boolean,
    "texts": FormReader.texts,
    "numbers": FormReader.numbers,
    "command": FormReader.command,
    "textMap": FormReader.text_map,
    "json": FormReader.json,
    "jsonMap": FormReader.json_map,
    "jsonMaps": FormReader.json_maps,
}
