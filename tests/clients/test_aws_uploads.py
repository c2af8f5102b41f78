"""What a step sends to S3: which objects, and what is in them."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cloudtune.clients.aws_uploads import upload
from cloudtune.errors import CloudtuneError
from cloudtune.plan import File


def made(path: str, content: bytes) -> File:
    return File(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), content=content)


def lying(folder: Path, path: str, content: bytes) -> File:
    source = folder / path.replace("/", "-")
    source.write_bytes(content)
    return File(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), source=str(source))


def sent(key: str, *files: File) -> dict[str, bytes]:
    """Return the objects that an upload puts."""
    objects: dict[str, bytes] = {}

    def put(**given: Any) -> dict[str, Any]:
        objects[given["Key"]] = given["Body"].read()
        return {"ETag": str(len(objects))}

    upload(put, {"Bucket": "b", "Key": key}, files)
    return objects


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar}


def test_one_file_is_one_object() -> None:
    assert sent("p/order.json", made("order.json", b"{}")) == {"p/order.json": b"{}"}


def test_code_is_one_archive_without_the_prefix(tmp_path: Path) -> None:
    files = [lying(tmp_path, "code/a.py", b"a"), lying(tmp_path, "code/code/b.py", b"b")]
    found = sent("p/code.tar.gz", *files)
    assert list(found) == ["p/code.tar.gz"]
    assert members(found["p/code.tar.gz"]) == {"a.py": b"a", "code/b.py": b"b"}
    alone = sent("p/code.tar.gz", files[0])
    assert members(alone["p/code.tar.gz"]) == {"a.py": b"a"}


def test_an_archive_travels_as_it_is(tmp_path: Path) -> None:
    assert sent("p/code.tar.gz", lying(tmp_path, "code.tar.gz", b"PK")) == {"p/code.tar.gz": b"PK"}


def test_below_a_prefix_files_have_their_own_names(tmp_path: Path) -> None:
    found = sent("p/", made("agent.pyz", b"x"), lying(tmp_path, "code/a.py", b"a"))
    assert (set(found), found["p/agent.pyz"]) == ({"p/agent.pyz", "p/code.tar.gz"}, b"x")
    assert members(found["p/code.tar.gz"]) == {"a.py": b"a"}


def test_two_files_are_no_object() -> None:
    with pytest.raises(CloudtuneError, match="cannot be one object"):
        sent("p/order.json", made("a", b""), made("b", b""))


def test_a_file_that_has_changed_is_told(tmp_path: Path) -> None:
    file = lying(tmp_path, "code/a.py", b"a")
    Path(file.source or "").write_bytes(b"b")
    with pytest.raises(CloudtuneError, match="changed after it was listed"):
        sent("p/code.tar.gz", file)
