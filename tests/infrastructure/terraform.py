"""Reads Terraform files with python-hcl2: blocks by address, and every reference in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hcl2

_OPTIONS = hcl2.SerializationOptions(with_comments=False, explicit_blocks=False, strip_string_quotes=True)
_REFERENCE = re.compile(
    r"(?<![\w.\"'/-])(var\.\w+|local\.\w+|data\.oci_\w+\.\w+|oci_\w+\.\w+)((?:\[[^\]]*\])?(?:\.\w+(?:\[[^\]]*\])?)*)"
)
#: What any resource may have beside its own arguments, and what any data source may.
META = {"count", "for_each", "provider", "depends_on", "lifecycle", "filter"}


class Module:
    """All Terraform files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables: dict[str, dict[str, Any]] = {}
        self.outputs: dict[str, dict[str, Any]] = {}
        self.locals: dict[str, Any] = {}
        self.resources: dict[str, dict[str, Any]] = {}
        self.data: dict[str, dict[str, Any]] = {}
        self.providers: list[dict[str, Any]] = []
        self.terraform: dict[str, Any] = {}
        for file in sorted(folder.glob("*.tf")):
            with file.open(encoding="utf-8") as text:
                self._add(hcl2.load(text, serialization_options=_OPTIONS))

    def _add(self, found: dict[str, Any]) -> None:
        known = {"variable", "output", "locals", "resource", "data", "provider", "terraform"}
        assert set(found) <= known, set(found) - known
        for name, table in (("variable", self.variables), ("output", self.outputs)):
            for block in found.get(name, ()):
                assert not set(block) & set(table), f"twice: {block}"
                table.update(block)
        for block in found.get("locals", ()):
            assert not set(block) & set(self.locals), f"twice: {block}"
            self.locals.update(block)
        for name, blocks in (("resource", self.resources), ("data", self.data)):
            for block in found.get(name, ()):
                for kind, named in block.items():
                    for label, body in named.items():
                        assert f"{kind}.{label}" not in blocks
                        blocks[f"{kind}.{label}"] = body
        self.providers += found.get("provider", [])
        for block in found.get("terraform", ()):
            self.terraform.update(block)

    def references(self) -> set[tuple[str, str]]:
        """Return what is referred to anywhere, and the attribute of it that is asked for."""
        places = (self.locals, self.outputs, self.resources, self.data, self.providers, self.variables)
        found: set[tuple[str, str]] = set()
        for place in places:
            for text in texts(place):
                for head, tail in _REFERENCE.findall(_code_of(text)):
                    found.add((head, re.sub(r"\[[^\]]*\]", "", tail).lstrip(".").partition(".")[0]))
        return found


def texts(value: Any) -> list[str]:
    """Return every text in a tree."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def arguments(body: dict[str, Any], prefix: str = "") -> set[str]:
    """Return the names of a block's arguments, those of blocks in it after a dot."""
    found = set()
    for name, value in body.items():
        found.add(prefix + name)
        for inner in value if isinstance(value, list) else ():
            if isinstance(inner, dict):
                found |= arguments(inner, f"{prefix}{name}.")
    return found


def _code_of(text: str) -> str:
    """Return what is code in a value: all between ``${`` and its ``}``; other text refers to nothing."""
    pieces, start = [], text.find("${")
    while start >= 0:
        depth, end = 1, start + 2
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        pieces.append(text[start + 2 : end - 1])
        start = text.find("${", end)
    return "\n".join(pieces)
