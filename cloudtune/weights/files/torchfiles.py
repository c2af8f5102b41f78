"""Files of ``torch.save`` as data: a zip with a pickle, and the bytes of each storage at a known place.

Such a file may lie inside another one, as each item of a ``.distcp`` does. The zip is read as torch writes it, which
is stricter than zip files in general: stored, not compressed, and every entry within its own bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from struct import Struct
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.ranges import Reader
from cloudtune.uri import shown
from cloudtune.weights.files import pickles
from cloudtune.weights.files.assembly import Span
from cloudtune.weights.files.pickles import MAX_PICKLE_BYTES, Allowed, Global
from cloudtune.weights.files.safetensors import size_bytes

#: Types of torch by their names there, in safetensors' words; torch.complex128 has none.
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "storage.UntypedStorage": "U8",
}  # fmt: skip
#: The type of each name that stands for one: ``torch.bfloat16``, ``torch.BFloat16Storage``.
TYPE_OF: Mapping[str, str] = {f"torch.{name}": dtype for name, dtype in (*DTYPES.items(), *_STORAGES.items())}
_MAX_DIMENSIONS = 64
#: What stands in 32 bits for a number that needs more.
_WIDE = 0xFFFFFFFF
_MAX_DIRECTORY_BYTES = 32 << 20
#: Read at once at either end of a file: all that is asked of one with a single tensor.
EDGE_BYTES = 1 << 10
# https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3.7 to 4.3.16
_LOCAL = Struct("<4s4xH16xHH")
_ENTRY = Struct("<4s4xHH8xIIHHH8xI")
_END64 = Struct("<4s28xQQQ")
_END = Struct("<4s6xHIIH")
#: What files older than torch 1.6 begin with: a number as a pickle, or a tar archive's first name.
_LEGACY = (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", b"sys_info\0", b"./")


@attrs.frozen(kw_only=True, eq=False, slots=True)
class TorchTensor:
    """A tensor in a file: type in safetensors' words, and the place of its first element in bytes.

    ``stride`` counts elements; ``length`` is the bytes that its elements take without gaps.
    """

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    reader: Reader
    offset: int
    length: int

    @property
    def contiguous(self) -> bool:
        """Whether its elements lie side by side, row by row."""
        step = 1
        for length, stride in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if length != 1 and stride != step:
                return not self.length
            step *= length
        return True

    def span(self) -> Span:
        """Return its bytes; raises ValueError if they do not lie side by side."""
        if not self.contiguous:
            raise ValueError(f"it is not contiguous: shape {[*self.shape]}, strides {[*self.stride]}")
        return Span(reader=self.reader, offset=self.offset, length=self.length)


@attrs.frozen(slots=True)
class _Entry:
    """A file in a zip, by the position of its own header and its length."""

    name: str
    header: int
    length: int


@attrs.frozen(slots=True, eq=False)
class _Storage:
    """Bytes in a zip that tensors are views of."""

    dtype: str
    offset: int
    length: int


#: Pickles of one tensor by their bytes: the storage that each names, and the tensor as if that began at 0.
Known = dict[bytes, tuple[tuple[Any, ...], TorchTensor]]


def read_torch(
    reader: Reader,
    *,
    offset: int = 0,
    length: int | None = None,
    name: str | None = None,
    extra: Allowed | None = None,
    known: Known | None = None,
) -> Any:
    """Return what a file of ``torch.save`` holds; its tensors are :class:`TorchTensor` values, not read yet.

    The file is the ``length`` bytes of the reader from ``offset`` on. ``extra`` are rows for the allow-list of its
    pickle (:func:`cloudtune.weights.files.pickles.load`); ``name`` is what messages call it. ``known`` gathers what
    pickles of one tensor mean, for whoever reads thousands of files: tensors of one shape have the same pickle.

    Raises:
        UsageError: it is no such file, or cut off, hostile, compressed, big endian, or older than torch 1.6.
    """
    name = name or shown(reader.uri)
    end = reader.size if length is None else offset + length
    try:
        archive = _Archive(reader, offset, end)
        data = archive.text("data.pkl")
        if known is not None and data in known:
            return _moved(known[data][1], reader, archive.storage(known[data][0]).offset)
        allowed = {**STATE, **(extra or {}), **_tensors(reader)}
        value = pickles.load(data, allowed, name=name, persistent=archive.storage)
        if known is not None and type(value) is TorchTensor and len(archive.named) == 1:
            known[data] = archive.named[0], _moved(value, reader, -archive.storage(archive.named[0]).offset)
    except ValueError as error:
        raise UsageError(f"{name} is no whole file of torch.save: {error}", hint="copy it again") from error
    return value


def _moved(tensor: TorchTensor, reader: Reader, by: int) -> TorchTensor:
    return TorchTensor(
        dtype=tensor.dtype,
        shape=tensor.shape,
        stride=tensor.stride,
        reader=reader,
        offset=tensor.offset + by,
        length=tensor.length,
    )


def dtype_of(value: Any) -> str:
    """Return the type that a ``torch.dtype`` in a pickle means; raises ValueError for anything else."""
    dtype = TYPE_OF.get(value.name) if type(value) is Global else None
    if dtype is None or value.name.endswith("Storage"):
        raise ValueError(f"{value.name if type(value) is Global else 'something'} is no type of safetensors")
    return dtype


def naturals(value: Any) -> tuple[int, ...]:
    """Return a shape, stride or offset in a pickle; raises ValueError for anything else."""
    if type(value) is not tuple or len(value) > _MAX_DIMENSIONS:
        raise ValueError("it has a shape that no tensor has")
    if not all(type(one) is int and 0 <= one < 2**63 for one in value):
        raise ValueError("it has a shape that no tensor has")
    return value


class _Archive:
    """The zip of one file, with the place of every entry."""

    def __init__(self, reader: Reader, start: int, end: int) -> None:
        if not 0 <= start <= end <= reader.size:
            raise ValueError(f"it would end at {end}, and the file has {reader.size} bytes")
        self.file = _Edges(reader, start, end)
        self.entries, self.end = _entries(self.file)
        roots = [entry.removesuffix("data.pkl") for entry in self.entries if entry.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("it has no data.pkl")
        self.root = roots[0]
        self.storages: dict[str, _Storage] = {}
        #: the persistent ids that named storages, in order
        self.named: list[tuple[Any, ...]] = []
        if f"{self.root}byteorder" in self.entries and self.text("byteorder") != b"little":
            raise ValueError("its numbers are big endian; load and save it once on a machine of today")

    def text(self, name: str) -> bytes:
        """Return a small file."""
        offset, length = self.place(name)
        if length > MAX_PICKLE_BYTES:
            raise ValueError(f"{name} in it has {length} bytes")
        return self.file.read(offset, length)

    def place(self, name: str) -> tuple[int, int]:
        """Return where a file's bytes are, and how many."""
        entry = self.entries.get(self.root + name)
        if entry is None:
            raise ValueError(f"it has no {name}")
        magic, method, title, padding = _LOCAL.unpack(self.file.read(entry.header, 30))
        begin = entry.header + 30 + title + padding
        if magic != b"PK\x03\x04" or method or begin + entry.length > self.end[entry.name]:
            raise ValueError(f"{name} in it is not where its directory says")
        return begin, entry.length

    def storage(self, identity: Any) -> _Storage:
        """Return the storage that a persistent id of torch means."""
        if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
            raise ValueError("it names something that is no storage")
        _, kind, key, _, count = identity
        dtype = TYPE_OF.get(kind.name) if type(kind) is Global else None
        if dtype is None or type(key) is not str or type(count) is not int or not 0 <= count < 2**60:
            raise ValueError("it has a storage of a kind that is not known")
        known = self.storages.get(key)
        self.named.append(identity)
        if known is None:
            offset, length = self.place(f"data/{key}")
            known = self.storages[key] = _Storage(dtype, offset, length)
        if known.length != size_bytes(dtype, (count,)):
            raise ValueError(f"storage {key[:40]} has {known.length} bytes, and should have {count} {dtype}")
        return known if known.dtype == dtype else _Storage(dtype, known.offset, known.length)


class _Edges:
    """A file inside a reader, of which both ends are here already."""

    def __init__(self, reader: Reader, start: int, end: int) -> None:
        self.reader, self.start, self.end = reader, start, end
        self.after = min(end, start + EDGE_BYTES)
        self.before = max(start, end - EDGE_BYTES)
        self.head = reader.read(start, self.after - start)
        self.tail = reader.read(self.before, end - self.before)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes; raises ValueError if they are not all in the file."""
        if not self.start <= offset <= offset + length <= self.end:
            raise ValueError("it is cut off")
        if offset + length <= self.after:
            return self.head[offset - self.start : offset - self.start + length]
        if offset >= self.before:
            return self.tail[offset - self.before : offset - self.before + length]
        return self.reader.read(offset, length)


def _entries(file: _Edges) -> tuple[dict[str, _Entry], dict[str, int]]:
    """Return the entries of a zip by name, and where the bytes of each must have ended."""
    end = file.end - 22
    magic, count, size, at, comment = _END.unpack(file.read(end, 22))
    if magic != b"PK\x05\x06" or comment:
        if file.head.startswith(_LEGACY):
            raise ValueError("it is older than torch 1.6; load and save it with torch once")
        raise ValueError("it does not end as a zip does")
    if end - 76 >= file.start and file.read(end - 20, 4) == b"PK\x06\x07":
        end -= 76
        magic, count, size, at = _END64.unpack(file.read(end, 56))
        if magic != b"PK\x06\x06":
            raise ValueError("its end is not where it says")
    if size > _MAX_DIRECTORY_BYTES or count * 46 > size or file.start + at + size != end:
        raise ValueError("its directory is not where it says")
    found = _directory(file.read(file.start + at, size), count, file.start)
    entries = {entry.name: entry for entry in found}
    if len(entries) != count:
        raise ValueError("its directory names something twice")
    found.sort(key=lambda entry: entry.header)
    limits = {one.name: after.header for one, after in pairwise(found)}
    if found:
        limits[found[-1].name] = file.start + at
    return entries, limits


def _directory(text: bytes, count: int, start: int) -> list[_Entry]:
    """Return the entries of a zip's directory; positions count from ``start``."""
    found, position = [], 0
    for _ in range(count):
        if position + 46 > len(text):
            raise ValueError("its directory is damaged")
        magic, flags, method, packed, length, title, extra, comment, header = _ENTRY.unpack_from(text, position)
        if magic != b"PK\x01\x02":
            raise ValueError("its directory is damaged")
        if method or flags & 1:
            raise ValueError("it is compressed or encrypted, and torch writes neither")
        begin = position + 46 + title
        if _WIDE in {packed, length, header}:
            length, packed, header = _widened((length, packed, header), text[begin : begin + extra])
        if packed != length:
            raise ValueError("its directory is damaged")
        found.append(_Entry(text[position + 46 : begin].decode("utf-8"), start + header, length))
        position = begin + extra + comment
    if position != len(text):
        raise ValueError("its directory is damaged")
    return found


def _widened(values: Sequence[int], extra: bytes) -> tuple[int, ...]:
    """Return sizes with those that 32 bits cannot hold taken from the extra field of zip64."""
    wide = b""
    while len(extra) >= 4:
        length = int.from_bytes(extra[2:4], "little")
        if extra[:2] == b"\x01\0":
            wide = extra[4 : 4 + length]
        extra = extra[4 + length :]
    found = []
    for value in values:
        if value == _WIDE:
            if len(wide) < 8:
                raise ValueError("its directory is damaged")
            found.append(int.from_bytes(wide[:8], "little"))
            wide = wide[8:]
        else:
            found.append(value)
    return (*found,)


# --- what a state dict is made of


def _tensor(
    reader: Reader, storage: Any, offset: Any, size: Any, stride: Any, *_: Any, dtype: str | None = None
) -> TorchTensor:
    """Return a view of a storage, all of which lies within it."""
    if type(storage) is not _Storage or type(offset) is not int or offset < 0:
        raise ValueError("it has a tensor without a storage")
    shape, steps = naturals(size), naturals(stride)
    if len(shape) != len(steps):
        raise ValueError("it has a tensor of a shape and strides that do not go together")
    dtype = dtype or storage.dtype
    item = size_bytes(dtype, (1,))
    length = size_bytes(dtype, shape)
    reach = sum((count - 1) * step for count, step in zip(shape, steps, strict=True)) + 1 if length else 0
    if (offset + reach) * item > storage.length:
        raise ValueError(f"it has a tensor of shape {[*shape]} that is larger than its storage")
    place = storage.offset + offset * item
    return TorchTensor(dtype=dtype, shape=shape, stride=steps, reader=reader, offset=place, length=length)


def _tensor_of_type(reader: Reader, *arguments: Any) -> TorchTensor:
    if len(arguments) < 7:
        raise ValueError("it has a tensor without a type")
    return _tensor(reader, *arguments[:4], dtype=dtype_of(arguments[6]))


def _parameter(data: Any, *_: Any) -> TorchTensor:
    if type(data) is not TorchTensor:
        raise ValueError("it has a parameter without a tensor")
    return data


def _tensors(reader: Reader) -> Allowed:
    plain = partial(_tensor, reader)
    typed = partial(_tensor_of_type, reader)
    makers = {"_rebuild_tensor": plain, "_rebuild_tensor_v2": plain, "_rebuild_tensor_v3": typed}
    return {f"torch._utils.{name}": make for name, make in makers.items()}


def _ordered(*arguments: Any) -> dict[Any, Any]:
    if arguments:
        raise ValueError("it has an OrderedDict made of something")
    return {}


def _attributed(made: Any, _: Any, arguments: Any, __: Any) -> TorchTensor:
    """Return a tensor that had attributes of its own, without them."""
    if type(made) is not Global or made.make is None or type(arguments) is not tuple:
        raise ValueError("it has a tensor that nothing is known of")
    # the functions that make tensors call nothing further, so this goes one step deep
    tensor = made.make(*arguments) if made.name.startswith("torch._utils._rebuild_") else None
    return _parameter(tensor)


def _size(value: Any = ()) -> tuple[int, ...]:
    return naturals((*value,) if type(value) is list and len(value) <= _MAX_DIMENSIONS else value)


#: What state dicts are made of besides tensors.
STATE: Allowed = {
    **dict.fromkeys(TYPE_OF),
    "torch.Size": _size,
    "torch.serialization._get_layout": lambda layout: layout,
    "torch.device": lambda *device: device[0],
    "collections.OrderedDict": _ordered,
    # what bytes are in pickles of protocol 2; the text itself, for a copy could be asked for many times
    "_codecs.encode": lambda text, _: text,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _attributed,
    "torch.nn.parameter.Parameter": None,
    "torch._tensor.Tensor": None,
    "torch.Tensor": None,
}
