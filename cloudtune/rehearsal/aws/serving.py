"""What serves a model in the stand-in: nodes with the model at ``/opt/ml/model``, asked over HTTP.

There is no GPU and there are no images here: programs of this machine take the place of both, and say so.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from cloudtune.errors import CloudtuneError
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.nodes import Line, Node, Place
from cloudtune.rehearsal.runner import RunningNode, wait_for
from cloudtune.rehearsal.wardens import PACKAGES

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import AwsCloud

MODEL = "/opt/ml/model"
PORT = 8080
_SERVER = (
    f"import sys; sys.path.insert(0, {str(PACKAGES)!r}); from cloudtune.rehearsal.vllm import main; "
    "sys.exit(main(sys.argv[1:]))"
)
_LAST_LINES = 5
_LOOK_S = 0.05

Hear = Callable[[int, tuple[Line, ...]], object]


class Unservable(Exception):
    """The model does not come to answer; the text says why."""


def server(*flags: str) -> tuple[str, ...]:
    """Return the command of a server that takes the place of vLLM."""
    return (sys.executable, "-I", "-c", _SERVER, "--model", MODEL, "--port", str(PORT), *flags)


@attrs.frozen(kw_only=True)
class Answer:
    """What a server said: whole, or in pieces as they come."""

    status: int
    kind: str
    body: bytes = b""
    pieces: Iterable[bytes] = ()


class Serving:
    """The nodes of one model, from their start to their end; ``hear`` is given the lines of each by its number."""

    def __init__(
        self,
        cloud: AwsCloud,
        name: str,
        *,
        model: Path,
        command: tuple[str, ...],
        environment: Mapping[str, str] = {},
        replicas: int = 1,
        hear: Hear | None = None,
    ) -> None:
        self.cloud, self.name, self.model, self.command = cloud, name, model, command
        self.environment, self.replicas = environment, replicas
        self.last: deque[str] = deque(maxlen=_LAST_LINES)
        self._hear_more = hear or (lambda _, __: None)
        self._running: list[RunningNode] = []
        self._turn = itertools.count()
        self._lock = threading.Lock()

    def start(self, *, path: str, patience_s: float) -> None:
        """Start the nodes, and wait until each answers at the path; ``patience_s`` are this machine's seconds.

        Raises:
            Unservable: one ended, or does not answer.
        """
        for number in range(self.replicas):
            try:
                running = self.cloud.stage.nodes.start(self._node(number), self._listener(number))
            except CloudtuneError as error:
                raise Unservable(f"a node could not be started: {error}") from error
            with self._lock:
                self._running.append(running)
        until = time.monotonic() + patience_s
        while not all(self._is_healthy(node, path) for node in self._running):
            ended = next((node.end for node in self._running if node.end is not None), None)
            if ended is not None:
                said = " | ".join(self.last)
                raise Unservable(f"the container ended with exit code {ended.exit_code}: {said}")
            if time.monotonic() > until or self.cloud.stage.stopping.is_set():
                raise Unservable(f"the container did not pass the ping health check within {patience_s:.0f} s")
            time.sleep(_LOOK_S)

    def stop(self) -> None:
        """End the nodes."""
        with self._lock:
            running, self._running = self._running, []
        for node in running:
            node.stop(grace_s=1.0)
        with contextlib.suppress(Exception):  # what a node said last is nobody's business any more
            wait_for(running, timeout_s=10)

    def ask(self, path: str, body: bytes, *, headers: Mapping[str, str], limit_s: float) -> Answer:
        """Let one of the nodes answer; Refused where none does in time."""
        with self._lock:
            running = [node for node in self._running if node.end is None]
        if not running:
            raise Refused(503, "ServiceUnavailable", "no server answers")
        node = running[next(self._turn) % len(running)].node
        connection = http.client.HTTPConnection(node.hosts[node.name], PORT, timeout=limit_s)
        try:
            connection.request("POST", path, body, dict(headers))
            answer = connection.getresponse()
            kind = answer.getheader("content-type") or "application/json"
            if answer.status < 400 and "event-stream" in kind:
                return Answer(status=answer.status, kind=kind, pieces=_Pieces(connection, answer))
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            why = "did not answer in time" if isinstance(error, TimeoutError) else "broke off the connection"
            raise Refused(500, "ModelError", f"the container {why}") from error
        connection.close()
        return Answer(status=answer.status, kind=kind, body=data)

    def _is_healthy(self, running: RunningNode, path: str) -> bool:
        connection = http.client.HTTPConnection(running.node.hosts[running.node.name], PORT, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _node(self, number: int) -> Node:
        name = f"replica-{number}"
        folder = self.cloud.stage.folder / "serving" / self.name / f"{name}-{time.monotonic_ns()}"
        folder.mkdir(parents=True)
        return Node(
            name=name,
            folder=folder,
            command=self.command,
            environment={"PYTHONUNBUFFERED": "1", **self.environment},
            binds={MODEL: Place(source=self.model, read_only=True)},
            hosts={name: self.cloud.stage.addresses.take(1)[0]},
        )

    def _listener(self, number: int) -> Callable[[tuple[Line, ...]], None]:
        def hear(lines: tuple[Line, ...]) -> None:
            self.last.extend(line.text for line in lines)
            self._hear_more(number, lines)

        return hear


class Framed:
    """A reply made of a server's answer as it comes; that ends also where nobody has begun to listen."""

    def __init__(self, events: Iterator[bytes], answer: Answer) -> None:
        self._events, self._answer = events, answer

    def __iter__(self) -> Iterator[bytes]:
        return self._events

    def close(self) -> None:
        """End the answer."""
        if isinstance(self._answer.pieces, _Pieces):
            self._answer.pieces.close()


class _Pieces:
    """What a server says, as it comes; the connection to it ends also where nobody has begun to listen."""

    def __init__(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> None:
        self._connection, self._answer = connection, answer

    def __iter__(self) -> Iterator[bytes]:
        try:
            while piece := self._answer.read1(1 << 16):
                yield piece
        except http.client.HTTPException as error:
            raise ConnectionError("the server broke off") from error
        finally:
            self.close()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def said_events(pieces: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the JSON of server-sent events; ConnectionError where they break off before the last."""
    left = b""
    for piece in pieces:
        left += piece
        while b"\n" in left:
            line, _, left = left.partition(b"\n")
            text = line.strip().removeprefix(b"data:").strip()
            if text == b"[DONE]":
                return
            if line.startswith(b"data:") and text:
                yield json.loads(text)
    raise ConnectionError("the server broke off")
