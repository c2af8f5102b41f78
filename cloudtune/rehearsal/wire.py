"""Bodies on the wire: read by length or in chunks as far as they are wanted, sent whole, in chunks, or cut short."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from email.message import Message
from typing import BinaryIO

from cloudtune.rehearsal.messages import CHUNK, FilePart, Response

#: Of a body that nobody wanted, so much is read for the sake of the next request on the connection.
_DRAIN_BYTES = 1 << 30
_MOST_LINE = 1 << 16
_BODILESS = (204, 304)


class Cut(ConnectionError):
    """The connection is to be closed here: a fault wants it so, or what came could not be read."""


class BodyReader:
    """The body of one request on a connection.

    ``go_on`` is called before the first read where the client waits for ``100 Continue``.
    """

    def __init__(self, file: BinaryIO, headers: Message, *, go_on: Callable[[], None] | None) -> None:
        self._file = file
        self._go_on = go_on
        self._chunked = "chunked" in str(headers.get("transfer-encoding", "")).lower()
        length = str(headers.get("content-length") or "0")
        self._left = int(length) if length.isdecimal() else -1
        if self._chunked:
            self._left = 0  # of the chunk that is being read
        self._over = not self._chunked and self._left == 0

    def read(self, count: int) -> bytes:
        """Return up to so many bytes, none at the end; Cut where the client broke off or sent nonsense."""
        if self._over:
            return b""
        if self._left < 0:
            raise Cut("content-length is not a number")
        if self._go_on is not None:
            self._go_on()
            self._go_on = None
        if self._chunked and not self._left and not self._next_chunk():
            return b""
        data = self._file.read(min(count, self._left))
        if not data:
            raise Cut("the client broke off")
        self._left -= len(data)
        if self._chunked and not self._left:
            self._file.readline(_MOST_LINE)
        self._over = not self._chunked and not self._left
        return data

    @property
    def must_close(self) -> bool:
        """Whether no other request can follow on this connection, because what is left cannot be read."""
        if self._over:
            return False
        # a client that waits for leave to send the rest may send it all the same
        return self._go_on is not None or not 0 <= self._left <= _DRAIN_BYTES

    def drain(self) -> bool:
        """Read what is left, so that another request can follow; False if that cannot be."""
        if self.must_close:
            return False
        left = _DRAIN_BYTES
        while left > 0 and (piece := self.read(CHUNK)):
            left -= len(piece)
        return self._over

    def _next_chunk(self) -> bool:
        size = self._file.readline(_MOST_LINE).partition(b";")[0].strip()
        try:
            self._left = int(size, 16)
        except ValueError:
            raise Cut(f"{size!r} is not the size of a chunk") from None
        if self._left:
            return True
        while self._file.readline(_MOST_LINE).strip():  # trailers
            pass
        self._over = True
        return False


class Sending:
    """One response on its way: its framing, and where it is cut if a fault says so.

    ``cut`` is None for a whole response, else the bytes of the body that are sent, -1 for about half.
    """

    def __init__(self, response: Response, *, head_only: bool, chunks: bool, cut: int | None) -> None:
        self.response = response
        body = response.body
        given = [int(value) for name, value in response.headers if name.lower() == "content-length"]
        self.length = given[0] if given else _length(body)
        self.has_body = not head_only and response.status not in _BODILESS
        self.chunked = self.has_body and self.length is None and chunks
        #: Nothing but the end of the connection says where the body ends.
        self.until_close = self.has_body and self.length is None and not chunks
        self.limit = cut
        if cut == -1:
            self.limit = self.length // 2 if self.length is not None else None
        self.after_first = cut == -1 and self.length is None
        self.framing: list[tuple[str, str]] = []
        if self.chunked:
            self.framing.append(("transfer-encoding", "chunked"))
        elif self.length is not None and not given and response.status not in _BODILESS:
            self.framing.append(("content-length", str(self.length)))

    @property
    def nothing_to_cut(self) -> bool:
        """Whether the response is to be cut but has no body: then the client is given nothing at all."""
        return (self.limit is not None or self.after_first) and (not self.has_body or self.length == 0)

    def pieces(self, alive: Callable[[], bool]) -> Iterator[bytes]:
        """Return the body as it goes over the wire; Cut where it must end early."""
        sent = 0
        for piece in _pieces(self.response.body):
            if not piece:
                if not alive():
                    raise Cut("nobody waits for more")
                continue
            kept = piece if self.limit is None else piece[: max(0, self.limit - sent)]
            sent += len(kept)
            cut = len(kept) < len(piece)
            if self.chunked:
                yield b"%x\r\n" % len(piece) + kept + (b"" if cut else b"\r\n")
            else:
                yield kept
            if cut or self.after_first or (self.limit is not None and sent >= self.limit and self.length is None):
                raise Cut("a fault")
        if self.chunked:
            yield b"0\r\n\r\n"
        elif self.length is not None and sent < self.length:
            raise Cut("the handler gave less than it promised")

    def close(self) -> None:
        """Let a generator clean up."""
        close = getattr(self.response.body, "close", None)
        if close is not None:
            close()


def _length(body: bytes | FilePart | Iterable[bytes]) -> int | None:
    if isinstance(body, bytes):
        return len(body)
    return body.length if isinstance(body, FilePart) else None


def _pieces(body: bytes | FilePart | Iterable[bytes]) -> Iterator[bytes]:
    if isinstance(body, bytes):
        yield body
        return
    if not isinstance(body, FilePart):
        yield from body
        return
    with body.path.open("rb") as file:
        offset, end = body.offset, body.offset + body.length
        while offset < end:
            piece = os.pread(file.fileno(), min(CHUNK, end - offset), offset)
            if not piece:
                return
            offset += len(piece)
            yield piece
