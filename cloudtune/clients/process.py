"""Carries out the calls of the local backend: folders, a supervisor process, files. Linux and macOS."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cloudtune.errors import CloudtuneError, RunNotFound, ServiceError
from cloudtune.home import home, runs_folder
from cloudtune.node import processes
from cloudtune.node.pack import agent_bytes
from cloudtune.node.report import write_json
from cloudtune.plan import Call, File
from cloudtune.workspace import pack

try:
    import fcntl
except ImportError as error:  # pragma: no cover - Windows
    raise CloudtuneError("local runs need Linux or macOS", hint="name a cloud: --infrastructure PROFILE") from error

#: Seconds that a supervisor may take from its start to its first word.
START_S = 60.0
#: Seconds that a supervisor may take from its result to its end.
LET_GO_S = 10.0
#: Bytes of one node's log in one reply.
CHUNK = 1 << 20
#: Variables of a surrounding torchrun, job or notebook that would mislead a node.
LEFTOVERS = (
    "PET_",
    "CLOUDTUNE_NODE",
    "CLOUDTUNE_NUM",
    "CLOUDTUNE_MAIN",
    "CLOUDTUNE_LOCAL",
    "CLOUDTUNE_STEP_",
    "TORCHELASTIC_",
)
RANKS = {
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "NODE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
}


class ProcessClient:
    """The client of service ``process``; see :class:`cloudtune.submit.Client`."""

    def send(self, call: Call, *, token: str | None = None, files: tuple[File, ...] = ()) -> Mapping[str, Any]:
        """Carry out ``stage``, ``start``, ``stop``, ``reset`` or ``remove``; each is harmless when sent twice."""
        folder = _folder(call.parameters)
        deeds: dict[str, Callable[[Path, Mapping[str, Any]], Mapping[str, Any]]] = {
            "stage": lambda folder, parameters: _stage(folder, parameters, files),
            "start": _start,
            "stop": _stop,
            "remove": _remove,
            "reset": _reset,
        }
        try:
            return deeds[call.operation](folder, call.parameters)
        except OSError as error:
            hint = _disk_hint(error)
            raise ServiceError(str(error), service="process", operation=call.operation, hint=hint) from error

    def read(self, call: Call) -> Mapping[str, Any]:
        """Carry out ``describe`` or ``read_logs``."""
        folder = _folder(call.parameters)
        try:
            return _describe(folder) if call.operation == "describe" else _read_logs(folder, call.parameters)
        except FileNotFoundError as error:
            raise RunNotFound(
                f"run {folder.name} was removed meanwhile", hint="cloudtune list shows all runs"
            ) from error
        except OSError as error:
            hint = _disk_hint(error)
            raise ServiceError(str(error), service="process", operation=call.operation, hint=hint) from error


def _folder(parameters: Mapping[str, Any]) -> Path:
    scope = parameters.get("home")
    return (Path(scope) if scope else runs_folder()) / str(parameters["runId"])


def _stage(folder: Path, parameters: Mapping[str, Any], files: tuple[File, ...]) -> Mapping[str, Any]:
    order = parameters.get("order")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if parameters.get("archive"):
        shutil.copyfile(str(files[0].source), folder / "code.tar.gz")  # the node looks at the bytes, not the name
    elif files:
        pack(files, folder / "code.tar.gz")
    if order is not None:
        (folder / "agent.pyz").write_bytes(agent_bytes(compiled=True))
        write_json(folder / "order.json", order)
    run = {"runId": parameters["runId"], "nodes": parameters["nodes"]}
    write_json(folder / "run.json", {**run, "python": parameters["python"] or sys.executable})
    return {"runId": parameters["runId"], "folder": str(folder)}


def _start(folder: Path, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    reply = {"runId": parameters["runId"], "folder": str(folder)}
    if (folder / "state.json").exists() or (folder / "result.json").exists():
        return reply
    environment = {k: v for k, v in os.environ.items() if not k.startswith(LEFTOVERS) and k not in RANKS}
    environment |= {**parameters.get("environment", {}), "CLOUDTUNE_HOME": str(home())}
    environment["CLOUDTUNE_RUN_ID"] = str(parameters["runId"])  # submitted by a job, it outlives that one
    python = json.loads((folder / "run.json").read_text())["python"]
    command = parameters.get("argv") or [python, "-I", "-S", str(folder / "agent.pyz"), "supervise", str(folder)]
    with (folder / "supervisor.log").open("ab") as log:
        try:
            code = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                timeout=START_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            message = f"no word in {START_S:g} s"
            raise ServiceError(message, service="process", operation="start", definite=False) from error
        except OSError as error:
            raise ServiceError(
                str(error), service="process", operation="start", hint=f"is {python} a Python?"
            ) from error
    if code:
        words = (folder / "supervisor.log").read_text(errors="replace").strip()[-2000:]
        message = f"the supervisor ended with code {code}: {words or 'it said nothing'}"
        raise ServiceError(message, service="process", operation="start", hint=f"is {python} a working Python?")
    return reply


def _describe(folder: Path) -> Mapping[str, Any]:
    if not (folder / "run.json").is_file():
        if not folder.is_dir():
            raise RunNotFound(f"there is no run in {folder}", hint="cloudtune list shows all runs")
        return {"state": "pending", "folder": str(folder)}
    # in the order in which a supervisor ends: it has taken the lock before it tells a state, and lets go of it behind
    # the result
    state, held, result = _json(folder / "state.json"), _held(folder), _json(folder / "result.json")
    if state and not held and not result and _json(folder / "state.json") != state:
        return _describe(folder)  # what was read was of an earlier attempt, and has just been reset
    outputs = _json(folder / "order.json").get("outputs")
    known = {"folder": str(folder), "outputs": [outputs["uri"]] if outputs else []}
    if result:
        return {**state, **result, **known}
    if held:
        return {"state": "starting", **state, **known}
    if state:
        reason = "its supervisor ended without a result (was it killed, or the machine restarted?)"
        return {**state, **known, "state": "lost", "reason": reason}
    return {"state": "pending", **known}


def _held(folder: Path) -> bool:
    """Whether a living supervisor holds the run's lock; only a lock that could be had means that none does."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        message = f"whether run {folder.name} is alive cannot be seen: {error}"
        raise ServiceError(
            message, service="process", operation="describe", hint="check the rights of its folder"
        ) from error
    return False


def _is_going(folder: Path) -> bool:
    """Whether a supervisor keeps the run; one that has told its result is about to end, which is waited for."""
    until = time.monotonic() + LET_GO_S
    while _held(folder):
        if not (folder / "result.json").exists() or time.monotonic() > until:
            return True
        time.sleep(0.02)
    return False


def _read_logs(folder: Path, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return whole lines of each node's log behind its byte offset; an unfinished last one once the run is over.

    ``sizes`` are those of the logs when the reading began, at ``time`` (None where nothing is written any more), and
    ``more`` says whose log goes on behind its part.
    """
    over = (folder / "result.json").exists() or not _held(folder)
    offsets: Mapping[str, int] = parameters["offsets"]
    paths = {path.parent.name.removeprefix("node-"): path for path in sorted(folder.glob("node-*/log"))}
    # all sizes first: what one node writes behind its size is later than what others have written up to theirs
    sizes = {node: path.stat().st_size for node, path in paths.items()}
    began = time.time()
    logs: dict[str, str] = {}
    reached, more = dict(offsets), {}
    for node, path in paths.items():
        offset = offsets.get(node, 0)
        with path.open("rb") as log:
            log.seek(offset)
            data = log.read(max(0, min(CHUNK, sizes[node] - offset)))
        more[node] = offset + len(data) < sizes[node]
        end = data.rfind(b"\n") + 1
        if (over and not more[node]) or (not end and len(data) == CHUNK):
            end = len(data)
        if end:
            logs[node] = data[:end].decode(errors="surrogateescape")  # so that the bytes can be counted
            reached[node] = offset + end
    facts = {"sizes": sizes, "more": more, "time": None if over else began}
    return {"logs": logs, "offsets": reached, "cursor": parameters.get("cursor"), **facts}


def _stop(folder: Path, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    if not folder.is_dir():
        return {}
    (folder / "cancel").touch()
    if _held(folder):
        pid = _json(folder / "state.json").get("pid")
        if isinstance(pid, int):
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        return {}
    if not (folder / "result.json").exists():
        processes.end_all(str(parameters["runId"]), grace_s=0)
        if not (folder / "state.json").exists():
            write_json(folder / "result.json", {"state": "cancelled", "reason": "cancelled before it started"})
    return {}


def _remove(folder: Path, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    if not folder.is_dir():
        return {}
    if _is_going(folder):
        message = f"run {parameters['runId']} is still going"
        raise ServiceError(
            message, service="process", operation="remove", hint=f"cloudtune cancel {parameters['runId']}"
        )
    for path in folder.iterdir():
        if path.name == "outputs" and not parameters.get("outputs"):
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
    return {}


def _reset(folder: Path, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Make a run that is over startable again: a pipeline that is continued."""
    if _is_going(folder):
        message = f"run {parameters['runId']} is still going"
        raise ServiceError(message, service="process", operation="reset")
    for name in ("cancel", "state.json", "result.json"):  # a state without a result would be that of a lost run
        (folder / name).unlink(missing_ok=True)
    return {}


def _json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data


def _disk_hint(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "the disk is full; CLOUDTUNE_HOME names another place for runs"
    return "check the folder's rights; CLOUDTUNE_HOME names another place for runs"
