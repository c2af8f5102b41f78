"""The artifact of an OCI job: one file as it is, or a zip of several, checked against the plan while it is made."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import attrs

from cloudtune.errors import CloudtuneError
from cloudtune.plan import File
from cloudtune.workspace import pack

#: Code travels as an archive in the archive, which keeps links and executable bits.
_CODE = "code/"
_CHUNK = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)


def artifact(files: tuple[File, ...]) -> IO[bytes]:
    """Return an open temporary file with what is uploaded; the same files give the same bytes.

    Raises:
        CloudtuneError: a file is not what it was when the plan was made, or the disk is full.
    """
    made = tempfile.TemporaryFile(prefix="cloudtune-artifact-")  # noqa: SIM115 - the caller closes it
    try:
        if len(files) == 1 and files[0].content is None and not files[0].path.startswith(_CODE):
            for chunk in _chunks(files[0]):
                made.write(chunk)
        else:
            _zip(files, made)
    except OSError as error:
        made.close()
        raise CloudtuneError(f"the job's artifact cannot be made: {error}", hint="is the disk full?") from error
    except BaseException:
        made.close()
        raise
    made.seek(0)
    return made


def _zip(files: tuple[File, ...], target: IO[bytes]) -> None:
    code = [file for file in files if file.path.startswith(_CODE)]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((one for one in files if one not in code), key=lambda one: one.path):
            with archive.open(_entry(file.path, executable=file.executable), "w", force_zip64=True) as entry:
                for chunk in _chunks(file):
                    entry.write(chunk)
        if code:
            with tempfile.TemporaryFile(prefix="cloudtune-code-") as packed:
                pack([_inside(file) for file in code], packed)
                packed.seek(0)
                entry_info = _entry("code.tar.gz", executable=False, stored=True)
                with archive.open(entry_info, "w", force_zip64=True) as entry:
                    shutil.copyfileobj(packed, entry, _CHUNK)


def _entry(path: str, *, executable: bool, stored: bool = False) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(path, _EPOCH)
    info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    info.external_attr = (0o755 if executable else 0o644) << 16
    return info


def _inside(file: File) -> File:
    return attrs.evolve(file, path=file.path.removeprefix(_CODE))


def _chunks(file: File) -> Iterator[bytes]:
    """Yield a file's bytes; raises CloudtuneError behind them if they are not those of the plan."""
    total, size = hashlib.sha256(), 0
    if file.content is not None:
        yield file.content
        return
    assert file.source is not None
    with Path(file.source).open("rb") as content:
        while chunk := content.read(_CHUNK):
            total.update(chunk)
            size += len(chunk)
            yield chunk
    if size != file.bytes or total.hexdigest() != file.sha256:
        raise CloudtuneError(f"{file.source} has changed since the plan was made", hint="run it again")
