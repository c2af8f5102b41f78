"""Files at ``oci://``: ocifs and the SDK against the stand-in, as the user that the surroundings say."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from cloudtune import ranges, storage
from cloudtune.errors import NotAllowed, ServiceError
from cloudtune.rehearsal import faults
from tests.oci_place import OciPlace, oci_place

pytest.importorskip("ocifs", reason="ocifs is not installed")
MIB = 1 << 20
SERVICE = "oci.object_storage"


@attrs.frozen
class Bucket:
    """The bucket ``b@ns``, from the stand-in's side."""

    place: OciPlace
    shelf: Any

    def operations(self) -> list[str]:
        return [call.operation for call in self.place.stage.record.calls if call.service == SERVICE]

    def names(self) -> list[str]:
        return [one.name for one in self.shelf.find().objects]


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    from cloudtune.rehearsal.oci.buckets import Buckets

    with oci_place(tmp_path) as place:
        yield Bucket(place, place.cloud.part(Buckets).make("b", namespace="ns"))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let parts be as small as ocifs lets them be."""
    from cloudtune.clients import oci_files, oci_storage

    for module in (oci_files, oci_storage, ranges):
        monkeypatch.setattr(module, "PART_BYTES", 5 * MIB)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_a_folder_goes_up_is_listed_comes_down_and_goes_away(bucket: Bucket, tmp_path: Path, small_parts: None) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    data = {"large": noise(11 * MIB + 3), "sub/small.json": b"{}", "empty": b"", "sub/part": noise(5 * MIB)}
    for name, content in data.items():
        (source / name).write_bytes(content)
    seen: list[int] = []
    storage.upload(source, "oci://b@ns/up", progress=lambda done, total: seen.append(done))
    assert seen[-1] == sum(map(len, data.values()))
    assert (bucket.operations().count("upload_part"), bucket.operations().count("put_object")) == (3, 3)
    found = storage.listing("oci://b@ns/up")
    assert {one.path: one.bytes for one in found} == {name: len(content) for name, content in data.items()}
    storage.download("oci://b@ns/up", tmp_path / "down")
    assert {name: (tmp_path / "down" / name).read_bytes() for name in data} == data
    assert (storage.exists("oci://b@ns/up"), storage.exists("oci://b@ns/u")) == (True, False)
    storage.remove("oci://b@ns/up")
    assert (storage.listing("oci://b@ns/up"), bucket.names()) == ((), [])


def test_names_that_look_like_patterns_are_names(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for name in ("a[1]", "a1", "b*", "bc"):
        storage.upload(tmp_path / "file", f"oci://b@ns/{name}/file")
    storage.download("oci://b@ns/a[1]", tmp_path / "down")
    storage.remove("oci://b@ns/a[1]")
    storage.remove("oci://b@ns/b*/file")
    assert bucket.names() == ["a1/file", "bc/file"]


@pytest.mark.parametrize("size", [0, 1, 5 * MIB - 1, 5 * MIB, 10 * MIB + 1])
def test_a_writer_uses_parts_for_what_is_large(size: int, bucket: Bucket, small_parts: None) -> None:
    data = noise(size)
    with ranges.Writer("oci://b@ns/w") as writer:
        for at in range(0, size, 3 * MIB):
            writer.write(data[at : at + 3 * MIB])
        assert bucket.names() == []
    in_parts = size >= 5 * MIB
    assert ("put_object" in bucket.operations(), "commit_multipart_upload" in bucket.operations()) == (
        not in_parts,
        in_parts,
    )
    with ranges.Reader("oci://b@ns/w") as reader:
        assert (reader.size, reader.read(0, size) == data) == (size, True)
        before = len(bucket.operations())
        assert reader.read(size // 3, size // 2) == data[size // 3 : size // 3 + size // 2]
        assert bucket.operations()[before:] == ["get_object"] * (size // 2 > 0)


def test_a_writer_that_is_abandoned_leaves_nothing(bucket: Bucket, small_parts: None) -> None:
    for size in (1, 15 * MIB):
        writer = ranges.Writer("oci://b@ns/w")
        writer.write(noise(size))
        writer.abandon()
    assert (bucket.names(), bucket.shelf.uploads) == ([], {})
    assert bucket.operations().count("abort_multipart_upload") == 1


@pytest.mark.parametrize("kind", ["refused", "throttled", "lost", "cut"])
def test_every_call_may_fail_once(kind: str, bucket: Bucket, tmp_path: Path, small_parts: None) -> None:
    (tmp_path / "file").write_bytes(noise(6 * MIB))

    def transfers() -> None:
        storage.upload(tmp_path / "file", "oci://b@ns/f/up")
        with ranges.Writer("oci://b@ns/f/written") as writer:
            writer.write(noise(6 * MIB))
        with ranges.Writer("oci://b@ns/f/small") as writer:
            writer.write(b"small")
        storage.download("oci://b@ns/f/up", tmp_path / "down")
        assert (tmp_path / "down").read_bytes() == noise(6 * MIB)
        assert ranges.Reader("oci://b@ns/f/written").read(MIB, 9) == noise(6 * MIB)[MIB : MIB + 9]
        assert len(storage.listing("oci://b@ns/f")) == 3
        storage.remove("oci://b@ns/f")
        assert bucket.names() == []

    transfers()
    undisturbed = [call.call for call in bucket.place.stage.record.calls]
    fault = {
        "refused": faults.refused("*", status=503),
        "throttled": faults.refused("*", status=429),
        "lost": faults.lost("*"),
        "cut": faults.cut("*"),
    }[kind]
    counts = {call: undisturbed.count(call) for call in undisturbed}
    bucket.place.stage.faults.add(
        *(
            attrs.evolve(one, numbers=tuple(counts[one.service, one.operation] + number for number in one.numbers))
            for one in faults.each_once(undisturbed, fault)
        )
    )
    transfers()
    assert bucket.place.stage.faults.left() == ()
    # an upload whose beginning was carried out, and not heard of, is nobody's: only the bucket's own rule ends it
    assert len(bucket.shelf.uploads) == (2 if kind in {"lost", "cut"} else 0)


def test_a_file_that_changes_while_it_is_read_is_no_mixture(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudtune.clients import oci_files

    monkeypatch.setattr(oci_files, "PART_BYTES", MIB)
    (tmp_path / "one").write_bytes(noise(12 * MIB))
    storage.upload(tmp_path / "one", "oci://b@ns/o")

    def change(done: int, total: int) -> None:
        if "put_object" not in bucket.operations():
            with ranges.Writer("oci://b@ns/o") as writer:
                writer.write(b"new")

    with pytest.raises(ServiceError, match="If-Match"):
        storage.download("oci://b@ns/o", tmp_path / "down", progress=change)
    assert not (tmp_path / "down").exists()


def test_errors_say_who_can_mend_them(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ServiceError, match="there is no place for oci://none@ns/x"):
        storage.upload(tmp_path / "file", "oci://none@ns/x")
    with pytest.raises(ServiceError, match="there is nothing at oci://b@ns/x"):
        storage.download("oci://b@ns/x", tmp_path / "y")
    stranger = bucket.place.identity.applied({**bucket.place.cloud.environment(), "OCI_CLI_PROFILE": "OTHER"})
    with stranger, pytest.raises(NotAllowed, match="no credentials for OCI"):
        storage.listing("oci://b@ns/x")


def test_a_session_that_was_renewed_is_used(bucket: Bucket) -> None:
    place = bucket.place
    with place.identity.applied(place.cloud.environment(session=True)):
        with ranges.Writer("oci://b@ns/w") as writer:
            writer.write(b"x")
        place.cloud.principals.end_sessions()
        with pytest.raises(NotAllowed, match="authentication") as refused:
            storage.listing("oci://b@ns/w")
        assert "oci session authenticate" in (refused.value.hint or "")
        place.cloud.principals.sign_in()
        assert [one.bytes for one in storage.listing("oci://b@ns/w")] == [1]
