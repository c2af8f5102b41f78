"""HTTP messages as a stand-in's handlers see them: a request that is read as far as it is wanted, and a response."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.message import Message
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

Headers = tuple[tuple[str, str], ...]
#: Bytes of a body that are in memory at a time.
CHUNK = 1 << 16
#: What a handler may read into memory at once; a larger body is for :meth:`Body.save`.
_MOST_IN_MEMORY = 64 << 20


class Refused(Exception):
    """Raised by a handler for an answer that is an error; the service puts it into its own words."""

    def __init__(self, status: int, code: str, message: str, *, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


@attrs.frozen(kw_only=True)
class Response:
    """An answer. The body is bytes, a part of a file, or pieces that are sent as they come (then chunked).

    Pieces are closed when the client goes away: a generator may clean up in ``finally``.
    """

    status: int = 200
    headers: Headers = ()
    body: bytes | FilePart | Iterable[bytes] = b""


@attrs.frozen(kw_only=True)
class FilePart:
    """Bytes of a file as a body; nothing of it is held in memory."""

    path: Path
    offset: int
    length: int


class Body:
    """The body of a request, read from the connection as far as the handler wants it.

    ``length`` and ``sha256`` are of what has been read so far.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._hash = hashlib.sha256()
        self.length = 0

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._read(CHUNK):
            self._hash.update(piece)
            self.length += len(piece)
            yield piece

    @property
    def sha256(self) -> str:
        """The digest as hexadecimal digits."""
        return self._hash.hexdigest()

    def read(self, *, most: int = _MOST_IN_MEMORY) -> bytes:
        """Return the whole body; Refused (413) where it is larger."""
        pieces = []
        for piece in self:
            pieces.append(piece)
            if self.length > most:
                raise Refused(413, "PayloadTooLarge", f"the body is larger than {most} bytes")
        return b"".join(pieces)

    def save(self, file: BinaryIO) -> int:
        """Write the whole body to a file; return its length in bytes."""
        file.writelines(self)
        return self.length


class Request:
    """A request that has reached a service: where it aims, and what it brings.

    ``path`` is decoded, ``target`` is as it was sent; ``params`` are the parts of the path that the route names;
    ``query`` keeps the last value of each name, ``queries`` all of them in order.
    """

    def __init__(
        self, *, method: str, target: str, headers: Message, body: Body, alive: Callable[[], bool] = lambda: True
    ) -> None:
        parts = urlsplit(target if target.startswith("/") else f"/{target}")
        self.method = method
        self.target = target
        self.raw_path = parts.path
        self.path = unquote(parts.path)
        self.queries: tuple[tuple[str, str], ...] = tuple(parse_qsl(parts.query, keep_blank_values=True))
        self.query: Mapping[str, str] = dict(self.queries)
        self.headers = headers
        self.body = body
        self.params: Mapping[str, str] = {}
        self._alive = alive

    def header(self, name: str, default: str = "") -> str:
        """Return a header, whatever the case of its name."""
        value = self.headers.get(name)
        return str(value) if value is not None else default

    def json(self) -> object:
        """Return the body as JSON values, None for an empty one; Refused (400) where it is not JSON."""
        text = self.body.read()
        if not text.strip():
            return None
        try:
            value: object = json.loads(text)
        except ValueError as error:
            raise Refused(400, "InvalidJSON", f"the body is not JSON: {error}") from error
        return value

    def alive(self) -> bool:
        """Whether somebody still waits for the answer: what a long stream asks before it waits for more."""
        return self._alive()


def json_response(data: object, *, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Return an answer of JSON."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(status=status, headers=(("content-type", "application/json"), *headers), body=body)


def text_response(text: str, *, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Return an answer of plain text."""
    return Response(
        status=status, headers=(("content-type", "text/plain; charset=utf-8"), *headers), body=text.encode()
    )


def file_response(path: Path, request: Request, *, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Return a file, or the part of it that the request's ``range`` names; Refused (416) for a range outside of it."""
    size = path.stat().st_size
    ours = (("accept-ranges", "bytes"), *headers)
    wanted = request.header("range")
    if not wanted:
        return Response(headers=ours, body=FilePart(path=path, offset=0, length=size))
    start, end = span(wanted, size)
    part = FilePart(path=path, offset=start, length=end - start)
    return Response(status=206, headers=(*ours, ("content-range", f"bytes {start}-{end - 1}/{size}")), body=part)


def span(wanted: str, size: int) -> tuple[int, int]:
    """Return first byte and end of what a ``range`` header names of so many bytes; Refused (416) where that is none."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted.strip())
    if found is None or found[0].endswith("=-"):
        raise Refused(416, "InvalidRange", f"{wanted!r} is not one range of bytes")
    if not found[1]:
        start, end = max(0, size - int(found[2])), size
    else:
        start = int(found[1])
        end = min(size, int(found[2]) + 1) if found[2] else size
    if start >= end:
        raise Refused(
            416,
            "InvalidRange",
            f"{wanted!r} is outside of {size} bytes",
            headers=(("content-range", f"bytes */{size}"),),
        )
    return start, end
