"""Headers of safetensors files: ours and the library's agree on what is one, and what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.errors import UsageError
from cloudtune.weights.files import safetensors
from cloudtune.weights.files.safetensors import BITS, Header, make_header, parse_header, read_header, size_bytes

library = pytest.importorskip("safetensors")
numpy = pytest.importorskip("numpy")

#: The smallest number of elements of a type that fills whole bytes.
STEP = {"F4": 2, "F6_E2M3": 4, "F6_E3M2": 4}
#: How the library calls the types that it names otherwise when it writes.
WRITTEN_AS = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "C64": "complex64",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F4": "float4_e2m1fn_x2",
}  # fmt: skip
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")
METADATA = st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=3)


@st.composite
def shapes(draw: st.DrawFn, dtype: str) -> tuple[int, ...]:
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    step = STEP.get(dtype, 1)
    return (*shape, step * draw(st.integers(0, 3))) if step > 1 else tuple(shape)


@st.composite
def tensors(draw: st.DrawFn, dtypes: Sequence[str] = tuple(BITS)) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Draw tensors by name: type, shape and bytes."""
    found = {}
    for name in draw(st.lists(NAMES, unique=True, max_size=6)):
        dtype = draw(st.sampled_from(dtypes))
        shape = draw(shapes(dtype))
        length = size_bytes(dtype, shape)
        found[name] = (dtype, shape, draw(st.binary(min_size=length, max_size=length)))
    return found


def parsed(data: bytes) -> Header:
    return read_header(lambda offset, length: data[offset : offset + length], len(data), "x.safetensors")


def contents(data: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    found = parsed(data).tensors
    return {name: (it.dtype, it.shape, data[it.offset : it.offset + it.length]) for name, it in found.items()}


def file_of(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(**changes: object) -> dict[str, object]:
    return {"dtype": "U8", "shape": [1], "data_offsets": [0, 1], **changes}


# --- with the library


@settings(deadline=None, max_examples=60)
@given(tensors(tuple(WRITTEN_AS)), METADATA)
def test_what_the_library_writes_is_read(given_tensors, metadata):
    specs, kept = {}, []
    for name, (dtype, shape, data) in given_tensors.items():
        kept.append(numpy.frombuffer(data, numpy.uint8))
        specs[name] = library.TensorSpec(
            dtype=WRITTEN_AS[dtype], shape=halved(dtype, shape), data_ptr=kept[-1].ctypes.data, data_len=len(data)
        )
    data = bytes(library.serialize(specs, metadata=metadata or None))
    assert contents(data) == given_tensors
    assert parsed(data).metadata == metadata


def halved(dtype: str, shape: tuple[int, ...]) -> list[int]:
    """Return a shape as the library wants it: of two 4-bit numbers in a byte it counts the bytes."""
    return [*shape[:-1], shape[-1] // 2] if dtype == "F4" else list(shape)


@settings(deadline=None, max_examples=60)
@given(tensors(), METADATA)
def test_what_is_written_the_library_reads(given_tensors, metadata):
    header, said = make_header([(name, dtype, shape) for name, (dtype, shape, _) in given_tensors.items()], metadata)
    data = header + b"".join(data for _, _, data in given_tensors.values())
    read = {name: (it["dtype"], tuple(it["shape"]), bytes(it["data"])) for name, it in library.deserialize(data)}
    assert read == given_tensors
    assert contents(data) == given_tensors
    assert list(said.tensors) == [it.name for it in sorted(said.tensors.values(), key=lambda it: it.offset)]
    assert len(header) % 8 == 0
    assert parsed(data) == said


def test_metadata_is_what_the_library_finds(tmp_path):
    header, _ = make_header([("a", "F32", ())], {"format": "pt", "ü": "😀\0\n"})
    (tmp_path / "x.safetensors").write_bytes(header + bytes(4))
    with library.safe_open(tmp_path / "x.safetensors", framework="np") as opened:
        assert opened.metadata() == {"format": "pt", "ü": "😀\0\n"}
        assert opened.get_tensor("a").shape == ()


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_what_is_accepted_the_library_accepts_with_the_same_meaning(data):
    """Any header, made of right and wrong parts: nothing that the library refuses gets through."""
    numbers = st.one_of(st.integers(0, 3), st.sampled_from([-1, 2**62, 2**63 - 1, 2**63, 2**64, 1.0, True, None, "1"]))
    lists = st.one_of(st.lists(numbers, max_size=3), numbers, st.just([1] * 65))
    words = st.one_of(st.sampled_from([*BITS, "u8", "I4", "", "\ud83d\ude00"]), numbers)
    one = st.fixed_dictionaries(
        {}, optional={"dtype": words, "shape": lists, "data_offsets": lists, "strides": lists}
    ) | st.just(entry())
    entries = st.dictionaries(st.sampled_from(["a", "b", "", "__metadata__"]), one | lists, max_size=3)
    text = json.dumps(data.draw(entries)).encode()
    text = (
        data.draw(st.sampled_from([b"", b" ", b"\n"])) + text + data.draw(st.sampled_from([b"", b"  ", b"{}", b"\0"]))
    )
    whole = file_of(text, bytes(data.draw(st.integers(0, 4))))
    try:
        found = contents(whole)
    except UsageError:
        return
    assert found == {
        it[0]: (it[1]["dtype"], tuple(it[1]["shape"]), bytes(it[1]["data"])) for it in library.deserialize(whole)
    }


# --- strictness


GOOD = file_of({"a": entry(), "b": entry(shape=[2, 1], data_offsets=[1, 3])}, b"xyz")


def test_every_shorter_or_longer_file_is_refused():
    for length in range(len(GOOD)):
        with pytest.raises(UsageError, match="no whole safetensors file"):
            parsed(GOOD[:length])
    with pytest.raises(UsageError, match="the file has"):
        parsed(GOOD + b"x")
    assert contents(GOOD) == {"a": ("U8", (1,), b"x"), "b": ("U8", (2, 1), b"yz")}


def test_every_other_length_of_the_header_is_refused():
    length = int.from_bytes(GOOD[:8], "little")
    for other in {*range(length + 20), 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1} - {length}:
        with pytest.raises(UsageError):
            parsed(other.to_bytes(8, "little") + GOOD[8:])


def test_a_header_is_not_read_before_its_length_is_known_to_be_right():
    asked = []

    def read(offset: int, length: int) -> bytes:
        asked.append(length)
        return (2**40).to_bytes(8, "little")

    with pytest.raises(UsageError, match="are read at the most"):
        read_header(read, 2**41, "huge")
    assert asked == [8]


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"a": entry(data_offsets=[0, 1]), "b": entry(data_offsets=[0, 1])}, b"x"),
        ({"a": entry(shape=[2], data_offsets=[0, 2]), "b": entry(data_offsets=[1, 2])}, b"xy"),
        ({"a": entry(), "b": entry(data_offsets=[2, 3])}, b"xyz"),
        ({"a": entry(data_offsets=[1, 2])}, b"xy"),
        ({"a": entry(data_offsets=[1, 0])}, b"x"),
        ({"a": entry(data_offsets=[-1, 0])}, b""),
        ({"a": entry(data_offsets=[0, 1, 1])}, b"x"),
        ({"a": entry(data_offsets=[0])}, b"x"),
        ({"a": entry(data_offsets=[0, 2**63])}, b"x"),
        ({"a": entry(data_offsets=[0.0, 1.0])}, b"x"),
        ({"a": entry(data_offsets=[False, True])}, b"x"),
        ({"a": entry(shape=[True])}, b"x"),
        ({"a": entry(shape=[1.0])}, b"x"),
        ({"a": entry(shape=[-1, -1])}, b"x"),
        ({"a": entry(shape=["1"])}, b"x"),
        ({"a": entry(shape=[None])}, b"x"),
        ({"a": entry(shape={})}, b"x"),
        ({"a": entry(shape=None)}, b"x"),
        ({"a": entry(shape=1)}, b"x"),
        ({"a": entry(shape=[2**63])}, b"x"),
        ({"a": entry(shape=[2**63, 0], data_offsets=[0, 0])}, b""),
        ({"a": entry(shape=[2**62, 2**62, 0], data_offsets=[0, 0])}, b""),
        ({"a": entry(shape=[2**62, 2**62], data_offsets=[0, 1])}, b"x"),
        ({"a": entry(shape=[2**63 - 1] * 64)}, b"x"),
        ({"a": entry(shape=[1] * 65)}, b"x"),
        ({"a": entry(shape=[10**400])}, b"x"),
        ({"a": entry(dtype="U9")}, b"x"),
        ({"a": entry(dtype="u8")}, b"x"),
        ({"a": entry(dtype=None)}, b"x"),
        ({"a": entry(dtype="}")}, b"x"),
        ({"a": entry(dtype="F4")}, b"x"),
        ({"a": entry(dtype="F6_E2M3")}, b"x"),
        ({"a": entry(strides=[1])}, b"x"),
        ({"a": {"dtype": "U8", "shape": [1]}}, b"x"),
        ({"a": {}}, b""),
        ({"a": [entry()]}, b"x"),
        ({"a": ["U8", [1], [0, 1]]}, b"x"),
        ({"a": None}, b""),
        ({"__metadata__": {"a": 1}}, b""),
        ({"__metadata__": {"a": None}}, b""),
        ({"__metadata__": {"a": {}}}, b""),
        ({"__metadata__": []}, b""),
        ({"__metadata__": 0}, b""),
        ({"__metadata__": ""}, b""),
        ({"__metadata__": False}, b""),
        ([], b""),
        (None, b""),
        ("a", b""),
        (b"", b""),
        (b"{", b""),
        (b"{,}", b""),
        (b'{"a"}', b""),
        (b'{"a":}', b""),
        (b"{} {}", b""),
        (b"{}\0", b""),
        (b"\xef\xbb\xbf{}", b""),
        (b"\xff{}", b""),
        (b"{'a':1}", b""),
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},}', b"x"),
        (b'{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}', b""),
        (b'{"a":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}', b"x"),
        (b'{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}', b"x"),
        (b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', b"x"),
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}/**/}', b"x"),
        (b'{"a\nb":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
        (b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
        (b'{"__metadata__":{"a":"\\udc00"}}', b""),
        (b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
        (b'{"__metadata__":{"a":"1","a":"1"}}', b""),
        (b'{"__metadata__":{},"__metadata__":{}}', b""),
        (b'{"a":{"dtype":"U8","shape":' + b"[" * 3000 + b"]" * 3000 + b"}}", b""),
        (b"[" * 10**6, b""),
        (b'{"a":' * 10**5, b""),
        (b'{"a":{' + b" " * 5000 + b'"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
    ],
)
def test_what_contradicts_itself_is_refused(header, body):
    with pytest.raises(UsageError, match=r"^x\.safetensors is no whole safetensors file: .*\n  hint: ") as raised:
        parsed(file_of(header, body))
    assert len(str(raised.value)) < 1000


def test_a_name_twice_is_refused_although_the_library_takes_the_last():
    text = b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}}'
    assert len(library.deserialize(file_of(text))) == 1
    with pytest.raises(UsageError, match="names a twice"):
        parsed(file_of(text))


def test_a_name_cannot_write_on_the_terminal():
    with pytest.raises(UsageError) as raised:
        parsed(file_of({"\x1b[2J" + "a" * 10**5: entry(shape=[2])}, b"x"))
    assert "\x1b" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_white_space_and_no_metadata_are_fine():
    assert parsed(file_of(b' \t\r\n{ "__metadata__" : null , "a" : %b }  ' % json.dumps(entry()).encode(), b"x"))
    assert parsed(file_of({})).tensors == {}
    assert parsed(file_of({"__metadata__": {}})).metadata == {}


def test_empty_tensors_lie_anywhere():
    empty = {"shape": [0, 2**40], "dtype": "F64"}
    header = {"b": entry(), "a": entry(data_offsets=[0, 0], **empty), "c": entry(data_offsets=[1, 1], **empty)}
    assert list(parsed(file_of(header, b"x")).tensors) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "tensors_",
    [
        [("a", "U8", (1,)), ("a", "U8", (0,))],
        [("__metadata__", "U8", (1,))],
        [("a", "FLOAT", (1,))],
        [("a", "F4", (3,))],
        [("a", "U8", (-1,))],
        [("a", "U8", (2**63,))],
        [("a", "U8", (1,) * 65)],
        [("\ud800", "U8", (1,))],
        [("a" * (safetensors.MAX_HEADER_BYTES + 1), "U8", (1,))],
    ],
)
def test_what_nobody_could_read_is_not_written(tensors_):
    with pytest.raises(ValueError, match=r".") as raised:
        make_header(tensors_)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("metadata", [{"a": 1}, {"a": None}, {"a": {}}, {"a": "\ud800"}])
def test_metadata_is_text(metadata):
    with pytest.raises(ValueError, match=r"."):
        make_header([], metadata)


def test_a_header_of_many_tensors_is_read():
    header, said = make_header([(f"layers.{number}.weight", "BF16", (number % 7, 3)) for number in range(20_000)])
    assert parse_header(header[8:], len(header) + sum(tensor.length for tensor in said.tensors.values())) == said
