"""Files to and from OCI Object Storage: in parts side by side, each of them tried again where it broke off.

ocifs by itself sends and reads 5 MiB after 5 MiB, so that no file may have more than 50 GB, and begins anew after every
fault. An upload that is begun stays begun in this process: the next attempt with the same file sends what is left.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import importlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from cloudtune.node.principals import why_refused

#: Bytes of a part; larger ones for files of more than 160 GB, because the service takes 10,000 parts.
PART_BYTES = 16 << 20
_MOST_PARTS = 10_000
#: Parts on their way at a time.
_WORKERS = 4
#: Times that a part is asked for whose content breaks off: the library tries again up to the headers only.
_TRIES = 5

#: Namespace, bucket and name, with which all operations on an object begin.
Place = tuple[str, str, str]


class Upload(NamedTuple):
    """An upload that is begun: of which state of the file, and the tags of the parts that have arrived."""

    id: str
    since_s: float
    state: tuple[int, int]
    tags: dict[int, str]


_begun: dict[Place, Upload] = {}


def put(files: Any, source: Path, path: str) -> None:
    """Send a file to an object; it appears when all of it is there. ``files`` is the file system of ocifs.

    Raises:
        OSError: the service refuses, or was not reached.
    """
    client: Any = files.oci_client
    bucket, namespace, name = files.split_path(path)
    place = (namespace, bucket, name)
    try:
        if source.stat().st_size <= PART_BYTES:
            data = source.read_bytes()
            client.put_object(*place, data, content_md5=_md5(data))
        else:
            _put_parts(client, place, source)
    except OSError:
        raise
    except Exception as error:
        raise OSError(why_refused(error, right="manage objects")) from error


def get(files: Any, path: str, target: Path) -> None:
    """Fetch an object to a file; all of it is of one state of the object.

    Raises:
        OSError: the service refuses, was not reached, or the object has changed meanwhile.
    """
    client: Any = files.oci_client
    bucket, namespace, name = files.split_path(path)
    place = (namespace, bucket, name)
    try:
        facts = client.head_object(*place).headers
        size = int(facts["content-length"])
        with target.open("wb") as file, ThreadPoolExecutor(_WORKERS) as pool:

            def fetch(start: int) -> None:
                end = min(start + PART_BYTES, size)
                os.pwrite(file.fileno(), _range(client, place, start, end, facts["etag"]), start)

            for _ in pool.map(fetch, range(0, size, PART_BYTES)):
                pass
    except OSError:
        raise
    except Exception as error:
        raise OSError(why_refused(error, right="read objects")) from error


def _range(client: Any, place: Place, start: int, end: int, etag: str) -> bytes:
    for attempt in range(1, _TRIES + 1):
        try:
            reply = client.get_object(*place, range=f"bytes={start}-{end - 1}", if_match=etag)
            data: bytes = reply.data.raw.read()
            if len(data) == end - start:
                return data
            problem: Exception = OSError(f"{len(data)} of {end - start} bytes arrived")
        except Exception as error:
            if getattr(error, "status", None) is not None:
                raise  # the service's word, after what the library has tried
            problem = error
        if attempt == _TRIES:
            raise problem
    raise AssertionError


def forget(client: Any) -> None:
    """Let go of what is begun: the service keeps the parts, and asks money for them, until somebody says so."""
    for place in list(_begun):
        _abort(client, place)


def _put_parts(client: Any, place: Place, source: Path) -> None:
    facts = source.stat()
    size, state = facts.st_size, (facts.st_size, facts.st_mtime_ns)
    if place in _begun and _begun[place].state != state:
        _abort(client, place)
    upload = _begun.get(place)
    if upload is None:
        details = importlib.import_module("oci").object_storage.models.CreateMultipartUploadDetails(object=place[2])
        made = client.create_multipart_upload(*place[:2], details).data
        upload = _begun[place] = Upload(made.upload_id, made.time_created.timestamp(), state, {})
    part_bytes = max(PART_BYTES, -(-size // _MOST_PARTS))
    numbers = range(1, -(-size // part_bytes) + 1)

    def send(number: int) -> None:
        with source.open("rb") as file:
            file.seek((number - 1) * part_bytes)
            data = file.read(part_bytes)
        reply = client.upload_part(*place, upload.id, number, data, content_md5=_md5(data))
        upload.tags[number] = reply.headers["etag"]

    try:
        with ThreadPoolExecutor(_WORKERS) as pool:
            for _ in pool.map(send, [number for number in numbers if number not in upload.tags]):
                pass
        parts = [{"partNum": number, "etag": upload.tags[number]} for number in numbers]
        client.commit_multipart_upload(*place, upload.id, {"partsToCommit": parts})
    except Exception as error:
        if getattr(error, "status", None) != 404:
            raise
        # the service does not know the upload: it was committed and the answer lost, or somebody removed it
        del _begun[place]
        if not _is_whole(client, place, upload, len(numbers), size):
            raise
    else:
        del _begun[place]


def _is_whole(client: Any, place: Place, upload: Upload, parts: int, size: int) -> bool:
    """Whether the object is one of so many parts and bytes that came after the upload was begun."""
    try:
        headers = client.head_object(*place).headers
    except Exception:  # noqa: BLE001 - whatever it is, the object was not seen
        return False
    modified_s = email.utils.parsedate_to_datetime(headers["last-modified"]).timestamp()
    counted = headers.get("opc-multipart-md5", "").rpartition("-")[2]
    return counted == str(parts) and int(headers["content-length"]) == size and modified_s >= upload.since_s - 1


def _abort(client: Any, place: Place) -> None:
    upload = _begun.pop(place)
    with contextlib.suppress(Exception):  # what led here is told
        client.abort_multipart_upload(*place, upload.id)


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()  # noqa: S324 - a checksum of the service's choice
