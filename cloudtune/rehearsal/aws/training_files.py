"""The files of a training job's nodes: from S3 before it begins, to S3 while it runs and at its end.

Source: the pages of SageMaker's developer guide on what it does with ``/opt/ml``.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.aws.borrowed import Borrowed
from cloudtune.rehearsal.aws.training_limits import bucket_and_key
from cloudtune.rehearsal.messages import Refused

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import AwsCloud


class Unrunnable(Exception):
    """The job fails for what it reads or writes; the text is its FailureReason."""


@contextlib.contextmanager
def _unrunnable(what: str) -> Iterator[None]:
    """Let a job fail where S3 or the files of this machine refuse something; ``what`` had to be done."""
    try:
        yield
    except (Refused, OSError, ValueError) as why:
        raise Unrunnable(f"ClientError: {what} failed:{why}") from why


@_unrunnable("Data download")
def fill_channel(cloud: AwsCloud, channel: Mapping[str, Any], folder: Path, *, host: int, hosts: int) -> None:
    """Put what a channel holds into a folder: all of it, or the part of one host."""
    if "FileSystemDataSource" in channel["DataSource"]:
        source = file_system(cloud, channel["DataSource"]["FileSystemDataSource"])
        shutil.copytree(source, folder, dirs_exist_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    given = channel["DataSource"]["S3DataSource"]
    found = list(_listed(cloud.borrowed, given))
    if given.get("S3DataDistributionType") == "ShardedByS3Key":
        found = found[host::hosts]
    for bucket, key, path in found:
        data = cloud.borrowed.get(bucket, key)
        if data is None:
            raise Unrunnable(f"ClientError: Data download failed:NoSuchKey (404): s3://{bucket}/{key} does not exist.")
        if channel.get("CompressionType") == "Gzip":
            try:
                data = gzip.decompress(data)
            except (OSError, EOFError, zlib.error) as why:
                message = f"s3://{bucket}/{key} cannot be decompressed: {why}"
                raise Unrunnable(f"ClientError: Data download failed:{message}") from why
        if not _write(folder, path, data):
            message = f"Cannot download s3://{bucket}/{key}, a previously downloaded file/folder clashes with it"
            raise Unrunnable(f"ClientError: Data download failed:Failed to download data. {message}")


def _write(folder: Path, path: str, data: bytes) -> bool:
    """Write a file below a folder; False where it would lie elsewhere, or where a file or folder is in its way."""
    place = folder / path
    if not place.resolve().is_relative_to(folder.resolve()):
        return False
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        return False
    return True


def _listed(borrowed: Borrowed, given: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield bucket, key and path in the channel of what an S3 data source names."""
    bucket, prefix = bucket_and_key(given["S3Uri"])
    if given["S3DataType"] == "ManifestFile":
        yield from _manifest(borrowed, bucket, prefix)
        return
    for each in borrowed.objects(bucket, prefix):
        below = each.key[len(prefix) :].lstrip("/")
        if each.key.endswith("/"):
            continue  # what stands for a folder
        yield bucket, each.key, below or each.key.rpartition("/")[2]


def _manifest(borrowed: Borrowed, bucket: str, key: str) -> list[tuple[str, str, str]]:
    """Return bucket, key and path in the channel of what a manifest names."""
    uri, data = f"s3://{bucket}/{key}", borrowed.get(bucket, key)
    if data is None:
        raise Unrunnable(f"ClientError: Data download failed:NoSuchKey (404): {uri} does not exist.")
    try:
        base, *names = json.loads(data)
        bucket, prefix = bucket_and_key(base["prefix"])
        return [(bucket, prefix + name, name) for name in names]
    except (Refused, ValueError, KeyError, TypeError) as why:
        message = f'{uri} is not a manifest: a JSON list of {{"prefix": "s3://..."}} and names of files'
        raise Unrunnable(f"ClientError: Data download failed:{message}") from why


def file_system(cloud: AwsCloud, given: Mapping[str, Any]) -> Path:
    """Return the folder of this machine that stands for a directory of a file system; it is made."""
    parts = [part for part in given["DirectoryPath"].split("/") if part not in {"", ".", ".."}]
    folder = cloud.stage.folder.joinpath("file-systems", given["FileSystemId"], *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Checkpoints:
    """One prefix of S3 and the checkpoint folders of the nodes, kept in step."""

    def __init__(self, borrowed: Borrowed, uri: str) -> None:
        self._borrowed = borrowed
        self.bucket, prefix = bucket_and_key(uri)
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        self._sent: dict[Path, tuple[int, int]] = {}

    @_unrunnable("Checkpoint download")
    def fetch(self, folder: Path) -> None:
        """Fill a node's folder with what is in S3, before it starts."""
        for each in self._borrowed.objects(self.bucket, self._prefix):
            place = folder / each.key[len(self._prefix) :]
            data = self._borrowed.get(self.bucket, each.key)
            if data is None or each.key.endswith("/") or not place.resolve().is_relative_to(folder.resolve()):
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            self._sent[place] = _stamp(place)

    @_unrunnable("Checkpoint upload")
    def send(self, folders: Sequence[Path], *, cut: bool = False) -> None:
        """Send what has changed in the nodes' folders since the last time; what is gone here stays in S3.

        The oldest files go first. Where it is ``cut``, only two thirds of them are sent.
        """
        changed = [(folder, place) for folder in folders for place in _files(folder) if self._changed(place)]
        changed.sort(key=lambda pair: (_modified(pair[1]), pair[1]))
        for folder, place in changed[: len(changed) * 2 // 3] if cut else changed:
            try:
                stamp = _stamp(place)
                with place.open("rb") as body:
                    self._borrowed.put(self.bucket, self._prefix + place.relative_to(folder).as_posix(), body)
                self._sent[place] = stamp
            except FileNotFoundError:
                continue  # the job has moved it meanwhile

    def _changed(self, place: Path) -> bool:
        try:
            return place.is_file() and self._sent.get(place) != _stamp(place)
        except FileNotFoundError:
            return False


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and below it; what goes away meanwhile is left out."""
    for above, _, names in os.walk(folder):
        yield from (Path(above, name) for name in names)


@_unrunnable("Artifact upload")
def send_results(cloud: AwsCloud, given: Mapping[str, Any], folders: list[Path], *, model: bool) -> str | None:
    """Send what the nodes left in ``model`` and ``output/data`` to S3; return where the model is, if it was sent.

    What several nodes wrote is put together; of files of the same name the last node's counts.
    """
    output = given["OutputDataConfig"]
    bucket, prefix = bucket_and_key(output["S3OutputPath"])
    base = "/".join(part for part in (prefix.strip("/"), given["TrainingJobName"], "output") if part)
    loose = output.get("CompressionType") == "NONE"
    for name, part, wanted in (("output/data", "output", True), ("model", "model", model)):
        files = _gathered([folder / name for folder in folders]) if wanted else {}
        if not files and not (wanted and part == "model"):
            continue
        if loose:
            for path, place in files.items():
                with place.open("rb") as body:
                    cloud.borrowed.put(bucket, f"{base}/{'data' if part == 'output' else part}/{path}", body)
        else:
            cloud.borrowed.put(bucket, f"{base}/{part}.tar.gz", _packed(files))
    return f"s3://{bucket}/{base}/{'model/' if loose else 'model.tar.gz'}" if model else None


def _gathered(folders: Iterable[Path]) -> dict[str, Path]:
    return {
        place.relative_to(folder).as_posix(): place
        for folder in folders
        for place in sorted(folder.rglob("*"))
        if place.is_file()
    }


def _packed(files: Mapping[str, Path]) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for path, place in files.items():
            archive.add(place, arcname=path)
    return packed


def _modified(place: Path) -> int:
    try:
        return place.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _stamp(place: Path) -> tuple[int, int]:
    facts = place.stat()
    return facts.st_mtime_ns, facts.st_size
