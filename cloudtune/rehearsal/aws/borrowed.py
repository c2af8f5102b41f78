"""What moto's server answers in the stand-in's place: S3 and all other services that the stand-in has not itself.

moto's application is asked within this process, for an account of this rehearsal's own; it needs no port.
"""

from __future__ import annotations

import io
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, BinaryIO, cast
from urllib.parse import quote, unquote, urlencode

import attrs

from cloudtune.errors import MissingExtra
from cloudtune.rehearsal.messages import Refused, Request, Response

_HOP = {"connection", "transfer-encoding", "date", "server", "access-control-allow-origin"}
_lock = threading.Lock()
_made: list[Any] = []


def require_moto() -> None:
    """Raise MissingExtra where moto, or what its server needs, is not installed."""
    if any(find_spec(name) is None for name in ("moto", "flask", "flask_cors")):
        raise MissingExtra("rehearse", "a rehearsal of AWS")


def _application() -> Any:
    """Return moto's application; it takes a second to import, once."""
    with _lock:
        if not _made:
            server: Any = import_module("moto.moto_server.werkzeug_app")
            _made.append(server.DomainDispatcherApplication(server.create_backend_app))
        return _made[0]


class _Input(io.RawIOBase):
    """The body of a request as a file, read as it comes."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        taken = self._left[: len(buffer)]
        self._left = self._left[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)


@attrs.frozen(kw_only=True)
class Answer:
    """What moto answered."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@attrs.frozen(kw_only=True)
class Object:
    """An object of a bucket."""

    key: str
    bytes: int
    etag: str


class Borrowed:
    """moto's services for one account."""

    def __init__(self, account: str, region: str) -> None:
        require_moto()
        self.account = account
        self.region = region

    def answer(self, request: Request, body: bytes | None, *, host: str, operation: str) -> Response:
        """Answer a client's request; ``body`` is None for one that has not been read yet."""
        headers = {name: str(value) for name, value in request.headers.items()}
        if "X-Amz-Credential" in request.query and not request.header("authorization"):
            # moto finds the service in the header alone
            credential = request.query["X-Amz-Credential"]
            headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"
        stream = io.BufferedReader(_Input(request.body)) if body is None else io.BytesIO(body)
        path, _, query = request.target.partition("?")
        file = cast("BinaryIO", stream)
        missing = Refused(501, "NotImplemented", f"rehearsed AWS has no {operation}")
        try:
            answer = self.ask(request.method, path, query=query, headers=headers, stream=file, host=host)
        except NotImplementedError:  # moto knows the operation, and has not made it
            raise missing from None
        if answer.status >= 400 and answer.body[:15].lower().startswith(b"<!doctype html"):
            raise missing  # moto has no such path at all
        return Response(status=answer.status, headers=answer.headers, body=answer.body)

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Mapping[str, str],
        stream: BinaryIO,
        host: str = "127.0.0.1",
    ) -> Answer:
        """Send moto a request."""
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(path, "latin-1"),
            "RAW_URI": path,
            "REQUEST_URI": f"{path}?{query}" if query else path,
            "QUERY_STRING": query,
            "SERVER_NAME": host.partition(":")[0],
            "SERVER_PORT": host.partition(":")[2] or "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": host,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": stream,
            "wsgi.input_terminated": True,
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in headers.items():
            key = name.upper().replace("-", "_")
            environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ.pop("HTTP_EXPECT", None)
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self.account
        return _carried_out(_application(), environ)

    def forget(self) -> None:
        """Forget the account's buckets: their names are everybody's, and moto's memory is as long as this process."""
        found: Any = import_module("moto.s3.models").s3_backends
        for place in found.pop(self.account, {}).values():
            for bucket in place.buckets.values():
                found.bucket_accounts.pop(bucket.name, None)
                for key in bucket.keys.values():
                    key.dispose()

    def get(self, bucket: str, key: str) -> bytes | None:
        """Return an object, None if there is none."""
        answer = self._s3("GET", f"/{bucket}/{quote(key)}")
        return answer.body if answer.status == 200 else None

    def put(self, bucket: str, key: str, body: BinaryIO) -> None:
        """Write an object; Refused where the bucket is missing."""
        size = body.seek(0, io.SEEK_END)
        body.seek(0)
        headers = {"content-length": str(size), "content-type": "application/octet-stream"}
        answer = self._s3("PUT", f"/{bucket}/{quote(key)}", headers=headers, stream=body)
        if answer.status != 200:
            raise Refused(404, "NoSuchBucket", f"The specified bucket does not exist: {bucket}")

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket, unless it is there."""
        where = f"<LocationConstraint>{self.region}</LocationConstraint>"
        body = f"<CreateBucketConfiguration>{where}</CreateBucketConfiguration>"
        stream = io.BytesIO(body.encode() if self.region != "us-east-1" else b"")
        size = str(len(stream.getvalue()))
        self._s3("PUT", f"/{bucket}", headers={"content-length": size}, stream=stream)

    def has_bucket(self, bucket: str) -> bool:
        """Whether there is such a bucket."""
        return self._s3("HEAD", f"/{bucket}").status == 200

    def objects(self, bucket: str, prefix: str) -> Iterator[Object]:
        """Yield the objects whose keys begin so, in the order of their keys."""
        after = ""
        while True:
            words = {
                "list-type": "2",
                "prefix": prefix,
                "encoding-type": "url",
                **({"start-after": after} if after else {}),
            }
            answer = self._s3("GET", f"/{bucket}", query=urlencode(words, quote_via=quote))
            if answer.status != 200:
                return
            tree = ET.fromstring(answer.body)  # noqa: S314 - moto's own words
            names = {"s3": tree.tag.partition("}")[0].lstrip("{")}
            found = [_object(each, names) for each in tree.iterfind("s3:Contents", names)]
            yield from found
            if not found or tree.findtext("s3:IsTruncated", "", names) != "true":
                return
            after = found[-1].key

    def _s3(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Mapping[str, str] = {},
        stream: BinaryIO | None = None,
    ) -> Answer:
        scope = f"rehearsed/20260101/{self.region}/s3/aws4_request"
        signed = {"authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0", **headers}
        return self.ask(method, path, query=query, headers=signed, stream=stream or io.BytesIO())


def _object(each: ET.Element, names: dict[str, str]) -> Object:
    return Object(
        key=unquote(each.findtext("s3:Key", "", names)),
        bytes=int(each.findtext("s3:Size", "0", names)),
        etag=each.findtext("s3:ETag", "", names).strip('"'),
    )


def _carried_out(application: Any, environ: dict[str, Any]) -> Answer:
    """Call a WSGI application."""
    told: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], _: object = None) -> Callable[[bytes], object]:
        told[:] = [int(status.split(" ", 1)[0]), headers]
        return lambda _data: None

    pieces = application(environ, start)
    try:
        body = b"".join(pieces)
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
    status, headers = told
    kept = tuple((name, value) for name, value in headers if name.lower() not in _HOP)
    return Answer(status=status, headers=kept, body=body)
