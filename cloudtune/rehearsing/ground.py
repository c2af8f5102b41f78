"""The folder of one rehearsal: nobody else's while its process lives, and removed at the end, or by the next one."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cloudtune import deployments
from cloudtune.backends import backend_named
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.home import home
from cloudtune.node import processes
from cloudtune.plan import Call
from cloudtune.runs import client_of
from cloudtune.store import Store

try:
    import fcntl
except ImportError as error:  # pragma: no cover - Windows
    hint = "run it on Linux, or in the Windows Subsystem for Linux"
    raise UsageError("a rehearsal runs nodes in namespaces of the Linux kernel", hint=hint) from error

#: Below a rehearsal's folder: what takes the place of the user's home of cloudtune; which temporary folder is its own.
HOME, IDENTITY = "home", "identity"
_LOCK = "lock"
#: Seconds for processes of this machine to end by themselves.
_END_S = 30.0
_LOOK_S = 0.05


def rehearsals() -> Path:
    """Return the folder of all rehearsals that go on."""
    return home() / "rehearsals"


@contextlib.contextmanager
def ground() -> Iterator[Path]:
    """Give a fresh folder, which is gone after the block with all that runs for it on this machine."""
    clear()
    rehearsals().mkdir(parents=True, exist_ok=True, mode=0o700)
    made = Path(tempfile.mkdtemp(prefix=".new-", dir=rehearsals()))
    with (made / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # only now others may find it: what they find unlocked they remove
        folder = made.rename(rehearsals() / f"r{made.name.removeprefix('.new-')}")
        try:
            yield folder
        finally:
            _remove(folder)


def clear() -> tuple[Path, ...]:
    """End and remove what rehearsals have left whose process is gone; return their folders."""
    gone = []
    for folder in sorted(rehearsals().glob("r*")):
        try:
            with (folder / _LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(folder, patience_s=0)  # its clouds are gone: who would end his run there waits in vain
        except FileNotFoundError:
            continue  # it has only begun, or has just gone
        except BlockingIOError:
            continue  # it goes on
        gone.append(folder)
    return tuple(gone)


def end_all(rehearsal: Path, *, patience_s: float = _END_S) -> None:
    """End what a rehearsal runs on this machine itself: drivers of pipelines, verbs that are steps, local servers."""
    place = rehearsal / HOME
    if not place.is_dir():
        return
    store, client = Store(place), client_of(backend_named("local"))
    for one in store.deployments():
        if one.backend == "local":
            with contextlib.suppress(CloudtuneError):
                deployments.take_down(one, store)
    # drivers first: they begin what comes next
    folders = sorted((place / "runs").glob("*"), key=lambda path: (path.name.count("-"), path.name))
    for folder in folders:
        given = {"runId": folder.name, "home": str(folder.parent)}
        with contextlib.suppress(CloudtuneError):
            client.send(Call(service="process", operation="stop", parameters=given))
    deadline = time.monotonic() + patience_s
    for folder in folders:
        while _is_alive(folder) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        if _is_alive(folder):
            processes.end_all(folder.name, grace_s=0)


def _is_alive(run: Path) -> bool:
    """Whether the process that drives a run of this machine lives: it holds the run's lock to its end."""
    try:
        with (run / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _remove(folder: Path, *, patience_s: float = _END_S) -> None:
    end_all(folder, patience_s=patience_s)
    with contextlib.suppress(OSError):
        identity = Path((folder / IDENTITY).read_text().strip())
        if identity.parent == Path(tempfile.gettempdir()) and identity.name.startswith("cloudtune-rehearsal-"):
            shutil.rmtree(identity, ignore_errors=True)
    _make_removable(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _make_removable(folder: Path) -> None:
    """Give back the right to remove what a job has made read-only."""
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.chmod(0o700)
