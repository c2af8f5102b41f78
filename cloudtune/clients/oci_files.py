"""ocifs, with what long transfers need: parts and ranges side by side, and answers that were lost or cut off.

ocifs 1.3 sends parts of 5 MiB one after the other, so that no file may have more than 50 GB, and gives up when the
connection breaks in the middle of an object.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from cloudtune.clients.oci_auth import sdk as oci
from cloudtune.errors import MissingExtra

try:
    from fsspec.callbacks import DEFAULT_CALLBACK
    from ocifs import OCIFileSystem
    from ocifs.core import OCIFile
    from ocifs.errors import translate_oci_error
    from urllib3.exceptions import HTTPError
except ImportError as error:
    raise MissingExtra("oci", "files of OCI Object Storage") from error

#: Bytes of a part or range; larger ones for files of more than 160 GB, because the service takes 10,000 parts.
PART_BYTES = 16 << 20
_MOST_PARTS = 10_000
#: Parts or ranges on their way at a time.
_WORKERS = 4
#: Times that a range is asked for whose content breaks off: the SDK retries up to the headers only.
_TRIES = 5
_models = oci.object_storage.models
_BROKEN = (HTTPError, ConnectionError)


@attrs.frozen(kw_only=True)
class Place:
    """An object's name and the client that reaches it."""

    client: Any
    namespace: str
    bucket: str
    name: str

    @property
    def arguments(self) -> tuple[str, str, str]:
        """The arguments that all operations on an object begin with."""
        return self.namespace, self.bucket, self.name

    def fetch(self, start: int, end: int, *, etag: str | None = None) -> bytes:
        """Return bytes of the object, of the state with this tag."""
        condition = {"if_match": etag} if etag else {}
        for attempt in range(1, _TRIES + 1):
            try:
                response = self.client.get_object(*self.arguments, range=f"bytes={start}-{end - 1}", **condition)
                return bytes(response.data.raw.read())
            except oci.exceptions.ServiceError as error:
                raise translate_oci_error(error) from error
            except _BROKEN:
                if attempt == _TRIES:
                    raise
        raise AssertionError

    def put_parts(
        self,
        parts: Sequence[Callable[[], bytes]],
        done: Callable[[int], object],
        *,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Write the object of parts that are made when they are sent; whole, or nothing is left of it."""
        meta = {f"opc-meta-{key}": value for key, value in (notes or {}).items()}
        details = _models.CreateMultipartUploadDetails(object=self.name, metadata=meta)
        begun = self.client.create_multipart_upload(self.namespace, self.bucket, details).data
        try:
            tags: list[dict[str, Any]] = []
            size = 0
            tasks = [partial(self._put_part, begun.upload_id, number, part) for number, part in enumerate(parts, 1)]
            for tag, length in _side_by_side(tasks):
                tags.append({"partNum": len(tags) + 1, "etag": tag})
                size += length
                done(length)
            self._commit(begun, tags, size)
        except BaseException:
            with contextlib.suppress(Exception):  # what led here is told
                self.client.abort_multipart_upload(*self.arguments, begun.upload_id)
            raise

    def _put_part(self, upload: str, number: int, part: Callable[[], bytes]) -> tuple[str, int]:
        data = part()
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        response = self.client.upload_part(*self.arguments, upload, number, data, content_md5=md5)
        return str(response.headers["etag"]), len(data)

    def _commit(self, begun: Any, tags: Sequence[dict[str, Any]], size: int) -> None:
        try:
            self.client.commit_multipart_upload(*self.arguments, begun.upload_id, {"partsToCommit": tags})
        except oci.exceptions.ServiceError as error:
            if error.status != 404 or not self.is_of_parts(len(tags), size, since=begun.time_created):
                raise

    def is_of_parts(self, count: int, size: int, *, since: Any) -> bool:
        """Whether the object is one of so many parts and bytes that came after a moment.

        Then an upload that the service no longer knows was committed, and only the answer was lost.
        """
        try:
            headers = self.client.head_object(*self.arguments).headers
        except oci.exceptions.ServiceError:
            return False
        modified = parsedate_to_datetime(headers["last-modified"]).timestamp()
        parts = headers.get("opc-multipart-md5", "").rpartition("-")[2]
        return parts == str(count) and int(headers["content-length"]) == size and modified >= since.timestamp() - 1


class OciFile(OCIFile):  # type: ignore[misc]
    """A file of ocifs."""

    def _fetch_range(self, start: int, end: int, max_attempts: int = _TRIES, **kwargs: Any) -> bytes:
        place: Place = self.fs.place(self.path)
        return place.fetch(start, end)

    def commit(self, **kwargs: Any) -> None:
        """Complete the object."""
        try:
            super().commit(**kwargs)
        except FileNotFoundError:
            if not self.parts or not self.fs.place(self.path).is_of_parts(
                len(self.parts), self.tell(), since=self.mpu.time_created
            ):
                raise
            self.buffer = None


class OciFiles(OCIFileSystem):  # type: ignore[misc]
    """The file system of ``oci://``."""

    def place(self, path: str) -> Place:
        """Return the object at a path."""
        bucket, namespace, name = self.split_path(path)
        return Place(client=self.oci_client, namespace=namespace, bucket=bucket, name=name)

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> OciFile:
        options = {"cache_type": self.default_cache_type, "cache_options": self.default_cache_options}
        chosen = {name: value for name, value in kwargs.items() if value is not None}
        return OciFile(self, path, mode, block_size or self.default_block_size, **{**options, **chosen})

    def put_file(
        self,
        lpath: str,
        rpath: str,
        callback: Any = DEFAULT_CALLBACK,
        mode: str = "overwrite",
        *,
        sha256: str | None = None,
        **_: Any,
    ) -> None:
        """Write a file of this machine, a large one in parts side by side; its checksum is noted if it is known."""
        size = os.path.getsize(lpath)  # noqa: PTH202 - fsspec's paths are text
        if mode == "create" and self.exists(rpath):
            raise FileExistsError(rpath)
        callback.set_size(size)
        part = max(PART_BYTES, -(-size // _MOST_PARTS))
        place, notes = self.place(rpath), {"sha256": sha256} if sha256 else {}
        try:
            if size <= part:
                place.client.put_object(*place.arguments, Path(lpath).read_bytes(), opc_meta=notes)
                callback.relative_update(size)
            else:
                parts = [partial(_span, lpath, start, min(start + part, size)) for start in range(0, size, part)]
                place.put_parts(parts, callback.relative_update, notes=notes)
        except oci.exceptions.ServiceError as error:
            raise translate_oci_error(error) from error
        self.invalidate_cache(rpath)

    def recorded_sha256(self, path: str) -> str | None:
        """Return the checksum that was noted when an object was written; None if there is none, or no object."""
        place = self.place(path)
        try:
            headers = place.client.head_object(*place.arguments).headers
        except oci.exceptions.ServiceError as error:
            if error.status == 404:
                return None
            raise translate_oci_error(error) from error
        noted = headers.get("opc-meta-sha256")
        return None if noted is None else str(noted)

    def get_file(
        self, rpath: str, lpath: Any = None, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **_: Any
    ) -> None:
        """Read an object into a file of this machine, ranges of it side by side; it is of one state, or it fails."""
        facts, place = self.info(rpath), self.place(rpath)
        if facts["type"] == "directory":
            os.makedirs(lpath, exist_ok=True)  # noqa: PTH103 - as above
            return
        callback.set_size(facts["size"])
        spans = [(start, min(start + PART_BYTES, facts["size"])) for start in range(0, facts["size"], PART_BYTES)]
        tasks = [partial(place.fetch, start, end, etag=facts["etag"]) for start, end in spans]
        with contextlib.ExitStack() as stack:
            target = outfile
            if target is None:
                Path(lpath).parent.mkdir(parents=True, exist_ok=True)
                target = stack.enter_context(Path(lpath).open("wb"))
            for (start, end), data in zip(spans, _side_by_side(tasks), strict=True):
                if len(data) != end - start:
                    raise OSError(f"{len(data)} bytes came of {end - start} of {rpath}")
                target.write(data)
                callback.relative_update(len(data))

    def rm_file(self, path: str) -> None:
        """Remove one object."""
        place = self.place(path)
        try:
            place.client.delete_object(*place.arguments)
        except oci.exceptions.ServiceError as error:
            raise translate_oci_error(error) from error
        self.invalidate_cache(self._parent(path))

    def bulk_delete(self, pathlist: list[str], **kwargs: Any) -> None:
        """Remove objects; one that is gone already is fine: the answer to its removal may have been lost."""
        for path in pathlist:
            with contextlib.suppress(FileNotFoundError):
                super().bulk_delete([path], **kwargs)


def _span(path: str, start: int, end: int) -> bytes:
    with Path(path).open("rb") as file:
        file.seek(start)
        data = file.read(end - start)
    if len(data) != end - start:
        raise OSError(f"{path} became shorter while it was sent")
    return data


def _side_by_side(tasks: Sequence[Callable[[], Any]]) -> Iterator[Any]:
    """Yield the results of tasks in order, a few of them under way at a time; the first error ends all."""
    pool = ThreadPoolExecutor(_WORKERS)
    waiting: deque[Future[Any]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > _WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
