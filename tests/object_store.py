"""A stand-in for an S3 bucket on loopback, as much of it as files need: objects, ranges, listings, multipart uploads.

Requests must be signed, checksums right, parts large enough and complete, or they are refused as S3 does. Faults are
let happen by a function that is asked about every request.
"""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

MIN_PART_BYTES = 5 << 20
_SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class Request:
    """One request, by what it does: ``GET``, ``LIST``, ``PART``, ``COMPLETE`` and so on."""

    def __init__(self, deed: str, key: str, query: dict[str, str], length: int, range_: str | None) -> None:
        self.deed, self.key, self.query, self.length, self.range = deed, key, query, length, range_

    def __repr__(self) -> str:
        return f"{self.deed} {self.key}"


class Refused(Exception):
    """An answer with an error code of S3."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class ObjectStore:
    """The objects of all buckets by bucket and key, the uploads that were begun, and every request so far.

    ``fault`` may return a code (``403 AccessDenied``), ``cut`` (the connection breaks in the middle of the request),
    ``cut reply`` (after it was carried out), ``cut body`` (in the middle of the answer), or None.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, tuple[str, dict[int, tuple[str, bytes]]]] = {}
        self.requests: list[Request] = []
        self.fault: Callable[[Request], str | None] = lambda request: None
        self.lock = threading.RLock()
        self.numbers = count(1)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        """End the server."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def reset(self) -> None:
        """Forget everything."""
        with self.lock:
            self.objects.clear()
            self.uploads.clear()
            self.requests.clear()
            self.fault = lambda request: None

    def deeds(self) -> list[str]:
        """Return what the requests did, in order."""
        return [request.deed for request in self.requests]

    # --- what S3 does

    def put(self, key: str, data: bytes) -> dict[str, str]:
        """Store an object whole."""
        self.objects[key] = data
        return {"ETag": _etag(data)}

    def begin(self, key: str) -> str:
        """Begin an upload in parts."""
        upload = f"upload-{next(self.numbers)}"
        self.uploads[upload] = (key, {})
        place = escape(key.partition("/")[2])
        return (
            f"<InitiateMultipartUploadResult><Key>{place}</Key><UploadId>{upload}</UploadId>"
            "</InitiateMultipartUploadResult>"
        )

    def part(self, key: str, query: dict[str, str], data: bytes) -> dict[str, str]:
        """Take a part."""
        number = int(query["partNumber"])
        if not 1 <= number <= 10_000:
            raise Refused(400, "InvalidArgument")
        self._upload(key, query)[number] = (_etag(data), data)
        return {"ETag": _etag(data)}

    def complete(self, key: str, query: dict[str, str], data: bytes) -> str:
        """Make one object of the parts that are named."""
        parts = self._upload(key, query)
        root = ET.fromstring(data)
        named = [
            (int(one.findtext(f"{{{_SPACE}}}PartNumber") or 0), one.findtext(f"{{{_SPACE}}}ETag") or "") for one in root
        ]
        numbers = [number for number, _ in named]
        if not named or numbers != sorted(set(numbers)):
            raise Refused(400, "InvalidPartOrder")
        if any(number not in parts or parts[number][0] != tag for number, tag in named):
            raise Refused(400, "InvalidPart")
        if any(len(parts[number][1]) < MIN_PART_BYTES for number in numbers[:-1]):
            raise Refused(400, "EntityTooSmall")
        self.objects[key] = b"".join(parts[number][1] for number in numbers)
        del self.uploads[query["uploadId"]]
        return f"<CompleteMultipartUploadResult><ETag>{_etag(self.objects[key])}</ETag></CompleteMultipartUploadResult>"

    def abort(self, key: str, query: dict[str, str]) -> None:
        """Forget an upload."""
        self._upload(key, query)
        del self.uploads[query["uploadId"]]

    def listing(self, bucket: str, query: dict[str, str]) -> str:
        """List objects, at most 1,000 at a time."""
        prefix, after = f"{bucket}/{query.get('prefix', '')}", query.get("continuation-token", "")
        delimiter = query.get("delimiter")
        found = sorted(key for key in self.objects if key.startswith(prefix))
        folders = sorted({_below(key, prefix, delimiter) for key in found} - {None}) if delimiter else []
        found = [key for key in found if key > after and not (delimiter and _below(key, prefix, delimiter))]
        limit = int(query.get("max-keys", 1000))
        page, more = found[:limit], len(found) > limit
        names = (key[len(bucket) + 1 :] for key in page)
        text = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(self.objects[f'{bucket}/{name}'])}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for name in names
        )
        text += "".join(f"<CommonPrefixes><Prefix>{escape(str(one))}</Prefix></CommonPrefixes>" for one in folders)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return (
            f'<ListBucketResult xmlns="{_SPACE}"><KeyCount>{len(page)}</KeyCount>'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{text}</ListBucketResult>"
        )

    def delete_all(self, bucket: str, data: bytes) -> str:
        """Delete the objects that are named."""
        for one in ET.fromstring(data).iter(f"{{{_SPACE}}}Key"):
            self.objects.pop(f"{bucket}/{one.text}", None)
        return "<DeleteResult></DeleteResult>"

    def _upload(self, key: str, query: dict[str, str]) -> dict[int, tuple[str, bytes]]:
        found = self.uploads.get(query.get("uploadId", ""))
        if found is None or found[0] != key:
            raise Refused(404, "NoSuchUpload")
        return found[1]


class _Handler(BaseHTTPRequestHandler):
    store: ObjectStore
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits for 40 ms

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            pass

    def do_any(self) -> None:
        parts = urlsplit(self.path)
        key = unquote(parts.path).strip("/")
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        length = int(self.headers.get("Content-Length", 0))
        request = Request(_deed(self.command, key, query), key, query, length, self.headers.get("Range"))
        with self.store.lock:
            self.store.requests.append(request)
            fault = self.store.fault(request)
        if fault == "cut":
            self.rfile.read(length // 2)
            self._cut()
            return
        data = self._body(length)
        try:
            self._check(data, fault or "")
            with self.store.lock:
                status, headers, body = self._carry_out(request, data)
        except Refused as refused:
            status, headers = refused.status, {}
            body = f"<Error><Code>{refused.code}</Code><Message>{refused.code}</Message></Error>".encode()
        if fault == "cut reply":
            self._cut()
            return
        self._answer(status, headers, body, cut=fault == "cut body")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any  # noqa: N815 - the names that the server looks for

    def _carry_out(self, request: Request, data: bytes) -> tuple[int, dict[str, str], bytes]:
        store, key, query = self.store, request.key, request.query
        if request.deed in {"GET", "HEAD"}:
            return self._object(key)
        if request.deed == "PUT":
            return 200, store.put(key, data), b""
        if request.deed == "PART":
            return 200, store.part(key, query, data), b""
        if request.deed in {"DELETE", "ABORT"}:
            store.objects.pop(key, None) if request.deed == "DELETE" else store.abort(key, query)
            return 204, {}, b""
        texts: dict[str, Callable[[], str]] = {
            "LIST": lambda: store.listing(key, query),
            "BEGIN": lambda: store.begin(key),
            "COMPLETE": lambda: store.complete(key, query, data),
            "DELETE ALL": lambda: store.delete_all(key, data),
        }
        if request.deed not in texts:
            raise Refused(501, "NotImplemented")
        return 200, {"Content-Type": "application/xml"}, texts[request.deed]().encode()

    def _object(self, key: str) -> tuple[int, dict[str, str], bytes]:
        if "/" not in key:
            return 200, {}, b""
        if key not in self.store.objects:
            raise Refused(404, "NoSuchKey")
        data = self.store.objects[key]
        headers = {"ETag": _etag(data), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "Accept-Ranges": "bytes"}
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if not span:
            return 200, headers, data
        first, last = int(span[1]), min(int(span[2]), len(data) - 1)
        if first > last:
            raise Refused(416, "InvalidRange")
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return 206, headers, data[first : last + 1]

    def _check(self, data: bytes, fault: str) -> None:
        if fault[:1].isdigit():
            raise Refused(int(fault[:3]), fault[4:])
        signature = r"AWS4-HMAC-SHA256 Credential=\S+/s3/aws4_request, SignedHeaders=\S+, Signature=[0-9a-f]{64}"
        if not re.fullmatch(signature, self.headers.get("Authorization", "")):
            raise Refused(403, "AccessDenied")
        said = self.headers.get("x-amz-checksum-crc32")
        if said and base64.b64decode(said) != zlib.crc32(data).to_bytes(4, "big"):
            raise Refused(400, "BadDigest")
        said = self.headers.get("x-amz-content-sha256", "")
        if re.fullmatch("[0-9a-f]{64}", said) and hashlib.sha256(data).hexdigest() != said:
            raise Refused(400, "XAmzContentSHA256Mismatch")

    def _body(self, length: int) -> bytes:
        data = self.rfile.read(length)
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return data
        found, place = b"", 0
        while True:
            line = data.index(b"\r\n", place)
            size = int(data[place:line].partition(b";")[0], 16)
            if not size:
                return found
            found += data[line + 2 : line + 2 + size]
            place = line + 2 + size + 2

    def _answer(self, status: int, headers: dict[str, str], body: bytes, *, cut: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self._cut()

    def _cut(self) -> None:
        """Break the connection as a network does, without a farewell."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        raise ConnectionAbortedError


def _deed(command: str, key: str, query: dict[str, str]) -> str:
    if command == "GET" and "/" not in key:
        return "LIST"
    special = {
        ("PUT", "partNumber"): "PART",
        ("POST", "uploads"): "BEGIN",
        ("POST", "uploadId"): "COMPLETE",
        ("DELETE", "uploadId"): "ABORT",
        ("POST", "delete"): "DELETE ALL",
    }
    return next((deed for (method, name), deed in special.items() if method == command and name in query), command)


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _below(key: str, prefix: str, delimiter: str | None) -> str | None:
    """Return the common prefix that a key is listed as."""
    head, found, _ = key[len(prefix) :].partition(delimiter or "/")
    return f"{prefix.partition('/')[2]}{head}{found}" if found else None
