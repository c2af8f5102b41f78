"""A model answering on this machine: transformers' own OpenAI-compatible server, on loopback, pinned to the model."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from cloudtune.deployments.questions import body_of
from cloudtune.errors import CloudtuneError, MissingExtra, ServiceError, UsageError
from cloudtune.node import processes
from cloudtune.node.supervisor import free_ports
from cloudtune.ranges import Reader
from cloudtune.weights.files.safetensors import read_header

HOST = "127.0.0.1"
#: Seconds after SIGTERM until what is left of a server is killed.
GRACE_S = 8.0
_NEEDED = ("transformers", "torch", "fastapi", "uvicorn")
_LAST_LINES = 15
#: Somebody may take a free port between the look and the start.
_PORTS_TRIED = 3
#: Variables of a job around us that a server must not take for its own.
_JOB = ("CLOUDTUNE_", "PET_", "TORCHELASTIC_")
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# a proxy of the surroundings has no business on the way to loopback
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@attrs.frozen(kw_only=True)
class LocalDeployment:
    """A server on this machine; ``mark`` is the run id in the variables of its processes, by which they are known."""

    name: str
    url: str
    model: str
    mark: str
    pid: int
    log: str


def reserve(model_dir: Path, *, name: str, directory: Path) -> LocalDeployment:
    """Return what is known of a deployment before it starts: enough to end it, whatever becomes of its starter.

    ``directory`` will receive its log.

    Raises:
        UsageError: the folder holds no model, or one that is not whole.
        MissingExtra: the server's packages are not installed.
    """
    _check(model_dir)
    mark = f"serve-{secrets.token_hex(6)}"
    return LocalDeployment(
        name=name, url="", model=str(model_dir.absolute()), mark=mark, pid=0, log=str(directory / "log")
    )


def deploy(
    reserved: LocalDeployment,
    *,
    port: int | None = None,
    timeout_s: float = 300.0,
    device: str | None = None,
    progress: Callable[[str], object] | None = None,
) -> LocalDeployment:
    """Start the server of a reserved deployment and return once it answers; it outlives this process.

    The device is ``cuda`` where there is an NVIDIA GPU, else ``cpu``.

    Raises:
        UsageError: the port that is asked for is taken.
        CloudtuneError: the server ended, or did not answer in time; the message has its last lines.
    """
    tell = progress or str
    Path(reserved.log).parent.mkdir(parents=True, exist_ok=True)
    device = device or ("cuda" if Path("/dev/nvidia0").exists() else "cpu")
    tell(f"starting a server for {reserved.model} on {device}")
    for _ in range(_PORTS_TRIED):
        served = _start(reserved, _free_port(port), device, timeout_s, tell)
        if served is not None:
            return served
    raise CloudtuneError("every port that was free is taken by the time the server starts", hint="try again")


def _start(
    reserved: LocalDeployment, port: int, device: str, timeout_s: float, tell: Callable[[str], object]
) -> LocalDeployment | None:
    """Start one server and wait for it; returns None if somebody else has the port."""
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", reserved.model]
    command += ["--device", device, "--host", HOST, "--port", str(port)]
    directory = Path(reserved.log).parent
    process: subprocess.Popen[bytes] | None = None
    try:
        with open(reserved.log, "wb") as output:  # noqa: PTH123 - it is kept as text
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=_environment(directory, reserved.mark),
                start_new_session=True,
            )
        served = attrs.evolve(reserved, url=f"http://{HOST}:{port}", pid=process.pid)
        _wait(served, process, timeout_s, tell)
    except BaseException as error:
        processes.end_all(reserved.mark, grace_s=1.0)
        if process is not None:
            process.wait()
        if isinstance(error, CloudtuneError) and "address already in use" in error.message:
            return None
        raise
    process.returncode = 0  # it outlives us: Popen need not warn that nobody waits for it
    return served


def from_details(details: Mapping[str, Any]) -> LocalDeployment:
    """Return a deployment from what was kept of it, ``attrs.asdict`` of the value."""
    names = {field.name for field in attrs.fields(LocalDeployment)}
    return LocalDeployment(**{key: value for key, value in details.items() if key in names})


def alive(deployment: LocalDeployment) -> bool:
    """Return whether the server's processes are there."""
    table = processes.table()
    return any(pid in table and not table[pid].zombie for pid in processes.marked(deployment.mark))


def stop(deployment: LocalDeployment) -> None:
    """End the server and everything that it started, within 15 s.

    Raises:
        CloudtuneError: a process could not be ended.
    """
    left = processes.end_all(deployment.mark, grace_s=GRACE_S)
    if deployment.pid:  # 0 before it is known
        try:
            os.waitpid(deployment.pid, os.WNOHANG)
        except ChildProcessError:  # it was not this process that started the server
            pass
    if left:
        numbers = ", ".join(map(str, sorted(left)))
        raise CloudtuneError(f"processes {numbers} of deployment {deployment.name} do not end", hint="kill -9 them")


def invoke(
    deployment: LocalDeployment,
    prompt: str | None = None,
    *,
    body: Mapping[str, Any] | None = None,
    show: Callable[[str], object] | None = None,
    max_tokens: int | None = None,
    timeout_s: float = 600.0,
) -> str:
    """Ask the model and return its answer: a prompt, or a whole request body of OpenAI's chat completions.

    With ``show`` the pieces of the answer are handed over as they come.

    Raises:
        UsageError: the server refuses the request.
        ServiceError: the server does not answer.
    """
    request = body_of(prompt, body)
    request["model"] = deployment.model  # the server is pinned to it and takes no other
    if max_tokens is not None:
        request["max_tokens"] = max_tokens
    if show is not None:
        request["stream"] = True
    streams = bool(request.get("stream"))
    pieces = _stream(deployment, request, timeout_s) if streams else iter((_answer(deployment, request, timeout_s),))
    answer = []
    for piece in pieces:
        answer.append(piece)
        if show is not None:
            show(piece)
    return "".join(answer)


def _check(model_dir: Path) -> None:
    if not (model_dir / "config.json").is_file():
        hint = "give the folder of a model, such as merge leaves"
        if (model_dir / "adapter_config.json").is_file():
            hint = f"it is an adapter; merge it first: cloudtune merge BASE {model_dir} -o DIR"
        raise UsageError(f"{model_dir} holds no model: it has no config.json", hint=hint)
    files = sorted(model_dir.glob("*.safetensors"))
    if not files and not any(model_dir.glob("*.bin")):
        raise UsageError(f"{model_dir} has a config but no weights", hint="give the whole folder of the model")
    for path in files:
        with Reader(str(path)) as reader:
            read_header(reader.read, reader.size, str(path))
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise MissingExtra("local", "serving a model on this machine")


def _environment(directory: Path, mark: str) -> dict[str, str]:
    """Return the server's variables: offline, with a cache of its own, and marked."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_JOB) and name not in _RANKS}
    cache = directory / "huggingface"
    (cache / "hub").mkdir(parents=True, exist_ok=True)  # the list of models fails without it
    return {
        **kept,
        "CLOUDTUNE_RUN_ID": mark,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _free_port(port: int | None) -> int:
    """Return the port that is asked for, or any; raises UsageError if somebody else answers there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port or free_ports(1)[0]))
        except OSError as error:
            raise UsageError(f"port {port} of {HOST} cannot be had: {error.strerror}", hint="give another") from error
        return int(probe.getsockname()[1])


def _wait(
    served: LocalDeployment, process: subprocess.Popen[bytes], timeout_s: float, tell: Callable[[str], object]
) -> None:
    """Wait until the server answers."""
    start = time.monotonic()
    told = start
    while True:
        if process.poll() is not None:
            raise CloudtuneError(
                f"the server for {served.name} ended with exit code {process.returncode}:\n{_last_lines(served)}",
                hint=f"its whole log is {served.log}",
            )
        if _healthy(served):
            return
        now = time.monotonic()
        if now - start > timeout_s:
            raise CloudtuneError(
                f"the server for {served.name} did not answer within {timeout_s:g} s:\n{_last_lines(served)}",
                hint=f"its whole log is {served.log}",
            )
        if now - told >= 5:
            told = now
            tell(f"loading the model, {now - start:.0f} s")
        time.sleep(0.2)


def _healthy(served: LocalDeployment) -> bool:
    try:
        with _opener.open(f"{served.url}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _last_lines(served: LocalDeployment) -> str:
    lines = Path(served.log).read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])


def _post(deployment: LocalDeployment, request: Mapping[str, Any], timeout_s: float) -> Any:
    """Send a request for a chat completion and return the open reply."""
    call = urllib.request.Request(  # noqa: S310 - the URL is this deployment's own
        f"{deployment.url}/v1/chat/completions",
        data=json.dumps(request).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        return _opener.open(call, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        detail = error.read(2000).decode("utf-8", "replace")
        message = f"deployment {deployment.name} refused the request ({error.code}): {detail}"
        if error.code < 500:
            raise UsageError(message) from error
        raise ServiceError(message, service="process", operation="invoke", hint=f"see {deployment.log}") from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ServiceError(
            f"deployment {deployment.name} does not answer at {deployment.url}: {reason}",
            service="process",
            operation="invoke",
            hint=f"delete and deploy it again; its log is {deployment.log}",
        ) from error


def _answer(deployment: LocalDeployment, request: Mapping[str, Any], timeout_s: float) -> str:
    with _post(deployment, request, timeout_s) as reply:
        data = json.load(reply)
    try:
        return str(data["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError):
        message = f"unexpected reply: {json.dumps(data)[:500]}"
        raise ServiceError(message, service="process", operation="invoke") from None


def _stream(deployment: LocalDeployment, request: Mapping[str, Any], timeout_s: float) -> Iterator[str]:
    """Yield the pieces of an answer as the server sends them (server-sent events)."""
    with _post(deployment, request, timeout_s) as reply:
        for raw in reply:
            line = raw.decode("utf-8", "replace").strip()
            if not line.startswith("data:") or line == "data: [DONE]":
                continue
            event = json.loads(line[5:])
            if "error" in event:
                raise ServiceError(str(event["error"]), service="process", operation="invoke")
            for choice in event.get("choices", ()):
                piece = (choice.get("delta") or {}).get("content")
                if piece:
                    yield str(piece)
