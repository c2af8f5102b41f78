"""Object Storage as the SDK and its UploadManager use it."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtune.rehearsal import faults
from tests.oci_place import OciPlace
from tests.rehearsal.oci.science import refused, until

oci = pytest.importorskip("oci", reason="the oci SDK is not installed")
MIB = 1 << 20


class Bucket:
    """One bucket, and the SDK's client of it."""

    def __init__(self, place: OciPlace) -> None:
        self.place, self.client = place, place.sdk("object_storage", "ObjectStorageClient")
        self.namespace = self.client.get_namespace().data
        self.client.create_bucket(self.namespace, {"name": "b", "compartmentId": place.compartment})

    @property
    def where(self) -> tuple[str, str]:
        return self.namespace, "b"

    def put(self, name: str, data: bytes = b"", **options: Any) -> Any:
        return self.client.put_object(*self.where, name, data, **options).headers

    def get(self, name: str, **options: Any) -> bytes:
        content: bytes = self.client.get_object(*self.where, name, **options).data.content
        return content

    def head(self, name: str, **options: Any) -> Any:
        return self.client.head_object(*self.where, name, **options).headers

    def names(self, **options: Any) -> tuple[list[str], list[str], str | None]:
        found = self.client.list_objects(*self.where, **options).data
        return [one.name for one in found.objects], found.prefixes, found.next_start_with

    def files(self) -> int:
        """Return how many files the stand-in keeps."""
        from cloudtune.rehearsal.oci.buckets import Buckets

        folder = self.place.cloud.part(Buckets).folder
        return len(list(folder.iterdir())) if folder.is_dir() else 0


@pytest.fixture
def bucket(place: OciPlace) -> Iterator[Bucket]:
    return Bucket(place)


def b64md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def test_buckets_are_made_found_changed_and_removed(place: OciPlace) -> None:
    client = place.sdk("object_storage", "ObjectStorageClient")
    space = client.get_namespace(compartment_id=place.compartment).data
    assert client.get_namespace_metadata(space).data.default_swift_compartment_id.startswith("ocid1.tenancy.")
    for name in ("one", "two", "three"):
        made = client.create_bucket(
            space, {"name": name, "compartmentId": place.compartment, "freeformTags": {"a": "b"}}
        )
        assert (made.data.name, made.data.storage_tier, made.headers["etag"]) == (name, "Standard", made.data.etag)
    found = oci.pagination.list_call_get_all_results(
        client.list_buckets, space, place.compartment, limit=2, fields=["tags"]
    )
    assert [(one.name, one.freeform_tags) for one in found.data] == [
        (name, {"a": "b"}) for name in ("one", "three", "two")
    ]
    assert client.list_buckets(space, place.cloud.principals.tenancy).data == []
    client.update_bucket(
        space, "one", {"metadata": {"x": "y"}}, if_match=client.head_bucket(space, "one").headers["etag"]
    )
    client.put_object(space, "one", "o", b"123")
    full = client.get_bucket(space, "one", fields=["approximateCount", "approximateSize"]).data
    assert (full.metadata, full.approximate_count, full.approximate_size) == ({"x": "y"}, 1, 3)
    with refused(409, "BucketAlreadyExists"):
        client.create_bucket(space, {"name": "one", "compartmentId": place.compartment})
    with refused(400, "InvalidBucketName"):
        client.create_bucket(space, {"name": "a b", "compartmentId": place.compartment})
    with refused(409, "BucketNotEmpty"):
        client.delete_bucket(space, "one")
    client.delete_object(space, "one", "o")
    client.delete_bucket(space, "one")
    with refused(404, "BucketNotFound"):
        client.get_bucket(space, "one")
    with refused(404, "NamespaceNotFound"):
        client.get_bucket("elsewhere", "one")


@pytest.mark.parametrize("name", ["plain", "a/b c/é?&+%.txt", "/leading//double/", ".", "..", "x" * 1024])
def test_an_object_comes_back_as_it_was_whatever_its_name(name: str, bucket: Bucket) -> None:
    data = random.Random(name).randbytes(100_000)
    sent = bucket.put(
        name, data, content_type="text/x", opc_meta={"who": "me"}, content_md5=b64md5(data), cache_control="no-store"
    )
    assert sent["opc-content-md5"] == b64md5(data)
    assert bucket.get(name) == data
    head = bucket.head(name)
    assert {
        key: head[key] for key in ("content-length", "content-type", "content-md5", "opc-meta-who", "cache-control")
    } == {
        "content-length": "100000",
        "content-type": "text/x",
        "content-md5": b64md5(data),
        "opc-meta-who": "me",
        "cache-control": "no-store",
    }
    assert {"accept-ranges", "version-id", "etag", "last-modified", "storage-tier"} <= {key.lower() for key in head}
    assert bucket.names()[0] == [name]
    bucket.client.delete_object(*bucket.where, name)
    with refused(404, "ObjectNotFound"):
        bucket.get(name)
    assert bucket.files() == 0


def test_ranges_are_those_of_rfc_7233(bucket: Bucket) -> None:
    data = bytes(range(256)) * 10
    bucket.put("o", data)
    assert bucket.get("o", range="bytes=10-19") == data[10:20]
    assert bucket.get("o", range="bytes=2550-") == data[2550:]
    assert bucket.get("o", range="bytes=-7") == data[-7:]
    assert bucket.get("o", range="bytes=2550-99999") == data[2550:]
    answer = bucket.client.get_object(*bucket.where, "o", range="bytes=10-19")
    assert (answer.status, answer.headers["content-range"]) == (206, "bytes 10-19/2560")
    for wrong in ("bytes=2560-", "lines=1-2", "bytes=5-3"):
        with refused(416, "InvalidRange"):
            bucket.get("o", range=wrong)
    assert bucket.get("o", http_response_content_type="x/y") == data


def test_conditions_are_those_of_entity_tags(bucket: Bucket) -> None:
    first = bucket.put("o", b"1", if_none_match="*")["etag"]
    with refused(412, "IfNoneMatchFailed"):
        bucket.put("o", b"2", if_none_match="*")
    second = bucket.put("o", b"2", if_match=first)["etag"]
    for deed in (
        bucket.get,
        bucket.put,
        lambda name, if_match: bucket.client.delete_object(*bucket.where, name, if_match=if_match),
    ):
        with refused(412, "IfMatchFailed"):
            deed("o", if_match=first)
    assert bucket.get("o", if_match=second) == b"2"
    assert bucket.client.get_object(*bucket.where, "o", if_none_match=first).status == 200
    with pytest.raises(oci.exceptions.ServiceError) as unchanged:
        bucket.get("o", if_none_match=second)
    assert unchanged.value.status == 304
    with refused(404, "ObjectNotFound"):
        bucket.get("o", version_id="another")


def test_content_that_is_not_what_its_headers_say_is_refused(bucket: Bucket) -> None:
    right = base64.b64encode(hashlib.sha256(b"123").digest()).decode()
    with refused(400, "UnmatchedContentMD5"):
        bucket.put("o", b"123", content_md5=b64md5(b"124"))
    with refused(400, "InvalidContentMD5"):
        bucket.put("o", b"123", content_md5="??")
    with refused(400, "UnmatchedContentSHA256"):
        bucket.put("o", b"124", opc_checksum_algorithm="SHA256", opc_content_sha256=right)
    with refused(400, "InvalidParameter"):
        bucket.put("o", b"1", storage_tier="Deep")
    with refused(501, "MethodNotImplemented"):
        bucket.put("o", b"1", opc_sse_customer_key="a2V5")
    with refused(400, "InvalidObjectName"):
        bucket.put("x" * 1025)
    assert (bucket.names()[0], bucket.files()) == ([], 0)
    bucket.put("o", b"123", opc_checksum_algorithm="SHA256", opc_content_sha256=right)
    assert bucket.head("o")["opc-content-sha256"] == right
    # of the polynomial's own publication: 123456789 -> e3069283
    sent = bucket.put("c", b"123456789", opc_checksum_algorithm="CRC32C")
    assert base64.b64decode(sent["opc-content-crc32c"]).hex() == "e3069283"


def test_lists_go_by_name_prefix_and_page(bucket: Bucket) -> None:
    names = sorted(["a", "a/1", "a/2", "a/b/1", "a/b/2", "a/c", "a0", "b", "ä/x", "\U0001f600"])
    for name in names:
        bucket.put(name, name.encode())
    assert bucket.names() == (names, [], None)
    assert bucket.names(prefix="a/", delimiter="/") == (["a/1", "a/2", "a/c"], ["a/b/"], None)
    assert bucket.names(delimiter="/")[1] == ["a/", "ä/"]
    assert bucket.names(start="a/2", end="b")[0] == ["a/2", "a/b/1", "a/b/2", "a/c", "a0"]
    assert bucket.names(start_after="a/2", limit=2) == (["a/b/1", "a/b/2"], [], "a/c")
    assert bucket.names(prefix="a/", delimiter="/", limit=2) == (["a/1", "a/2"], [], "a/b/1")
    every = oci.pagination.list_call_get_all_results
    found = every(
        bucket.client.list_objects, *bucket.where, limit=3, delimiter="/", prefix="a/", fields="size,md5"
    ).data
    assert [(one.name, one.size, one.md5) for one in found.objects] == [
        (name, 3, b64md5(name.encode())) for name in ("a/1", "a/2", "a/c")
    ]
    assert found.prefixes == ["a/b/"]
    assert len(every(bucket.client.list_objects, *bucket.where, limit=1).data.objects) == len(names)
    plain = bucket.client.list_objects(*bucket.where).data.objects[0]
    assert (plain.size, plain.etag) == (None, None)
    for wrong in ({"delimiter": "x"}, {"fields": "colour"}, {"start": "a", "start_after": "b"}):
        with pytest.raises((oci.exceptions.ServiceError, ValueError)):
            bucket.names(**wrong)


def test_renaming_and_removing_many(bucket: Bucket) -> None:
    for name in ("x", "y", "z"):
        bucket.put(name, name.encode())
    tag = bucket.head("x")["etag"]
    renamed = bucket.client.rename_object(*bucket.where, {"sourceName": "x", "newName": "y"})
    assert (bucket.get("y"), bucket.names()[0], renamed.headers["etag"] != tag) == (b"x", ["y", "z"], True)
    with refused(412, "IfNoneMatchFailed"):
        bucket.client.rename_object(*bucket.where, {"sourceName": "z", "newName": "y", "newObjIfNoneMatchETag": "*"})
    with refused(404, "ObjectNotFound"):
        bucket.client.rename_object(*bucket.where, {"sourceName": "gone", "newName": "y"})
    asked = {"objects": [{"objectName": "y"}, {"objectName": "gone"}, {"objectName": "z", "ifMatch": "another"}]}
    done = bucket.client.batch_delete_objects(*bucket.where, asked).data
    assert [one.object_name for one in done.deleted] == ["y"]
    assert {one.object_name: one.status_code for one in done.failed} == {"gone": 404, "z": 412}
    assert (bucket.names()[0], bucket.files()) == (["z"], 1)


def test_the_upload_manager_sends_parts(bucket: Bucket, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(5 * MIB + 17)
    (tmp_path / "file").write_bytes(data)
    sent = []
    uploads = oci.object_storage.UploadManager(bucket.client, parallel_process_count=2)
    answer = uploads.upload_file(
        *bucket.where, "o", str(tmp_path / "file"), part_size=2 * MIB, progress_callback=sent.append
    )
    assert (sum(sent), bucket.get("o") == data) == (len(data), True)
    sums = b"".join(hashlib.md5(data[at : at + 2 * MIB]).digest() for at in range(0, len(data), 2 * MIB))
    assert answer.headers["opc-multipart-md5"] == f"{b64md5(sums)}-3"
    assert bucket.head("o")["opc-multipart-md5"] == answer.headers["opc-multipart-md5"]
    assert bucket.client.list_multipart_uploads(*bucket.where).data == []
    assert bucket.files() == 1


def test_an_upload_in_parts_is_resumed_or_aborted(bucket: Bucket) -> None:
    client = bucket.client
    begun = client.create_multipart_upload(
        *bucket.where, {"object": "d/o", "contentType": "x/y", "metadata": {"opc-meta-a": "b"}}
    )
    upload = begun.data.upload_id
    bucket.place.stage.faults.add(faults.refused("oci.object_storage", "upload_part", status=503, numbers=(2,)))
    first = client.upload_part(*bucket.where, "d/o", upload, 2, b"world").headers["etag"]
    with pytest.raises(oci.exceptions.ServiceError):
        client.upload_part(*bucket.where, "d/o", upload, 1, b"hell")
    client.upload_part(*bucket.where, "d/o", upload, 1, b"hell")
    again = client.upload_part(*bucket.where, "d/o", upload, 1, b"hello ").headers["etag"]
    parts = client.list_multipart_upload_parts(*bucket.where, "d/o", upload, limit=1)
    assert [(one.part_number, one.size, one.etag) for one in parts.data] == [(1, 6, again)]
    assert parts.has_next_page
    assert [one.upload_id for one in client.list_multipart_uploads(*bucket.where).data] == [upload]
    with refused(409, "BucketNotEmpty"):
        client.delete_bucket(*bucket.where)
    for wrong in ([(1, first)], [(1, again)], [(1, again), (2, first), (3, "x")], []):
        with refused(400, "InvalidUploadPart"):
            client.commit_multipart_upload(*bucket.where, "d/o", upload, commit(*wrong))
    client.commit_multipart_upload(*bucket.where, "d/o", upload, commit((2, first), (1, again)))
    assert bucket.get("d/o") == b"hello world"
    assert (bucket.head("d/o")["content-type"], bucket.head("d/o")["opc-meta-a"]) == ("x/y", "b")
    with refused(404, "NoSuchUpload"):
        client.commit_multipart_upload(*bucket.where, "d/o", upload, commit((2, first), (1, again)))
    other = client.create_multipart_upload(*bucket.where, {"object": "p"}).data.upload_id
    client.upload_part(*bucket.where, "p", other, 1, b"x")
    with refused(400, "InvalidParameter"):
        client.upload_part(*bucket.where, "p", other, 10_001, b"x")
    client.abort_multipart_upload(*bucket.where, "p", other)
    with refused(404, "NoSuchUpload"):
        client.upload_part(*bucket.where, "p", other, 1, b"x")
    assert (bucket.names()[0], bucket.files()) == (["d/o"], 1)


def commit(*parts: tuple[int, str]) -> dict[str, Any]:
    return {"partsToCommit": [{"partNum": number, "etag": tag} for number, tag in parts]}


def test_a_copy_is_made_in_the_services_own_time(bucket: Bucket) -> None:
    bucket.put("o", b"123", opc_meta={"a": "b"})
    bucket.client.create_bucket(bucket.namespace, {"name": "c", "compartmentId": bucket.place.compartment})
    asked = {
        "sourceObjectName": "o",
        "destinationRegion": "us-ashburn-1",
        "destinationNamespace": bucket.namespace,
        "destinationBucket": "c",
        "destinationObjectName": "copy",
    }
    work = bucket.client.copy_object(*bucket.where, asked).headers["opc-work-request-id"]
    assert bucket.client.get_work_request(work).data.status in ("ACCEPTED", "IN_PROGRESS")
    until(lambda: bucket.client.get_work_request(work).data.status == "COMPLETED")
    assert bucket.client.get_object(bucket.namespace, "c", "copy").data.content == b"123"
    assert bucket.client.head_object(bucket.namespace, "c", "copy").headers["opc-meta-a"] == "b"
    bucket.place.stage.faults.add(faults.event("copy fails", numbers=()))
    bad = bucket.client.copy_object(*bucket.where, asked).headers["opc-work-request-id"]
    until(lambda: bucket.client.get_work_request(bad).data.status == "FAILED")
    assert [one.code for one in bucket.client.list_work_request_errors(bad).data] == ["InternalServerError"]
    assert [one.message for one in bucket.client.list_work_request_logs(bad).data] == ["copying", "failed"]
    assert {one.id for one in bucket.client.list_work_requests(bucket.place.compartment).data} == {work, bad}
    with refused(404, "BucketNotFound"):
        bucket.client.copy_object(*bucket.where, {**asked, "destinationBucket": "none"})
    with refused(404, "ObjectNotFound"):
        bucket.client.copy_object(*bucket.where, {**asked, "sourceObjectName": "none"})


def test_what_is_not_signed_is_refused(bucket: Bucket) -> None:
    import http.client

    connection = http.client.HTTPConnection(bucket.place.cloud.url.removeprefix("http://"), timeout=10)
    connection.request("PUT", f"/n/{bucket.namespace}/b/b/o/o", b"123", {"content-type": "text/plain"})
    assert connection.getresponse().status == 401
    connection.close()
    assert bucket.names()[0] == []
