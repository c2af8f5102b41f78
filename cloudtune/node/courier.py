"""The courier: carries files between this node and any URI that fsspec knows, asked line by line over its stdin.

It runs in an environment that has fsspec and a driver; ``http`` and ``https`` are read by the standard library.
"""

from __future__ import annotations

import base64
import http.client
import importlib
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

# a file appears in these under its name only when all of it has arrived
_WHOLE_OBJECTS = ("s3", "s3a", "oci", "gs", "gcs", "abfs", "abfss", "az", "adl", "hf", "memory")
_TRIES = 4
#: Seconds before the second try; each pause is twice the one before.
FIRST_PAUSE_S = 0.5
_BATCH = 64
#: Errors of AWS's libraries, and of OCI's, that say nothing but that there are no keys.
_NO_AWS_KEYS = ("NoCredentialsError", "PartialCredentialsError")
_NO_OCI_KEYS = ("ConfigFileNotFound",)
#: What is to be done when nothing more is asked for, by scheme.
_at_the_end: dict[str, Callable[[], None]] = {}


def serve() -> int:
    """Carry out requests, one JSON object a line, and answer each with a line; ends with the input."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    for line in requests:
        try:
            carry_out(json.loads(line))
        except Exception as error:  # noqa: BLE001 - whatever the driver raises, the agent is told
            words = " ".join(str(error).split()) or "no reason given"
            name = type(error).__name__
            answer: dict[str, Any] = {"ok": False, "error": f"{name}: {words}{_advice(name)}"}
        else:
            answer = {"ok": True}
        _answer(answers, answer)
    for deed in _at_the_end.values():
        deed()
    return 0


def _advice(name: str) -> str:
    """Return what to do where a library has no keys."""
    place = os.environ.get("CLOUDTUNE_PLACE", "local")
    if name in _NO_OCI_KEYS and place == "local":
        return "; sign in to OCI on this machine: oci setup config"
    if name in _NO_OCI_KEYS and place != "oci":
        return "; only jobs of OCI have keys for oci:// given to them: use storage of the place that the job runs in"
    if name not in _NO_AWS_KEYS:
        return ""
    if place == "local":
        return "; sign in to AWS on this machine: aws configure, or aws sso login"
    return (
        "; the job needs a role of AWS (roleArn on SageMaker, serviceAccount on a cluster), or AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY as secrets in its env"
    )


def _answer(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")


def carry_out(request: dict[str, Any]) -> None:
    """Carry out one request: get, put or remove."""
    deed, uri = request["do"], request["uri"]
    if uri.lower().startswith(("http://", "https://")):
        if deed != "get":
            raise ValueError("files can be read from http and https, but not written there")
        _download(uri, Path(request["to"]), into=bool(request.get("into")))
    elif deed == "get":
        _get(uri, Path(request["to"]), into=bool(request.get("into")))
    elif deed == "put":
        _put(Path(request["from"]), uri)
    elif deed == "remove":
        _remove(uri)
    else:
        raise ValueError(f"unknown request {deed!r}")


def _files(uri: str) -> tuple[Any, str]:
    fsspec: Any = importlib.import_module("fsspec")
    files, path = fsspec.core.url_to_fs(uri)
    files.invalidate_cache()
    return files, path


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _is_oci(files: Any) -> bool:
    return "oci" in _protocols(files)


def _objects() -> Any:
    """Return the module for objects of OCI, which most nodes do not need."""
    return importlib.import_module("cloudtune.node.objects")


def _get(uri: str, target: Path, *, into: bool) -> None:
    files, path = _files(uri)
    path = path.rstrip("/")
    if files.isfile(path):
        _get_file(files, path, target / path.rpartition("/")[2] if into else target)
        return
    found = [name for name in files.find(path) if not name.endswith("/")]
    if not found:
        raise FileNotFoundError(f"nothing is at {uri}")
    start = path.lstrip("/") + "/"
    pairs = [(name, target / name.lstrip("/")[len(start) :]) for name in found]
    for begin in range(0, len(pairs), _BATCH):
        batch = pairs[begin : begin + _BATCH]
        for _, to in batch:
            to.parent.mkdir(parents=True, exist_ok=True)
        if _is_oci(files):
            for name, to in batch:
                _get_file(files, name, to)
            continue
        # two lists of equal length: nothing is expanded, and drivers fetch several at once
        files.get([name for name, _ in batch], [str(to) for _, to in batch])


def _get_file(files: Any, path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name[:200]}.part-{os.getpid()}")
    try:
        if _is_oci(files):
            _objects().get(files, path, draft)
        else:
            files.get_file(path, str(draft))
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _put(source: Path, uri: str) -> None:
    files, path = _files(uri)
    if _is_oci(files):
        _at_the_end["oci"] = lambda: _objects().forget(files.oci_client)
        _objects().put(files, source, path)
        return
    if any(name in _WHOLE_OBJECTS for name in _protocols(files)):
        files.put_file(str(source), path)
        return
    folder, _, name = path.rpartition("/")
    if folder:
        files.makedirs(folder, exist_ok=True)
    draft = f"{folder}/.{name}.part-{os.getpid()}"
    files.put_file(str(source), draft)
    if files.exists(path):
        files.rm_file(path)  # not every file system renames over a file
    files.mv(draft, path)


def _remove(uri: str) -> None:
    files, path = _files(uri)
    try:
        files.rm_file(path)
    except NotImplementedError:  # ocifs 1.3 has only what removes folders too, and expands no pattern there
        files.rm(path)


def _download(url: str, target: Path, *, into: bool) -> None:
    if into:
        target = target / (urllib.parse.urlsplit(url).path.rstrip("/").rpartition("/")[2] or "index")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name[:200]}.part-{os.getpid()}")
    try:
        for attempt in range(_TRIES):
            try:
                with draft.open("wb") as file:
                    _read(url, file)
            except urllib.error.HTTPError as error:
                if (error.code < 500 and error.code not in (408, 429)) or attempt == _TRIES - 1:
                    raise
            except (OSError, http.client.HTTPException):
                if attempt == _TRIES - 1:
                    raise
            else:
                draft.replace(target)
                return
            time.sleep(FIRST_PAUSE_S * 2**attempt)
    finally:
        draft.unlink(missing_ok=True)


def _read(url: str, file: BinaryIO) -> None:
    with urllib.request.urlopen(_request(url), timeout=60) as answer:  # noqa: S310 - http and https alone come here
        expected = answer.headers.get("Content-Length")
        arrived = 0
        while True:
            block = answer.read(1 << 20)
            if not block:
                break
            file.write(block)
            arrived += len(block)
    if expected is not None and int(expected) != arrived:
        raise OSError(f"{arrived} of {expected} bytes arrived")


def _request(url: str) -> urllib.request.Request:
    """Return the request for a URL, which may hold user and password; no server that it leads to is told them."""
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=host)))  # noqa: S310
    if at:
        name, _, password = user.partition(":")
        words = f"{urllib.parse.unquote(name)}:{urllib.parse.unquote(password)}"
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(words.encode()).decode())
    return request
