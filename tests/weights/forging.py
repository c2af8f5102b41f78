"""Files of torch made without torch: as it makes them, or as somebody hostile would."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cloudtune.weights.files.safetensors import BITS

STORAGES = {"F32": "FloatStorage", "BF16": "BFloat16Storage", "F16": "HalfStorage", "I64": "LongStorage"}
STORAGES |= {"U8": "ByteStorage", "BOOL": "BoolStorage", "F64": "DoubleStorage", "I32": "IntStorage"}
TYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "I64": "int64", "U8": "uint8", "BOOL": "bool"}
TYPES |= {"F64": "float64", "I32": "int32"}
DCP = "torch.distributed.checkpoint"


class Name:
    """Something that a pickle mentions by name."""

    def __init__(self, full: str) -> None:
        self.full = full


@cache
def name_of(full: str) -> Name:
    """Return the same value for a name each time, so that a pickle writes it once."""
    return Name(full)


class Call:
    """Something that a pickle calls."""

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name, self.arguments = name_of(name), arguments

    def __reduce__(self) -> Any:
        return self.name, self.arguments


class Thing:
    """An object of a class, with attributes."""

    def __init__(self, name: str, **attributes: Any) -> None:
        self.name, self.attributes = name_of(name), attributes

    def __reduce__(self) -> Any:
        return self.name, (), self.attributes


class Storage:
    """Bytes that tensors are views of."""

    def __init__(self, dtype: str, data: bytes, count: int | None = None) -> None:
        self.dtype, self.data = dtype, data
        self.count = len(data) * 8 // BITS[dtype] if count is None else count


class Forge(pickle._Pickler):
    """Pickles names without asking whether they are there."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.storages: list[Storage] = []

    def save_name(self, obj: Name) -> None:
        module, _, name = obj.full.rpartition(".")
        self.write(pickle.GLOBAL + module.encode() + b"\n" + name.encode() + b"\n")
        self.memoize(obj)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, Name: save_name}

    def save_reduce(self, func: Any, args: Any, *rest: Any, **named: Any) -> None:
        if not isinstance(func, Name):
            super().save_reduce(func, args, *rest, **named)
            return
        state, obj = (rest or (None,))[0], named.get("obj")
        self.save(func)
        self.save(args)
        self.write(pickle.NEWOBJ if isinstance(obj, Thing) else pickle.REDUCE)
        if obj is not None:
            self.memoize(obj)
        if state is not None:
            self.save(state)
            self.write(pickle.BUILD)

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        if obj not in self.storages:
            self.storages.append(obj)
        kind = Name(f"torch.{STORAGES[obj.dtype]}")
        return ("storage", kind, str(self.storages.index(obj)), "cpu", obj.count)


def dumps(value: Any, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    Forge(file, protocol).dump(value)
    return file.getvalue()


def size(*lengths: int) -> Call:
    return Call("torch.Size", tuple(lengths))


def tensor(storage: Storage, shape: Sequence[int], offset: int = 0, stride: Sequence[int] | None = None) -> Call:
    if stride is None:
        stride = [int(np.prod(shape[place + 1 :])) for place in range(len(shape))]
    hooks = Call("collections.OrderedDict")
    return Call("torch._utils._rebuild_tensor_v2", storage, offset, tuple(shape), tuple(stride), False, hooks)


def torch_file(value: Any, *, method: int = zipfile.ZIP_STORED, order: str = "little", root: str = "archive") -> bytes:
    """Return what torch.save would write."""
    text = io.BytesIO()
    forge = Forge(text, 2)
    forge.dump(value)
    return zipped(text.getvalue(), [one.data for one in forge.storages], method=method, order=order, root=root)


def zipped(
    data: bytes,
    storages: Sequence[bytes] = (),
    *,
    method: int = zipfile.ZIP_STORED,
    order: str = "little",
    root: str = "archive",
) -> bytes:
    """Return the zip of torch.save around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(f"{root}/data.pkl", data)
        archive.writestr(f"{root}/byteorder", order)
        for number, one in enumerate(storages):
            archive.writestr(f"{root}/data/{number}", one)
        archive.writestr(f"{root}/version", "3\n")
    return file.getvalue()


Box = tuple[tuple[int, ...], tuple[int, ...]]


def halves(shape: tuple[int, ...], ranks: int, dim: int = 0) -> list[Box]:
    """Return the boxes that ranks get of a tensor, as DTensor cuts it; those behind the end get nothing."""
    rows = -(-shape[dim] // ranks)
    boxes = []
    for rank in range(ranks):
        begin, end = min(rank * rows, shape[dim]), min((rank + 1) * rows, shape[dim])
        offsets = tuple(begin if place == dim else 0 for place in range(len(shape)))
        boxes.append((offsets, tuple(end - begin if place == dim else n for place, n in enumerate(shape))))
    return boxes


class Saved:
    """A tensor to be saved: stored elements, their type, and the box of each rank."""

    def __init__(self, elements: np.ndarray, dtype: str, boxes: Sequence[Box], path: tuple[str, ...] = ()) -> None:
        self.elements, self.dtype, self.boxes, self.path = elements, dtype, boxes, path


def save(folder: Path, tensors: Mapping[str, Saved], *, others: Mapping[str, bytes] | None = None) -> None:
    """Write a distributed checkpoint; the part of rank N goes to file N."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, io.BytesIO] = {}
    kinds: dict[str, Any] = OrderedDict()
    places: dict[Any, Any] = {}
    for name, saved in tensors.items():
        kinds[name] = _kind(saved)
        for rank, (offsets, sizes) in enumerate(saved.boxes):
            part = saved.elements[tuple(slice(at, at + n) for at, n in zip(offsets, sizes, strict=True))]
            text = torch_file(tensor(Storage(saved.dtype, part.tobytes()), sizes))
            places[_index(name, offsets)] = _put(files, f"__{rank}_0.distcp", text)
    for name, data in (others or {}).items():
        kinds[name] = Thing(f"{DCP}.metadata.BytesStorageMetadata")
        places[_index(name, None)] = _put(files, "__0_0.distcp", data)
    for name, file in files.items():
        (folder / name).write_bytes(file.getvalue())
    (folder / ".metadata").write_bytes(dumps(metadata(kinds, places, dict(_paths(tensors))), 4))


def metadata(kinds: Mapping[str, Any], places: Mapping[Any, Any], paths: Mapping[str, Any]) -> Thing:
    return Thing(
        f"{DCP}.metadata.Metadata",
        state_dict_metadata=dict(kinds),
        planner_data=paths,
        storage_data=places,
        storage_meta=Thing(
            f"{DCP}.metadata.StorageMeta", checkpoint_id=Call("pathlib.PosixPath", "/", "a"), modules=[]
        ),
        version="1.0.0",
    )


def _paths(tensors: Mapping[str, Saved]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, saved in tensors.items():
        if saved.path:
            yield name, saved.path


def _put(files: dict[str, io.BytesIO], name: str, text: bytes) -> Thing:
    file = files.setdefault(name, io.BytesIO())
    at = file.tell()
    file.write(text)
    return Thing(f"{DCP}.filesystem._StorageInfo", relative_path=name, offset=at, length=len(text))


def _kind(saved: Saved) -> Thing:
    state = (
        Name(f"torch.{TYPES[saved.dtype]}"),
        Call("torch.serialization._get_layout", "torch.strided"),
        False,
        Call(f"{DCP}.metadata._MEM_FORMAT_ENCODING", 0),
        False,
    )
    chunks = [
        Thing(f"{DCP}.metadata.ChunkStorageMetadata", offsets=size(*offsets), sizes=size(*sizes))
        for offsets, sizes in saved.boxes
    ]
    properties = Thing(f"{DCP}.metadata.TensorProperties")
    properties.attributes = state
    return Thing(
        f"{DCP}.metadata.TensorStorageMetadata", properties=properties, size=size(*saved.elements.shape), chunks=chunks
    )


def _index(name: str, offsets: tuple[int, ...] | None) -> Thing:
    attributes = {"fqn": name, "index": 0, **({} if offsets is None else {"offset": size(*offsets)})}
    return Thing(f"{DCP}.metadata.MetadataIndex", **attributes)
