"""Targets in buckets of Oracle Cloud: ocifs against the stand-in."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune import ranges
from cloudtune.errors import CloudtuneError
from cloudtune.ranges import Reader
from cloudtune.rehearsal import faults
from cloudtune.weights.files.assembly import Made, Output, Span
from cloudtune.weights.target import open_target
from tests.oci_place import OciPlace, oci_place

pytest.importorskip("ocifs", reason="ocifs is not installed")

KEY = "0123456789abcdef"
MIB = 1 << 20
LONG = random.Random(2).randbytes(12 * MIB)
SERVICE = "oci.object_storage"


@attrs.frozen
class Bucket:
    """The bucket ``b@ns``, from the stand-in's side."""

    place: OciPlace
    shelf: Any

    def calls(self) -> list[Any]:
        return [call for call in self.place.stage.record.calls if call.service == SERVICE]

    def names(self) -> set[str]:
        return {one.name for one in self.shelf.find().objects}


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Return an empty bucket; parts are as small as ocifs lets them be."""
    from cloudtune.rehearsal.oci.buckets import Buckets

    monkeypatch.setattr(ranges, "PART_BYTES", 5 * MIB)
    with oci_place(tmp_path) as place:
        yield Bucket(place, place.cloud.part(Buckets).make("b", namespace="ns"))


def made(data: bytes, name: str, error: BaseException | None = None) -> Output:
    def blocks() -> Iterator[bytes]:
        for start in range(0, len(data), MIB):
            yield data[start : start + MIB]
        if error is not None:
            raise error

    return Output(name=name, pieces=(Made(length=len(data), blocks=blocks),))


def write_all(*outputs: Output) -> dict[str, str]:
    with open_target("oci://b@ns/m", KEY) as target:
        target.write(outputs)
        target.put("config.json", b"{}")
        return target.checksums()


def test_a_model_is_written_in_parts_and_read_in_exact_ranges(bucket):
    assert write_all(made(LONG, "a.safetensors"))["a.safetensors"] == hashlib.sha256(LONG).hexdigest()
    operations = [call.operation for call in bucket.calls()]
    assert operations.count("upload_part") == 3
    assert operations.count("commit_multipart_upload") == 1
    assert bucket.names() == {"m/a.safetensors", "m/config.json"}
    before = len(bucket.calls())
    assert Reader("oci://b@ns/m/a.safetensors", len(LONG)).read(7 * MIB, 100) == LONG[7 * MIB : 7 * MIB + 100]
    read = bucket.calls()[before:]
    assert [(call.operation, dict(call.headers)["range"]) for call in read] == [
        ("get_object", f"bytes={7 * MIB}-{7 * MIB + 99}")
    ]


def test_a_model_that_breaks_leaves_no_parts_and_is_continued(bucket):
    with pytest.raises(ZeroDivisionError):
        write_all(made(b"one", "a.safetensors"), made(LONG, "b.safetensors", ZeroDivisionError()))
    assert bucket.shelf.uploads == {}
    assert bucket.names() <= {f"m/.cloudtune-{KEY}.part", "m/a.safetensors"}
    write_all(made(b"one", "a.safetensors"), made(LONG, "b.safetensors"))
    assert bucket.names() == {"m/a.safetensors", "m/b.safetensors", "m/config.json"}
    with Reader("oci://b@ns/m/b.safetensors") as reader:
        assert reader.read(0, reader.size) == LONG


@pytest.mark.parametrize("operation", ["upload_part", "commit_multipart_upload"])
def test_an_upload_that_is_refused_leaves_no_parts(bucket, operation):
    bucket.place.stage.faults.add(faults.refused(SERVICE, operation, status=403, code="NotAllowed"))
    with pytest.raises(CloudtuneError):
        write_all(made(LONG, "b.safetensors"))
    assert bucket.shelf.uploads == {}
    assert bucket.names() == {f"m/.cloudtune-{KEY}.part"}
    write_all(made(LONG, "b.safetensors"))
    assert bucket.names() == {"m/b.safetensors", "m/config.json"}


def test_a_model_is_copied_from_bucket_to_bucket(bucket):
    write_all(made(LONG, "a.safetensors"))
    reader = Reader("oci://b@ns/m/a.safetensors")
    half = len(LONG) // 2
    spans = tuple(Span(reader=reader, offset=offset, length=half) for offset in (0, half))
    before = len(bucket.calls())
    with open_target("oci://b@ns/copy", KEY) as target:
        target.write([Output(name="a.safetensors", pieces=spans)])
    gets = [call for call in bucket.calls()[before:] if call.operation == "get_object"]
    assert len(gets) == 2
    with Reader("oci://b@ns/copy/a.safetensors") as copied:
        assert copied.read(0, copied.size) == LONG
