"""The safetensors format: a header that says where each tensor lies, read and checked, and written. Pure.

Eight bytes of length (little endian), a JSON object, then the tensors' bytes, row-major and little endian, one after
the other without a gap: https://github.com/huggingface/safetensors, "Format". What a header says is never trusted: its
length, every offset and every shape are checked before a byte of a tensor is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from cloudtune.errors import UsageError

#: Bits of an element, by the format's own names.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
#: The format admits 100 MB, which takes gigabytes to parse; a header of 200,000 tensors has less than this.
MAX_HEADER_BYTES = 32 << 20
_MAX_DIMENSIONS = 64
_METADATA = "__metadata__"


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
        raise ValueError(f"type {dtype!r} is not known")
    bits = BITS[dtype]
    for length in shape:
        bits *= length
    if bits % 8:
        raise ValueError(f"a {dtype} tensor of that shape does not fill whole bytes")
    return bits // 8


def read_header(read: Callable[[int, int], bytes], size: int, name: str) -> Header:
    """Return the header of a file of ``size`` bytes, of which ``read(offset, length)`` gives ranges.

    Raises:
        UsageError: it is no safetensors file, or cut off, or its header contradicts itself; ``name`` is in the message.
    """
    try:
        return parse_header(_header_text(read, size), size)
    except ValueError as error:
        hint = "copy it again: it is cut off, damaged, or something else"
        raise UsageError(f"{name} is no whole safetensors file: {error}", hint=hint) from error


def _header_text(read: Callable[[int, int], bytes], size: int) -> bytes:
    if size < 8:
        raise ValueError(f"it has {size} bytes")
    length = int.from_bytes(read(0, 8), "little")
    if length > min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(f"its header would have {length} bytes, and the file has {size}")
    return read(8, length)


def parse_header(text: bytes, size: int) -> Header:
    """Return what a header says of a file of ``size`` bytes; raises ValueError if it cannot be so."""
    start = 8 + len(text)
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_without_doubles)
    except RecursionError:
        raise ValueError("its header is nested too deep") from None
    if not isinstance(entries, dict):
        raise ValueError("its header is no JSON object")  # noqa: TRY004 - told as what is wrong with the file
    metadata = entries.pop(_METADATA, None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not text by name")
    found = [_tensor(name, entry, start) for name, entry in entries.items()]
    # of tensors with the same offset, empty ones come first
    tensors = sorted(found, key=lambda one: (one.offset, one.length))
    position = start
    for tensor in tensors:
        if tensor.offset != position:
            raise ValueError(f"tensor {tensor.name} begins at {tensor.offset} where {position} is due")
        position += tensor.length
    if position != size:
        raise ValueError(f"its tensors end at {position}, and the file has {size} bytes")
    return Header(tensors={tensor.name: tensor for tensor in tensors}, metadata=metadata, start=start)


def make_header(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, Header]:
    """Return the bytes of the header of a file with these tensors (name, type, shape), in this order, and what it says.

    The bytes are padded to a multiple of 8, as the format's own library does, so that tensors may be mapped.
    """
    entries: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    position = 0
    for name, dtype, shape in tensors:
        length = size_bytes(dtype, shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + length]}
        position += length
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, parse_header(text, 8 + len(text) + position)


def _tensor(name: str, entry: Any, start: int) -> Tensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name} has not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name} has an impossible type, shape or place")
    if len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"tensor {name} has {len(shape)} dimensions")
    begin, end = offsets
    try:
        length = size_bytes(dtype, shape)
    except ValueError as error:
        raise ValueError(f"tensor {name}: {error}") from None
    if end - begin != length:
        raise ValueError(f"tensor {name} has {end - begin} bytes, and its shape needs {length}")
    return Tensor(name=name, dtype=dtype, shape=tuple(shape), offset=start + begin, length=length)


def _naturals(value: Any) -> bool:
    # a whole number of more than 63 bits is no size of anything; bool is an int in Python
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header names something twice")
    return found
