"""Files of torch.save are read without torch, or refused with a reason."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from cloudtune.errors import UsageError
from cloudtune.ranges import Reader
from cloudtune.weights.files.torchfiles import TorchTensor, dtype_of, read_torch
from tests.weights.forging import Call, Name, Storage, dumps, size, tensor, torch_file, zipped


def read(folder: Path, data: bytes, **options):
    path = folder / "file.pt"
    path.write_bytes(data)
    with Reader(str(path)) as reader:
        return read_torch(reader, **options)


def bytes_of(tensor: TorchTensor, data: bytes) -> bytes:
    return data[tensor.offset : tensor.offset + tensor.length]


def refused(folder: Path, data: bytes, **options) -> str:
    with pytest.raises(UsageError) as told:
        read(folder, data, **options)
    assert str(folder / "file.pt") in told.value.message
    return told.value.message


def test_a_state_dict_is_read(tmp_path):
    shared = Storage("F32", bytes(range(48)))
    data = torch_file(
        {
            "whole": tensor(shared, (3, 4)),
            "rows": tensor(shared, (2, 4), offset=4),
            "scalar": tensor(Storage("BF16", b"ab"), ()),
            "empty": tensor(Storage("I64", b""), (0, 3)),
            "parameter": Call("torch._utils._rebuild_parameter", tensor(shared, (12,)), True, None),
            "dtype": Name("torch.bfloat16"),
            "size": size(2, 3),
            "nested": Call("collections.OrderedDict"),
            "plain": [1, 2.5, "x", True, None, -7, 2**40],
        }
    )
    found = read(tmp_path, data)
    assert found["plain"] == [1, 2.5, "x", True, None, -7, 2**40]
    assert found["size"] == (2, 3)
    assert dtype_of(found["dtype"]) == "BF16"
    assert found["nested"] == {}
    assert bytes_of(found["whole"], data) == bytes(range(48))
    assert bytes_of(found["rows"], data) == bytes(range(16, 48))
    assert (found["rows"].dtype, found["rows"].shape, found["rows"].contiguous) == ("F32", (2, 4), True)
    assert (found["scalar"].dtype, found["scalar"].shape, bytes_of(found["scalar"], data)) == ("BF16", (), b"ab")
    assert (found["empty"].length, found["empty"].shape) == (0, (0, 3))
    assert found["parameter"].shape == (12,)


def test_a_file_inside_another_one_is_read(tmp_path):
    inner = torch_file({"a": tensor(Storage("F32", b"abcdefgh"), (2,))})
    outer = b"#" * 1000 + inner + b"#" * 50
    found = read(tmp_path, outer, offset=1000, length=len(inner))["a"]
    assert bytes_of(found, outer) == b"abcdefgh"


def test_a_large_file_is_read_beyond_its_edges(tmp_path):
    storages = [Storage("U8", bytes([number]) * 700) for number in range(40)]
    data = torch_file({f"name {number}": tensor(one, (7, 100)) for number, one in enumerate(storages)})
    found = read(tmp_path, data)
    assert {bytes_of(one, data) for one in found.values()} == {one.data for one in storages}


@pytest.mark.parametrize(
    ("shape", "stride", "contiguous"),
    [((3, 4), (1, 3), False), ((1, 12), (99, 1), True), ((3, 1, 4), (4, 9, 1), True), ((2, 5), (6, 1), False)],
)
def test_only_what_lies_side_by_side_is_contiguous(tmp_path, shape, stride, contiguous):
    found = read(tmp_path, torch_file([tensor(Storage("F32", bytes(400)), shape, stride=stride)]))[0]
    assert found.contiguous is contiguous
    if contiguous:
        assert found.span().length == found.length
    else:
        with pytest.raises(ValueError, match="not contiguous"):
            found.span()


def test_a_repeated_element_takes_no_memory(tmp_path):
    found = read(tmp_path, torch_file([tensor(Storage("F32", b"abcd"), (2**40, 2**15), stride=(0, 0))]))[0]
    with pytest.raises(ValueError, match="not contiguous"):
        found.span()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (tensor(Storage("F32", bytes(48)), (3, 5)), "larger than its storage"),
        (tensor(Storage("F32", bytes(48)), (3, 4), offset=1), "larger than its storage"),
        (tensor(Storage("F32", bytes(48)), (3, 4), stride=(8, 1)), "larger than its storage"),
        (tensor(Storage("F32", bytes(48), count=13), (3, 4)), "should have 13 F32"),
        (tensor(Storage("F32", bytes(48), count=-1), (3, 4)), "a kind that is not known"),
        (tensor(Storage("F32", bytes(48)), (-3, 4)), "shape that no tensor has"),
        (tensor(Storage("F32", bytes(48)), (3, 4), stride=(4,)), "do not go together"),
        (tensor(Storage("F32", bytes(48)), (2**62, 2**62)), "more bytes than there can be"),
        (tensor(Storage("F32", bytes(48)), (1,) * 70), "shape that no tensor has"),
        (Call("torch._utils._rebuild_tensor_v2", "no storage", 0, (1,), (1,), False, None), "without a storage"),
        (Call("torch._utils._rebuild_tensor_v2"), "arguments that are not its own"),
        (Call("torch._utils._rebuild_parameter", 7), "parameter without a tensor"),
        (Call("torch._utils._rebuild_sparse_tensor", 7), "asks for torch._utils._rebuild_sparse_tensor"),
        (Call("torch.Size", (1, "2")), "shape that no tensor has"),
        (Call("torch.float32"), "calls torch.float32"),
    ],
)
def test_impossible_tensors_are_refused(tmp_path, value, reason):
    assert reason in refused(tmp_path, torch_file([value]))


def test_other_kinds_of_files_are_refused(tmp_path):
    whole = torch_file({"a": tensor(Storage("F32", bytes(4)), (1,))})
    assert "compressed" in refused(tmp_path, torch_file({"a": 1}, method=zipfile.ZIP_DEFLATED))
    assert "big endian" in refused(tmp_path, torch_file({"a": 1}, order="big"))
    assert "older than torch 1.6" in refused(tmp_path, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(100))
    assert "does not end as a zip does" in refused(tmp_path, b"x" * 1000)
    assert "cut off" in refused(tmp_path, b"x")
    assert "has no data.pkl" in refused(tmp_path, whole.replace(b"data.pkl", b"data.pkg"))
    assert "names something twice" in refused(tmp_path, twice())
    assert "has no data/0" in refused(tmp_path, zipped(whole_pickle()))
    assert "damaged" in refused(tmp_path, zipped(b"\x80\x02\xff\xff"))


def test_places_that_a_zip_does_not_have_are_refused(tmp_path):
    data = torch_file({"a": tensor(Storage("F32", b"abcd"), (1,))})
    assert "would end at" in refused(tmp_path, data, offset=10, length=len(data))
    assert "would end at" in refused(tmp_path, data, offset=-10, length=10)
    directory = data.index(b"PK\x01\x02")
    for at, value in ((42, 5), (42, 2**31), (24, 2**31), (20, 3), (28, 60000)):
        wrong = bytearray(data)
        wrong[directory + at : directory + at + (2 if at == 28 else 4)] = struct.pack("<H" if at == 28 else "<I", value)
        refused(tmp_path, bytes(wrong))


def test_every_cut_is_refused(tmp_path):
    data = torch_file({"a": tensor(Storage("F32", b"abcd"), (1,))})
    for length in range(0, len(data), 7):
        refused(tmp_path, data[:length])
        refused(tmp_path, data[length + 1 :])


def test_rows_of_the_caller_are_added(tmp_path):
    data = torch_file([Call("torch_xla.utils.serialization.TensorReference", 7)])
    assert "asks for torch_xla" in refused(tmp_path, data)
    extra = {"torch_xla.utils.serialization.TensorReference": lambda number: ("reference", number)}
    assert read(tmp_path, data, extra=extra) == [("reference", 7)]


def whole_pickle() -> bytes:
    return dumps({"a": tensor(Storage("F32", bytes(4)), (1,))})


def twice() -> bytes:
    data = bytearray(zipped(b"\x80\x02N.", [b"a", b"b"]))
    at = data.rindex(b"archive/data/1")
    data[at : at + 14] = b"archive/data/0"
    return bytes(data)


def test_what_a_pickle_means_is_known_the_second_time(tmp_path):
    def file(data: bytes, *, before: bytes = b"") -> bytes:
        return before + torch_file(tensor(Storage("F32", data), (1, 2), offset=1))

    known: dict = {}
    for number in range(3):
        data = file(bytes([number]) * 12, before=b"#" * number)
        found = read(tmp_path, data, offset=number, length=len(data) - number, known=known)
        assert bytes_of(found, data) == bytes([number]) * 8
        assert (found.shape, found.dtype, found.stride) == ((1, 2), "F32", (2, 1))
    assert len(known) == 1
    # the same pickle, and a storage that is not what it says
    assert "should have 3 F32" in refused(tmp_path, zipped(next(iter(known)), [bytes(8)]), known=known)
    assert "has no data/0" in refused(tmp_path, zipped(next(iter(known))), known=known)
    read(tmp_path, torch_file({"a": tensor(Storage("F32", bytes(8)), (2,))}), known=known)
    assert len(known) == 1
