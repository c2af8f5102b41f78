"""Files from and to URIs: local ones by the standard library, all others by fsspec in a process of its own.

That process, the courier, runs in the image's Python if it has fsspec and the scheme's driver, else in a private
environment into which they are installed; never in the user's own packages.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cloudtune.node import processes
from cloudtune.node.errors import NodeError
from cloudtune.node.masks import shown
from cloudtune.node.uris import local_path, scheme_of

#: Schemes -> (module, requirement for pip). s3fs has a floor: unpinned beside a new boto3 pip would choose one of 2020.
DRIVERS = {
    "s3": ("s3fs", "s3fs>=2025.3"),
    "s3a": ("s3fs", "s3fs>=2025.3"),
    "oci": ("ocifs", "ocifs>=1.3"),
    "gs": ("gcsfs", "gcsfs>=2024.6"),
    "gcs": ("gcsfs", "gcsfs>=2024.6"),
    "abfs": ("adlfs", "adlfs>=2024.4"),
    "abfss": ("adlfs", "adlfs>=2024.4"),
    "az": ("adlfs", "adlfs>=2024.4"),
    "hf": ("huggingface_hub", "huggingface_hub>=0.25"),
}
#: Releases of fsspec and its drivers that still run on Python 3.9; newer ones do not say so everywhere.
OLD_PYTHON_LIMIT = "<2026"
#: Seconds in which a courier that is not needed any more should end.
_PATIENCE_S = 5

# what copy_file_range answers between file systems, or where it is not supported
_NOT_THERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)
_VARIABLE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")


def expand(uri: str, variables: Mapping[str, str]) -> str:
    """Return the URI with ``$NAME`` and ``${NAME}`` filled in; unknown names stay, and ``$$`` is a dollar sign."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1] or match[2], match[0])

    return _VARIABLE.sub(value, uri)


def requirements(scheme: str, version: Sequence[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the modules that a scheme needs, and what pip installs for them under that version of Python."""
    if scheme not in DRIVERS:
        return ("fsspec",), (_dated("fsspec>=2024.6", version),)
    module, driver = DRIVERS[scheme]
    return ("fsspec", module), (_dated("fsspec>=2024.6", version), _dated(driver, version))


def _dated(requirement: str, version: Sequence[int]) -> str:
    dated = re.search(r">=20\d\d", requirement)
    return f"{requirement},{OLD_PYTHON_LIMIT}" if dated and tuple(version[:2]) < (3, 10) else requirement


def copy_file(source: Path, target: Path) -> None:
    """Copy a file under another name first, then rename it: whoever looks finds the old content or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name[:200]}.part-{os.getpid()}")
    try:
        _copy_content(source, draft)
        shutil.copystat(source, draft)
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _copy_content(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        if hasattr(os, "copy_file_range"):  # file systems that share blocks copy nothing
            try:
                while os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 30):
                    pass
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    raise
            else:
                if reader.tell() == writer.tell() and reader.read(1) == b"":
                    return
            reader.seek(0)
            writer.seek(0)
            writer.truncate()
        shutil.copyfileobj(reader, writer, 1 << 20)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a file to a path, or a folder's content below it."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for child in source.iterdir():
            copy_tree(child, target / child.name)
    else:
        copy_file(source, target)


class Courier:
    """The process that carries files by fsspec; started at the first request, and again if it has died."""

    def __init__(
        self, environment: Callable[[str], str], *, archive: str, variables: Mapping[str, str], errors: Path
    ) -> None:
        self._environment = environment
        self._archive = archive
        self._variables = dict(variables)
        self._errors = errors
        self._lock = threading.Lock()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def ask(self, scheme: str, **request: Any) -> None:
        """Have a request carried out; raises NodeError with the courier's own words."""
        with self._lock:
            python = self._environment(scheme)
            # every request may be sent twice: one that died of something else is given a second chance
            answer = self._converse(python, request) or self._converse(python, request)
        if not answer:
            raise NodeError(f"the process that carries files died: {self._last_words()}")
        reply = json.loads(answer)
        if not reply.get("ok"):
            raise NodeError(shown(str(reply.get("error"))))

    def _converse(self, python: str, request: Mapping[str, Any]) -> bytes:
        """Return the answer to a request, b"" if the process died over it."""
        process = self._processes.get(python)
        if process is None:
            process = self._processes[python] = self._start(python)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = b""
        if not answer:
            _end(self._processes.pop(python))
        return answer

    def pids(self) -> set[int]:
        """Return the pids of the couriers, which must outlive the job's own processes."""
        return {process.pid for process in self._processes.values()}

    def close(self) -> None:
        """End the couriers."""
        for process in self._processes.values():
            _end(process)
        self._processes.clear()

    def _start(self, python: str) -> subprocess.Popen[bytes]:
        with self._errors.open("ab") as errors:
            return processes.start(
                [python, "-I", self._archive, "courier"],
                env=self._variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # what ends the job's processes by group must not end this one
            )

    def _last_words(self) -> str:
        try:
            lines = self._errors.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else "no reason given"


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                pass  # what was still to be written has nobody to read it
    try:
        process.wait(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    processes.forget(process)


def image_has(python: str, modules: Sequence[str], variables: Mapping[str, str]) -> bool:
    """Whether an interpreter finds all modules, without importing them."""
    check = "import sys, importlib.util as u; sys.exit(not all(u.find_spec(name) for name in sys.argv[1:]))"
    command = [python, "-I", "-c", check, *modules]
    try:
        return subprocess.run(command, env=dict(variables), capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def python_version(python: str) -> tuple[int, int]:
    """Return major and minor version of an interpreter; this one's own if it does not say."""
    if python == sys.executable:
        return sys.version_info[0], sys.version_info[1]
    command = [python, "-I", "-S", "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        major, minor = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return sys.version_info[0], sys.version_info[1]


def fetch_input(uri: str, target: Path, courier: Callable[[], Courier]) -> None:
    """Fetch a URI: a file to the target (below it, if it is a folder), a folder's content below the target."""
    source = local_path(uri)
    problem: str | None = None
    try:
        if source is None:
            target.parent.mkdir(parents=True, exist_ok=True)
            courier().ask(scheme_of(uri), do="get", uri=uri, to=str(target), into=target.is_dir())
        elif source.is_dir():
            copy_tree(source, target)
        elif source.exists():
            copy_file(source, target / source.name if target.is_dir() else target)
        else:
            problem = "there is no such file or folder on this node"
    except OSError as error:
        problem = error.strerror or str(error)
    except NodeError as error:
        problem = str(error)
    if problem:
        raise NodeError(f"cannot fetch {shown(uri)} to {target}: {problem}")
