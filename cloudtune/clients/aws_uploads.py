"""What a step sends to S3: one object, or below one prefix the files of a plan, each as it was planned."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import attrs

from cloudtune.errors import CloudtuneError
from cloudtune.plan import File
from cloudtune.workspace import pack

#: Files below it travel as one archive, which keeps links and executable bits.
_CODE = "code/"
_ARCHIVE = "code.tar.gz"
_CHUNK = 1 << 20


def upload(put: Callable[..., Any], parameters: dict[str, Any], files: tuple[File, ...]) -> dict[str, Any]:
    """Put files with the SDK's ``put_object``; return the reply to the last.

    A ``Key`` that ends with a slash is a prefix: each file goes below it under its own path, code as an archive. One
    whose last part is ``code.tar.gz`` is that archive, unless the only file is one already.

    Raises:
        CloudtuneError: a file is not what it was when the plan was made, or cannot be read.
    """
    key, reply = str(parameters["Key"]), {}
    name = key.rpartition("/")[2]
    if name == _ARCHIVE and [file.path for file in files] != [name]:
        with _packed(files) as body:
            return dict(put(**{**parameters, "Body": body}))
    if name:
        if len(files) != 1:
            raise CloudtuneError(f"{len(files)} files cannot be one object {key}", hint="end the key with a slash")
        with opened(files[0]) as body:
            return dict(put(**{**parameters, "Body": body}))
    code = tuple(file for file in files if file.path.startswith(_CODE))
    for file in files:
        if file not in code:
            with opened(file) as body:
                reply = put(**{**parameters, "Key": key + file.path, "Body": body})
    if code:
        with _packed(code) as body:
            reply = put(**{**parameters, "Key": key + _ARCHIVE, "Body": body})
    return dict(reply)


def check(files: tuple[File, ...]) -> None:
    """Raise CloudtuneError if a file has changed since it was planned, or is gone."""
    for file in files:
        if file.link is None:
            for _ in chunks(file):
                pass


def opened(file: File) -> IO[bytes]:
    """Return a temporary copy of a file, checked while it was made."""
    made = tempfile.TemporaryFile(prefix="cloudtune-upload-")  # noqa: SIM115 - the caller closes it
    try:
        made.writelines(chunks(file))
    except BaseException:
        made.close()
        raise
    made.seek(0)
    return made


def _packed(code: tuple[File, ...]) -> IO[bytes]:
    made = tempfile.TemporaryFile(prefix="cloudtune-code-")  # noqa: SIM115 - the caller closes it
    try:
        pack([attrs.evolve(file, path=file.path.removeprefix(_CODE)) for file in code], made)
    except BaseException:
        made.close()
        raise
    made.seek(0)
    return made


def chunks(file: File) -> Iterator[bytes]:
    """Yield a file's bytes; raises CloudtuneError behind them if they are not those of the plan."""
    if file.content is not None:
        yield file.content
        return
    assert file.source is not None
    total, size = hashlib.sha256(), 0
    try:
        with Path(file.source).open("rb") as content:
            while chunk := content.read(_CHUNK):
                total.update(chunk)
                size += len(chunk)
                yield chunk
    except OSError as error:
        raise CloudtuneError(f"{file.source} cannot be read: {error.strerror}", hint="run it again") from error
    if size != file.bytes or total.hexdigest() != file.sha256:
        raise CloudtuneError(f"{file.source} has changed since the plan was made", hint="run it again")
