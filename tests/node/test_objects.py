"""Files that a node sends to OCI Object Storage, against the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune.node import objects
from cloudtune.rehearsal import faults
from tests.oci_place import OciPlace, oci_place

pytest.importorskip("ocifs", reason="ocifs is not installed")

SIZE = 5 * (1 << 16) + 7


@attrs.frozen
class Bucket:
    """A bucket, the file system that a node opens it by, and a large file."""

    place: OciPlace
    files: Any
    file: Path

    def put(self, name: str) -> None:
        objects.put(self.files, self.file, f"data@ns/{name}")

    def calls(self, operation: str) -> int:
        return sum(call.operation == operation for call in self.place.stage.record.calls)

    def content(self, name: str) -> bytes:
        client = self.place.sdk("object_storage", "ObjectStorageClient")
        data: bytes = client.get_object("ns", "data", name).data.content
        return data

    def begun(self) -> int:
        client = self.place.sdk("object_storage", "ObjectStorageClient")
        return len(client.list_multipart_uploads("ns", "data").data)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Return a bucket of a stand-in; parts are small, and nothing is tried twice by the library."""
    import oci
    from ocifs import OCIFileSystem

    from cloudtune.rehearsal.oci.buckets import Buckets

    monkeypatch.setattr(objects, "PART_BYTES", 1 << 16)
    monkeypatch.setattr(objects, "_begun", {})
    with oci_place(tmp_path) as place:
        place.cloud.part(Buckets).make("data", namespace="ns")
        files = OCIFileSystem(
            config=str(place.identity.home / ".oci" / "config"),
            config_kwargs={"service_endpoint": place.cloud.url, "retry_strategy": oci.retry.NoneRetryStrategy()},
            skip_instance_cache=True,
        )
        file = tmp_path / "model.safetensors"
        file.write_bytes(bytes(range(256)) * (SIZE // 256) + b"tail" * 2)
        yield Bucket(place, files, file)


def test_a_large_file_goes_in_parts_and_a_small_one_at_once(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("runs/x/large")
    assert bucket.content("runs/x/large") == bucket.file.read_bytes()
    assert (bucket.calls("upload_part"), bucket.calls("put_object"), bucket.begun()) == (6, 0, 0)
    small = tmp_path / "small"
    small.write_bytes(b"")
    objects.put(bucket.files, small, "data@ns/small")
    assert (bucket.content("small"), bucket.calls("put_object")) == (b"", 1)


def test_the_next_attempt_sends_what_is_left(bucket: Bucket) -> None:
    bucket.place.stage.faults.add(faults.refused("*", "upload_part", status=503, numbers=(3,)))
    with pytest.raises(OSError, match="OCI answers 503"):
        bucket.put("large")
    sent = bucket.calls("upload_part")
    bucket.put("large")
    assert bucket.content("large") == bucket.file.read_bytes()
    assert bucket.calls("upload_part") - sent == 6 - (sent - 1)
    assert (bucket.calls("create_multipart_upload"), bucket.begun()) == (1, 0)


def test_a_file_that_has_changed_begins_anew_and_what_is_given_up_goes(bucket: Bucket) -> None:
    bucket.place.stage.faults.add(faults.refused("*", "upload_part", status=500, numbers=(2, 9)))
    with pytest.raises(OSError, match="OCI answers 500"):
        bucket.put("large")
    bucket.file.write_bytes(b"x" * SIZE)
    with pytest.raises(OSError, match="OCI answers 500"):
        bucket.put("large")
    assert (bucket.calls("create_multipart_upload"), bucket.begun()) == (2, 1)
    objects.forget(bucket.files.oci_client)
    assert bucket.begun() == 0
    bucket.put("large")
    assert bucket.content("large") == b"x" * SIZE


def test_an_answer_that_was_lost_does_no_harm(bucket: Bucket) -> None:
    bucket.place.stage.faults.add(
        faults.lost("*", "commit_multipart_upload"), faults.lost("*", "upload_part", numbers=(2,))
    )
    for _ in range(2):
        with pytest.raises(OSError, match="Connection"):
            bucket.put("large")
    bucket.put("large")
    assert bucket.content("large") == bucket.file.read_bytes()
    assert (bucket.calls("create_multipart_upload"), bucket.begun()) == (1, 0)


def test_a_right_that_is_missing_is_named(bucket: Bucket) -> None:
    with pytest.raises(OSError, match="not allowed to manage objects in its compartment"):
        objects.put(bucket.files, bucket.file, "other@ns/large")


def test_an_object_is_fetched_by_parts_and_what_breaks_off_is_asked_for_again(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("large")
    bucket.place.stage.faults.add(faults.cut("*", "get_object", after_bytes=1000, numbers=(2, 4)))
    target = tmp_path / "here"
    objects.get(bucket.files, "data@ns/large", target)
    assert target.read_bytes() == bucket.file.read_bytes()
    assert bucket.calls("get_object") == 6 + 2
    (tmp_path / "empty").touch()
    objects.put(bucket.files, tmp_path / "empty", "data@ns/empty")
    objects.get(bucket.files, "data@ns/empty", target)
    assert target.read_bytes() == b""


def test_all_of_a_file_is_of_one_state_of_the_object(bucket: Bucket, tmp_path: Path) -> None:
    import oci

    bucket.put("large")
    client, place = bucket.files.oci_client, ("ns", "data", "large")
    before = client.head_object(*place).headers["etag"]
    assert objects._range(client, place, 256, 260, before) == b"\x00\x01\x02\x03"
    bucket.file.write_bytes(b"x" * SIZE)
    bucket.put("large")
    with pytest.raises(oci.exceptions.ServiceError) as caught:
        objects._range(client, place, 256, 260, before)
    assert caught.value.status == 412
    with pytest.raises(OSError, match="not allowed to read objects"):
        objects.get(bucket.files, "nowhere@ns/large", tmp_path / "here")
