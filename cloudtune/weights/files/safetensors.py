"""The safetensors format: a header that says where each tensor lies, read and checked, and written. Pure.

Eight bytes of length (little endian), a JSON object, then the tensors' bytes, row-major and little endian, one after
the other without a gap: https://github.com/huggingface/safetensors, "Format". What a header says is never trusted: its
length, every offset and every shape are checked before a byte of a tensor is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs

from cloudtune.errors import UsageError

#: Bits of an element, by the format's own names.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
#: The format admits 100 MB; a header of 200,000 tensors has less than this.
MAX_HEADER_BYTES = 32 << 20
_MAX_DIMENSIONS = 64
#: The format's own library counts bits in 64 of them.
_MAX_BITS = 2**64 - 1
#: An entry with as many dimensions as are admitted, of 19 digits each, takes half of this.
_MAX_ENTRY_CHARACTERS = 4096
_METADATA = "__metadata__"
#: A pointer, which Git leaves in the place of a large file, is smaller.
_POINTER_BYTES = 1024
_SPACE = re.compile(r"[ \t\n\r]*")


@attrs.frozen(kw_only=True)
class Tensor:
    """A tensor in a file: its type, its shape, and its place in bytes from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


@attrs.frozen(kw_only=True)
class Header:
    """What a safetensors file holds: ``tensors`` by name in the order of their bytes; the first is at ``start``."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = attrs.field(factory=dict)
    start: int


def size_bytes(dtype: str, shape: Iterable[int]) -> int:
    """Return the bytes of a tensor; raises ValueError if the type is unknown or its bits do not fill whole bytes."""
    if dtype not in BITS:
        raise ValueError(f"type {readable(dtype)} is not known")
    elements = 1
    for length in shape:
        elements *= length
        if elements * BITS[dtype] > _MAX_BITS:
            raise ValueError(f"a {dtype} tensor of that shape has more bytes than there can be")
    if elements * BITS[dtype] % 8:
        raise ValueError(f"a {dtype} tensor of that shape does not fill whole bytes")
    return elements * BITS[dtype] // 8


def readable(name: str) -> str:
    """Return a name from a file as a message may show it: not too long, and nothing in it moves a cursor."""
    cut = name if len(name) <= 200 else f"{name[:200]}..."
    return cut if cut.isprintable() else ascii(cut)


def read_header(read: Callable[[int, int], bytes], size: int, name: str) -> Header:
    """Return the header of a file of ``size`` bytes, of which ``read(offset, length)`` gives ranges.

    Raises:
        UsageError: it is no safetensors file, or cut off, or its header contradicts itself; ``name`` is in the message.
    """
    try:
        return parse_header(_header_text(read, size), size)
    except ValueError as error:
        if size < _POINTER_BYTES and read(0, size).startswith(b"version https://git-lfs"):
            hint = "fetch the files: git lfs pull, or hf download OWNER/NAME"
            raise UsageError(f"{name} is a pointer of Git LFS, not the file itself", hint=hint) from error
        hint = "copy it again: it is cut off, damaged, or something else"
        raise UsageError(f"{name} is no whole safetensors file: {error}", hint=hint) from error


def _header_text(read: Callable[[int, int], bytes], size: int) -> bytes:
    if size < 8:
        raise ValueError(f"it has {size} bytes")
    length = int.from_bytes(read(0, 8), "little")
    if length > size - 8:
        raise ValueError(f"its header would have {length} bytes, and the file has {size}")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header would have {length} bytes, and {MAX_HEADER_BYTES} are read at the most")
    return read(8, length)


def parse_header(text: bytes, size: int) -> Header:
    """Return what a header says of a file of ``size`` bytes; raises ValueError if it cannot be so."""
    start = 8 + len(text)
    found: list[Tensor] = []
    metadata: dict[str, str] = {}
    header = _Text(text.decode("utf-8"))
    for name in header.names():
        if name == _METADATA:
            metadata = {key: header.string() for key in header.names()} if header.due("{n") == "{" else header.null()
        else:
            found.append(_tensor(name, header.entry(), start))
    header.due("")
    # of tensors with the same offset, empty ones come first
    found.sort(key=lambda tensor: (tensor.offset, tensor.length))
    position = start
    for tensor in found:
        if tensor.offset != position:
            raise ValueError(f"tensor {readable(tensor.name)} begins at {tensor.offset} where {position} is due")
        position += tensor.length
    if position != size:
        raise ValueError(f"its tensors end at {position}, and the file has {size} bytes")
    return Header(tensors={tensor.name: tensor for tensor in found}, metadata=metadata, start=start)


def make_header(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, Header]:
    """Return the bytes of the header of a file with these tensors (name, type, shape), in this order, and what it says.

    The bytes are padded to a multiple of 8, as the format's own library does, so that tensors may be mapped.

    Raises:
        ValueError: there can be no such file: a name twice, an unknown type, a header that nobody would read.
    """
    entries: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    position = 0
    for name, dtype, shape in tensors:
        if name in entries or name == _METADATA:
            raise ValueError(f"a second tensor would be called {readable(name)}")
        length = size_bytes(dtype, shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + length]}
        position += length
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(f"its header would have {len(text)} bytes, and {MAX_HEADER_BYTES} are read at the most")
    return len(text).to_bytes(8, "little") + text, parse_header(text, 8 + len(text) + position)


def _tensor(name: str, entry: Any, start: int) -> Tensor:
    shown = readable(name)
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {shown} has not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {shown} has an impossible type, shape or place")
    if len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"tensor {shown} has {len(shape)} dimensions")
    begin, end = offsets
    try:
        length = size_bytes(dtype, shape)
    except ValueError as error:
        raise ValueError(f"tensor {shown}: {error}") from None
    if end - begin != length:
        raise ValueError(f"tensor {shown} has {end - begin} bytes, and its shape needs {length}")
    return Tensor(name=name, dtype=dtype, shape=tuple(shape), offset=start + begin, length=length)


def _naturals(value: Any) -> bool:
    # a whole number of more than 63 bits is no size of anything; bool is an int in Python
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


class _Text:
    """The JSON of a header, read from front to back, one entry at a time and each of bounded length.

    What the JSON library makes of a hostile text at once takes thirty times its memory.
    """

    def __init__(self, text: str) -> None:
        self._text, self._place = text, 0
        self._decoder = json.JSONDecoder(object_pairs_hook=_without_doubles)

    def due(self, marks: str) -> str:
        """Return the character that is next after white space, which must be one of the marks; none means the end."""
        space = _SPACE.match(self._text, self._place)
        self._place = space.end() if space else self._place
        found = self._text[self._place : self._place + 1]
        if found != marks and (not found or found not in marks):
            raise ValueError(f"its header has {found!r} at character {self._place}, and is no JSON object of tensors")
        return found

    def names(self) -> Iterator[str]:
        """Yield the names in the object that is next; the value of each must be read before the next is asked for."""
        seen: set[str] = set()
        self._pass("{")
        while self.due('"}' if not seen else '"') == '"':
            name = self.string()
            if name in seen:
                raise ValueError(f"its header names {readable(name)} twice")
            seen.add(name)
            self._pass(":")
            yield name
            if self._pass(",}") == "}":
                return
        self._pass("}")

    def string(self) -> str:
        """Return the string that is next."""
        self.due('"')
        value, self._place = self._decoder.raw_decode(self._text, self._place)
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"half of a character is in {readable(value)}")
        return str(value)

    def null(self) -> dict[str, str]:
        """Pass over a null, which stands for no metadata."""
        if not self._text.startswith("null", self._place):
            raise ValueError("its metadata is not text by name")
        self._place += len("null")
        return {}

    def entry(self) -> Any:
        """Return what is said of a tensor."""
        self.due("{")
        # no brace is right inside, so the first is the end; JSON's -0 would be read as 0
        end = self._text.find("}", self._place, self._place + _MAX_ENTRY_CHARACTERS) + 1
        if not end or "-" in self._text[self._place : end]:
            raise ValueError(f"what its header has at character {self._place} is nothing of a tensor")
        try:
            value = self._decoder.decode(self._text[self._place : end])
        except RecursionError:
            raise ValueError(f"its header is nested too deep at character {self._place}") from None
        self._place = end
        return value

    def _pass(self, marks: str) -> str:
        found = self.due(marks)
        self._place += len(found)
        return found


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header names something twice")
    return found
