"""The bytes of objects: files that are written once, checked against what their sender says, and never change."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import BinaryIO, Protocol

import attrs

from cloudtune.rehearsal.messages import CHUNK, Refused, Request

#: The largest body of one request, whole object or part.
MOST_BYTES = 50 << 30
_CASTAGNOLI = 0x82F63B78


@attrs.frozen(kw_only=True)
class Blob:
    """Bytes at rest. ``md5`` is in base64, ``sums`` are further checksums by the name of their header."""

    path: Path
    size: int
    md5: str
    sums: Mapping[str, str] = attrs.field(factory=dict)

    def open(self) -> BinaryIO:
        """Return the file; what is open can be read to its end, also when the object is gone meanwhile."""
        return self.path.open("rb")

    def forget(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


class Content:
    """A span of a blob as the body of an answer."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self._file, self._start, self._left = file, start, length

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self._start)
        while self._left and (piece := self._file.read(min(CHUNK, self._left))):
            self._left -= len(piece)
            yield piece

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Sum(Protocol):
    def update(self, data: bytes, /) -> object: ...

    def digest(self) -> bytes: ...


class _Crc32c:
    """CRC-32 by Castagnoli's polynomial, which no library of Python's own has."""

    def __init__(self) -> None:
        self._value = 0xFFFFFFFF

    def update(self, data: bytes, /) -> None:
        table, value = _crc_table(), self._value
        for byte in data:
            value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
        self._value = value

    def digest(self) -> bytes:
        return (self._value ^ 0xFFFFFFFF).to_bytes(4, "big")


@cache
def _crc_table() -> tuple[int, ...]:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ _CASTAGNOLI if value & 1 else value >> 1  # noqa: PLW2901 - bit by bit
        rows.append(value)
    return tuple(rows)


#: What a client may choose besides MD5, and how its header is called.
_ALGORITHMS: Mapping[str, tuple[str, Callable[[], _Sum]]] = {
    "CRC32C": ("opc-content-crc32c", _Crc32c),
    "SHA256": ("opc-content-sha256", hashlib.sha256),
    "SHA384": ("opc-content-sha384", hashlib.sha384),
}


def receive(request: Request, folder: Path) -> Blob:
    """Write the body of a request to a file; Refused, and no file is left, if it is not what its headers say."""
    length = request.header("content-length")
    if not length and "chunked" not in request.header("transfer-encoding").lower():
        raise Refused(411, "MissingContentLength", "The Content-Length header is required")
    if length.isdecimal() and int(length) > MOST_BYTES:
        raise Refused(400, "InvalidContentLength", f"The Content-Length must be at most {MOST_BYTES}")
    name, make = _ALGORITHMS.get(_algorithm(request), ("", hashlib.md5))
    md5 = hashlib.md5(usedforsecurity=False)
    further = make() if name else None

    def pieces() -> Iterator[bytes]:
        for piece in request.body:
            md5.update(piece)
            if further is not None:
                further.update(piece)
            yield piece

    path = write(pieces(), folder)
    try:
        found = _text(md5.digest())
        _compare("Content-MD5", "MD5", request.header("content-md5"), found)
        sums = {} if further is None else {name: _text(further.digest())}
        for header, value in sums.items():
            _compare(header, _algorithm(request), request.header(header), value)
    except BaseException:
        path.unlink()
        raise
    return Blob(path=path, size=request.body.length, md5=found, sums=sums)


def joined(blobs: Iterable[Blob], folder: Path) -> Blob:
    """Return one blob of several, in order."""
    blobs = tuple(blobs)

    def pieces() -> Iterator[bytes]:
        for blob in blobs:
            with blob.open() as file:
                while piece := file.read(1 << 20):
                    md5.update(piece)
                    yield piece

    md5 = hashlib.md5(usedforsecurity=False)
    path = write(pieces(), folder)
    return Blob(path=path, size=sum(blob.size for blob in blobs), md5=_text(md5.digest()))


def copied(blob: Blob, folder: Path) -> Blob:
    """Return the same bytes under a name of their own."""
    path = _fresh(folder)
    os.link(blob.path, path)
    return attrs.evolve(blob, path=path)


def taken(file: Path, folder: Path) -> Blob:
    """Return a blob of a file of this machine."""
    md5 = hashlib.md5(usedforsecurity=False)

    def pieces() -> Iterator[bytes]:
        with file.open("rb") as source:
            while piece := source.read(1 << 20):
                md5.update(piece)
                yield piece

    path = write(pieces(), folder)
    return Blob(path=path, size=path.stat().st_size, md5=_text(md5.digest()))


def write(pieces: Iterable[bytes], folder: Path) -> Path:
    """Write bytes to a new file of a folder; what is cut off leaves none."""
    path = _fresh(folder)
    try:
        with path.open("xb") as file:
            file.writelines(pieces)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def multipart_md5(blobs: Iterable[Blob]) -> str:
    """Return what the service has in place of MD5 for an object of parts: the MD5 of theirs, and how many they are."""
    sums = [base64.b64decode(blob.md5) for blob in blobs]
    return f"{_text(hashlib.md5(b''.join(sums), usedforsecurity=False).digest())}-{len(sums)}"


def _fresh(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / secrets.token_hex(16)


def _algorithm(request: Request) -> str:
    named = request.header("opc-checksum-algorithm")
    if named and named.upper() not in _ALGORITHMS:
        raise Refused(400, "InvalidParameter", f"opc-checksum-algorithm must be one of {', '.join(_ALGORITHMS)}")
    return named.upper()


def _compare(header: str, kind: str, given: str, found: str) -> None:
    if not given:
        return
    try:
        base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, f"InvalidContent{kind}", f"The value of the {header} header is not base64") from None
    if given != found:
        message = f"The computed {kind} of the request body ({found}) does not match the {header} header ({given})"
        raise Refused(400, f"UnmatchedContent{kind}", message)


def _text(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
