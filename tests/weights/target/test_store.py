"""Targets in object stores: s3fs against a bucket on loopback, and fsspec's memory."""

from __future__ import annotations

import gc
import hashlib
import json
import random
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from cloudtune import ranges
from cloudtune.errors import NotAllowed, ServiceError, UsageError
from cloudtune.ranges import Reader
from cloudtune.uri import join
from cloudtune.weights.files.assembly import Made, Output, Span
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.files.model import open_weights
from cloudtune.weights.target import open_target
from cloudtune.weights.target.writing import LAST, UPLOADS
from tests.object_store import ObjectStore, Request
from tests.weights.making import shard_bytes

s3fs = pytest.importorskip("s3fs")

KEY, OTHER = "0123456789abcdef", "f" * 16
MARKER, MARKER_OF_OTHER = (f".cloudtune-{key}.part" for key in (KEY, OTHER))
MIB = 1 << 20


@pytest.fixture(scope="module")
def server():
    """Return a server of buckets that s3fs finds; no request is sent twice by the SDK itself."""
    store = ObjectStore()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": store.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield store
    s3fs.S3FileSystem.clear_instance_cache()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a session is closed when it is collected
        gc.collect()
    store.close()


@pytest.fixture
def store(server):
    """Return the server with nothing in it."""
    server.reset()
    return server


@pytest.fixture(params=["memory", "s3"])
def uri(request):
    """Return the URI of an empty place, in memory and in a bucket."""
    if request.param == "s3":
        request.getfixturevalue("store")
        return "s3://bucket/models/new"
    return f"memory://{uuid.uuid4().hex}/models/new"


def made(data: bytes, name: str = "model.safetensors") -> Output:
    return Output(name=name, pieces=(Made(length=len(data), blocks=lambda: in_blocks(data)),))


def in_blocks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), MIB):
        yield data[start : start + MIB]


def fails(error: BaseException, after: int = MIB, name: str = "b.safetensors") -> Output:
    def blocks() -> Iterator[bytes]:
        yield from in_blocks(bytes(after))
        raise error

    return Output(name=name, pieces=(Made(length=100 * MIB, blocks=blocks),))


def write_all(uri: str, key: str, *deeds: object) -> dict[str, str]:
    """Write a model by deeds: outputs, small files by name, errors to be raised."""
    with open_target(uri, key) as target:
        for deed in deeds:
            if isinstance(deed, Output):
                target.write([deed])
            elif isinstance(deed, tuple):
                target.put(*deed)
            elif isinstance(deed, BaseException):
                raise deed
        return target.checksums()


def there(uri: str) -> dict[str, bytes]:
    """Return the files at a URI."""
    found = {}
    for name, size in folder_at(uri).files.items():
        with Reader(join(uri, name)) as reader:
            found[name] = reader.read(0, size)
    return found


SMALL = (("config.json", b"{}"), ("tokenizer.json", b"[]"), ("cloudtune.json", b'{"whole": 1}'))


# --- as on this machine


def test_a_model_is_written_with_its_checksums(uri):
    sums = write_all(uri, KEY, made(b"abc", "a.safetensors"), Output(name="empty.safetensors", pieces=()), *SMALL)
    found = there(uri)
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in sorted(found.items())}
    assert found == {"a.safetensors": b"abc", "empty.safetensors": b"", **dict(SMALL)}


def test_nothing_makes_a_model_of_it_before_the_end(uri):
    with open_target(uri, KEY) as target:
        target.write([made(b"abc")])
        for name, data in SMALL:
            target.put(name, data)
        assert not there(uri).keys() & set(LAST)
        assert {"model.safetensors", MARKER} <= there(uri).keys()
    assert there(uri).keys() >= {"config.json", "cloudtune.json"}


def test_what_is_complete_is_not_written_again(uri):
    with pytest.raises(ZeroDivisionError):
        write_all(uri, KEY, made(b"one", "a.safetensors"), fails(ZeroDivisionError()))
    assert there(uri).keys() == {"a.safetensors", MARKER}
    unasked = Output(name="a.safetensors", pieces=(Made(length=3, blocks=lambda: 1 / 0),))  # type: ignore[arg-type,return-value]
    sums = write_all(uri, KEY, unasked, made(b"two", "b.safetensors"), *SMALL)
    assert there(uri) == {"a.safetensors": b"one", "b.safetensors": b"two", **dict(SMALL)}
    assert sums["a.safetensors"] == hashlib.sha256(b"one").hexdigest()


@pytest.mark.parametrize("name", [*LAST, "x.safetensors"])
def test_a_model_is_not_written_over_another(uri, name):
    fsspec.open(join(uri, name), "wb").open().close()
    with pytest.raises(UsageError, match="holds a model already"), open_target(uri, KEY):
        pass
    assert there(uri) == {name: b""}


def test_what_was_begun_of_another_model_is_not_mixed_with_this_one(uri):
    with pytest.raises(ZeroDivisionError):
        write_all(uri, OTHER, made(b"one", "a.safetensors"), ZeroDivisionError())
    with pytest.raises(UsageError, match="another model was begun") as raised, open_target(uri, KEY):
        pass
    assert MARKER_OF_OTHER in raised.value.hint
    assert there(uri).keys() == {"a.safetensors", MARKER_OF_OTHER}


def test_of_two_that_begin_at_once_none_writes_over_the_other(uri):
    with open_target(uri, OTHER) as other, open_target(uri, KEY) as target:
        other.write([made(b"one", "a.safetensors")])
        with pytest.raises(UsageError, match="another model was begun"):
            target.write([made(b"two", "a.safetensors")])
        assert there(uri) == {"a.safetensors": b"one", MARKER_OF_OTHER: there(uri)[MARKER_OF_OTHER]}
    assert there(uri) == {"a.safetensors": b"one"}


def test_other_files_stay_and_are_not_written_over(uri):
    for name, data in {"README.md": b"mine", "tokenizer.json": b"[]", "logs/node-0.log": b"log"}.items():
        with fsspec.open(join(uri, name), "wb") as file:
            file.write(data)
    for _ in range(2):  # and are still known to be others the second time
        with pytest.raises(UsageError, match=r"README\.md is there already"):
            write_all(uri, KEY, made(b"abc"), ("README.md", b"another"))
    write_all(uri, KEY, made(b"abc"), *SMALL)
    others = {"README.md": b"mine", "logs/node-0.log": b"log"}
    assert there(uri) == {"model.safetensors": b"abc", **others, **dict(SMALL)}


def test_what_is_in_the_way_of_any_file_is_told_before_the_first(uri):
    with fsspec.open(join(uri, "README.md"), "wb") as file:
        file.write(b"mine")
    with pytest.raises(UsageError, match=r"README\.md is there already"), open_target(uri, KEY) as target:
        target.expect(["model.safetensors", "README.md"])
    assert there(uri) == {"README.md": b"mine"}


def test_whoever_interrupts_is_told_how_it_goes_on(uri):
    with pytest.raises(KeyboardInterrupt, match=r"^the same command goes on where it stopped$"):
        write_all(uri, KEY, KeyboardInterrupt())
    with pytest.raises(
        KeyboardInterrupt, match=rf"where it stopped \({uri} holds what is done, and {MARKER} says so\)"
    ):
        write_all(uri, KEY, made(b"abc"), KeyboardInterrupt())
    write_all(uri, KEY, made(b"abc"))


def test_an_error_before_anything_is_written_leaves_nothing(uri):
    with pytest.raises(ZeroDivisionError):
        write_all(uri, KEY, ZeroDivisionError())
    assert there(uri) == {}


def test_a_source_that_is_cut_off_meanwhile_leaves_nothing_whole(uri, tmp_path):
    (tmp_path / "source").write_bytes(bytes(1000))
    with Reader(str(tmp_path / "source")) as reader:
        output = Output(name="a.safetensors", pieces=(Span(reader=reader, offset=0, length=1001),))
        with pytest.raises(ServiceError, match="shorter than it was"):
            write_all(uri, KEY, output)
    assert there(uri).keys() == {MARKER}


# --- as stores are


#: Two small parts and a little.
LONG = random.Random(1).randbytes(11 * MIB)


@pytest.fixture
def small_parts(monkeypatch):
    """Let parts be as small as a store admits."""
    monkeypatch.setattr(ranges, "PART_BYTES", 5 * MIB)


def test_large_files_are_sent_in_parts(store):
    data = LONG * 3
    write_all("s3://bucket/m", KEY, made(data), ("config.json", b"{}"))
    assert store.objects == {"bucket/m/model.safetensors": data, "bucket/m/config.json": b"{}"}
    parts = [request.length for request in store.requests if request.deed == "PART"]
    assert parts == [8 * MIB, 8 * MIB, 8 * MIB, 8 * MIB, MIB]
    assert store.uploads == {}


@pytest.mark.parametrize("deed", ["BEGIN", "PART", "COMPLETE"])
@pytest.mark.parametrize("fault", ["403 AccessDenied", "400 InvalidRequest", "cut", "cut reply"])
def test_an_upload_that_breaks_leaves_no_parts_and_is_continued(store, small_parts, deed, fault):
    seen = []

    def break_it(request: Request) -> str | None:
        if "/b.safetensors" in request.key and request.deed == deed and request.query.get("partNumber", "2") == "2":
            seen.append(request)
            return fault
        return None

    store.fault = break_it
    outputs = made(b"one", "a.safetensors"), made(LONG, "b.safetensors")
    with pytest.raises(NotAllowed if "403" in fault else ServiceError) as raised:
        write_all("s3://bucket/m", KEY, *outputs, *SMALL)
    assert "403" in fault or "goes on where it stopped" in raised.value.hint
    assert seen
    if (deed, fault) == ("BEGIN", "cut reply"):
        # nobody but the store knows of it
        assert [parts for _, parts in store.uploads.values()] == [{}]
    else:
        assert store.uploads == {}
    assert not {key.rpartition("/")[2] for key in store.objects} & {*LAST, "tokenizer.json"}
    store.fault = lambda request: None
    store.requests.clear()
    write_all("s3://bucket/m", KEY, *outputs, *SMALL)
    assert {key.rpartition("/")[2] for key in store.objects} == {"a.safetensors", "b.safetensors", *dict(SMALL)}
    assert store.objects["bucket/m/b.safetensors"] == LONG
    assert not [request for request in store.requests if "a.safetensors" in request.key and request.deed == "PUT"]


def test_what_passes_by_itself_is_not_told(store, small_parts):
    """A connection that breaks once, while it is read or written."""
    broken = set()

    def break_once(request: Request) -> str | None:
        first = request.deed in {"PART", "GET"} and request.deed not in broken
        broken.add(request.deed)
        return "cut body" if first and request.deed == "GET" else "cut" if first else None

    store.put("bucket/source", LONG)
    store.fault = break_once
    span = Span(reader=Reader("s3://bucket/source"), offset=0, length=len(LONG))
    write_all("s3://bucket/m", KEY, Output(name="model.safetensors", pieces=(span,)))
    assert {"PART", "GET"} <= broken
    assert store.objects["bucket/m/model.safetensors"] == LONG
    assert store.uploads == {}


def test_an_error_stops_the_other_uploads_and_leaves_no_parts(store, small_parts):
    endless = [fails(RuntimeError(), 99 * MIB, f"{number}.safetensors") for number in range(UPLOADS - 1)]
    with pytest.raises(ZeroDivisionError), open_target("s3://bucket/m", KEY) as target:
        target.write([*endless, fails(ZeroDivisionError(), 6 * MIB)])
    assert store.uploads == {}
    assert store.objects.keys() == {f"bucket/m/{MARKER}"}


def test_a_killed_upload_is_continued(store):
    code = (
        "import os, signal, sys\n"
        "from tests.weights.target.test_store import *\n"
        "def die():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "    yield b''\n"
        "last = Output(name='b.safetensors', pieces=(*made(bytes(20 * MIB)).pieces, Made(length=1, blocks=die)))\n"
        "write_all('s3://bucket/m', KEY, made(b'one', 'a.safetensors'), last)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False)
    assert done.returncode == -9
    assert store.objects.keys() == {f"bucket/m/{MARKER}", "bucket/m/a.safetensors"}
    store.requests.clear()
    write_all("s3://bucket/m", KEY, made(b"one", "a.safetensors"), made(b"two", "b.safetensors"), *SMALL)
    assert {key.rpartition("/")[2] for key in store.objects} == {"a.safetensors", "b.safetensors", *dict(SMALL)}


def test_a_bucket_that_refuses_is_told_before_anything_is_read(store):
    store.fault = lambda request: "403 AccessDenied"
    with pytest.raises(NotAllowed, match=r"may not .* s3://bucket/m"), open_target("s3://bucket/m", KEY):
        pass


# --- how many requests


def test_a_model_of_a_thousand_tensors_takes_few_requests(store):
    tensors = {f"layers.{number}.weight": ("BF16", (64, 8), bytes([number % 256]) * 1024) for number in range(1000)}
    for shard in range(2):
        store.put(
            f"bucket/base/model-{shard}.safetensors", shard_bytes({f"{shard}.{n}": t for n, t in tensors.items()})
        )
    table = {f"{shard}.{name}": f"model-{shard}.safetensors" for shard in range(2) for name in tensors}
    store.put("bucket/base/model.safetensors.index.json", json.dumps({"weight_map": table}).encode())
    with open_weights(folder_at("s3://bucket/base")) as weights:
        # the folder, the index, and of each shard the length of its header and the header
        assert store.deeds() == ["LIST", "GET"] + ["GET"] * 4
        store.requests.clear()
        outputs = [
            Output(
                name=shard.name,
                pieces=(
                    bytes(shard.header.start),
                    *(
                        Span(reader=shard.reader, offset=tensor.offset, length=tensor.length)
                        for tensor in shard.header.tensors.values()
                    ),
                ),
            )
            for shard in weights.shards
        ]
        with open_target("s3://bucket/m", KEY) as target:
            target.write(outputs)
    assert store.deeds().count("GET") == 2
    assert store.deeds().count("PUT") == 3
    assert len(store.deeds()) < 20
    for shard in range(2):
        source = store.objects[f"bucket/base/model-{shard}.safetensors"]
        assert store.objects[f"bucket/m/model-{shard}.safetensors"][-1_024_000:] == source[-1_024_000:]


def test_a_copy_from_bucket_to_bucket_reads_what_it_writes_once(store):
    store.put("bucket/source", LONG)
    span = Span(reader=Reader("s3://bucket/source", len(LONG)), offset=0, length=len(LONG))
    write_all("s3://bucket/m", KEY, Output(name="model.safetensors", pieces=(span,)))
    read = [request.range for request in store.requests if request.key == "bucket/source"]
    assert read == [f"bytes=0-{8 * MIB - 1}", f"bytes={8 * MIB}-{11 * MIB - 1}"]


def test_a_model_comes_from_a_bucket_in_ranges_at_once(store, tmp_path):
    store.put("bucket/source", LONG)
    span = Span(reader=Reader("s3://bucket/source", len(LONG)), offset=0, length=len(LONG))
    write_all(str(tmp_path / "m"), KEY, Output(name="model.safetensors", pieces=(span,)))
    assert (tmp_path / "m/model.safetensors").read_bytes() == LONG
    assert len([request for request in store.requests if request.key == "bucket/source"]) == 2
