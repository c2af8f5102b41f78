"""This machine: Python, the home folder and its locks, disks, git, proxies, torch and GPUs."""

from __future__ import annotations

import ast
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata, util
from pathlib import Path
from typing import Any

from cloudtune import home
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.versions import satisfies
from cloudtune.node.accelerators import find_nvidia
from cloudtune.node.masks import shown

try:
    import fcntl
except ImportError:  # Windows, where only SQLite locks
    fcntl = None  # type: ignore[assignment]

_GB = 10**9
#: Free bytes below which records and code soon have no room, and below which they have none.
_LITTLE, _NONE = 5 * _GB, _GB // 5
_TIMEOUT_S = 10
_PROXIES = ("https_proxy", "http_proxy", "all_proxy", "no_proxy")
_BUNDLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
_NETWORK = re.compile(r"nfs\d?|cifs|smb3?|lustre|gpfs|fuse\..*|9p|afs|ceph|beegfs")


def check_python() -> Iterator[Finding]:
    """Look whether cloudtune supports this Python."""
    version = platform.python_version()
    try:
        wanted = metadata.metadata("cloudtune")["Requires-Python"] or ""
        own = metadata.version("cloudtune")
    except metadata.PackageNotFoundError:
        wanted, own = "", "(not installed)"
    said = f"Python {version} on {platform.system()} {platform.machine()}, cloudtune {own}, {sys.executable}"
    if satisfies(version, wanted) is False:
        hint = f"make an environment with Python {wanted}"
        yield Finding(check="python", status="problem", message=f"{said}: cloudtune wants {wanted}", hint=hint)
    else:
        yield Finding(check="python", status="ok", message=said)


def check_home() -> Iterator[Finding]:
    """Look whether records can be kept: the folder can be written, and the locks of its file system work."""
    folder = home.home()
    hint = "free it, mend its rights, or name another place: CLOUDTUNE_HOME"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as scratch:
            path = Path(scratch, "file")
            path.write_bytes(b"cloudtune")
            locks = _locks(path)
    except OSError as error:
        message = f"{folder} cannot be written: {error.strerror or error}"
        yield Finding(check="home", status="problem", message=message, hint=hint)
        return
    kind = _file_system(folder)
    said = f"{folder}" + (f" ({kind})" if kind else "")
    if locks is not None:
        hint = "name a folder of a local disk: CLOUDTUNE_HOME; on NFS, its lock service (lockd, or NFS 4) is missing"
        message = f"{said} can be written, but not locked: {locks}"
        yield Finding(check="home", status="problem", message=message, hint=hint)
        return
    yield Finding(check="home", status="ok", message=f"{said} can be written and locked")


def _locks(path: Path) -> str | None:
    """Return what is wrong with the locks of a file system: flock, by which runs are known to live, and SQLite's."""
    if fcntl is None:
        return None
    with path.open("r+b") as first, path.open("r+b") as second:
        try:
            fcntl.lockf(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.strerror or str(error)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
    # some file systems grant every lock to everybody
    return "a lock that is held can be taken a second time"


def _file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """Return the kind of a network file system, None for a disk of this machine or where nobody tells (not Linux)."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return None
    real = os.path.realpath(folder)
    places = {line[1]: line[2] for line in lines if len(line) > 2 and f"{real}/".startswith(f"{line[1].rstrip('/')}/")}
    kind = places[max(places, key=len)] if places else ""
    return kind if _NETWORK.fullmatch(kind) else None


def check_disk() -> Iterator[Finding]:
    """Look whether there is room for records, packed code and temporary files."""
    for name, folder in (("home", home.home()), ("temporary files", Path(tempfile.gettempdir()))):
        near = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(near).free
        status = "problem" if free < _NONE else "warning" if free < _LITTLE else "ok"
        hint = {"ok": "", "warning": "a model or an archive may not fit"}.get(status, "free some space")
        message = f"{free / _GB:.1f} GB are free at {near} ({name})"
        yield Finding(check="disk", status=status, message=message, hint=hint)


def check_git() -> Iterator[Finding]:
    """Look for git, which says what belongs to the code of a job."""
    said = _output(["git", "--version"])
    if said is None:
        hint = "install git: without it, .gitignore is read by cloudtune alone and no commit is recorded"
        yield Finding(check="git", status="warning", message="git is not installed", hint=hint)
    else:
        yield Finding(check="git", status="ok", message=said.strip())


def check_proxies(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at variables that lead requests elsewhere, or have them trust others."""
    names = {name for name in environ if name.lower() in _PROXIES and environ[name]}
    for name in sorted(names):
        twin = name.lower() if name.isupper() else name.upper()
        if name.isupper() and environ.get(twin, environ[name]) != environ[name]:
            message = f"{name} and {twin} are not the same: some programs read the one, some the other"
            yield Finding(check="proxy", status="warning", message=message, hint="make them the same")
    if names - {"no_proxy", "NO_PROXY"}:
        said = ", ".join(f"{name}={_without_password(environ[name])}" for name in sorted(names))
        hint = "the services' own addresses, and 169.254.169.254 for instance principals, may have to be in NO_PROXY"
        yield Finding(check="proxy", status="ok", message=f"requests go by a proxy: {said}", hint=hint)
    for name in _BUNDLES:
        if environ.get(name) and not Path(environ[name]).exists():
            message = f"{name} names {environ[name]}, which does not exist: no service can be trusted"
            yield Finding(check="proxy", status="problem", message=message, hint=f"unset {name}, or mend it")


def _without_password(proxy: str) -> str:
    """Return a proxy's address as it may be shown; many programs take one that says no scheme."""
    scheme = "" if "://" in proxy else "http://"
    return shown(f"{scheme}{proxy}").removeprefix(scheme)


def check_accelerators(find: Callable[[str], Any] = util.find_spec) -> Iterator[Finding]:
    """Look for GPUs, for torch, and whether they fit together; torch is found, and not imported."""
    gpus, torch = find_nvidia(), torch_build(find)
    here = f"{gpus.number} x {gpus.name or 'NVIDIA GPU'}" if gpus.number else "no NVIDIA GPU is seen here"
    if torch is None:
        hint = 'pip install "cloudtune[local]" to train and serve here'
        yield Finding(check="torch", status="ok", message=f"torch is not installed; {here}", hint=hint)
        return
    cuda = torch.get("cuda")
    build = f"torch {torch.get('__version__')} for " + (f"CUDA {cuda}" if cuda else _else(torch))
    said = f"{build}; {here}"
    driver = _driver_cuda() if gpus.number else None
    if gpus.number and not cuda:
        hint = "install a build of torch for CUDA, or train on the CPU knowingly"
        yield Finding(check="torch", status="warning", message=f"{said}, which this build cannot use", hint=hint)
    elif driver is not None and cuda and int(driver.partition(".")[0]) < int(cuda.partition(".")[0]):
        hint = "update the driver, or install a build of torch for an older CUDA"
        message = f"{said}, whose driver knows CUDA {driver} at most"
        yield Finding(check="torch", status="problem", message=message, hint=hint)
    else:
        yield Finding(check="torch", status="ok", message=said)


def torch_build(find: Callable[[str], Any]) -> dict[str, str | None] | None:
    """Return torch's version and what it was built for, as its own version.py says it; None if it is not installed."""
    spec = find("torch")
    places = list(getattr(spec, "submodule_search_locations", None) or ())
    file = Path(places[0], "version.py") if places else Path()
    if not file.is_file():
        return None
    found: dict[str, str | None] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or not isinstance(node.value, ast.Constant):
            continue
        value = None if node.value.value is None else str(node.value.value)
        for target in node.targets if isinstance(node, ast.Assign) else (node.target,):
            if isinstance(target, ast.Name):
                found[target.id] = value
    return found


def _else(torch: Mapping[str, str | None]) -> str:
    return f"ROCm {torch['hip']}" if torch.get("hip") else "CPUs"


def _driver_cuda() -> str | None:
    """Return the newest CUDA that the driver knows."""
    found = re.search(r"CUDA Version: (\d+\.\d+)", _output(["nvidia-smi"]) or "")
    return found[1] if found else None


def _output(argv: list[str]) -> str | None:
    """Return what a program prints, None if there is none or it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
