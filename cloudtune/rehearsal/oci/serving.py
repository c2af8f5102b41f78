"""What serves a rehearsed model deployment: a node for each replica, with the model where the service mounts it.

Sources: "Bring Your Own Container" (paths, ports, endpoints, variables), "Model Deployment Environment Variables".
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import shlex
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.messages import Refused, Request, Response
from cloudtune.rehearsal.nodes import Line, Node, Place
from cloudtune.rehearsal.oci.log_search import LogSearch
from cloudtune.rehearsal.oci.ocids import REGION
from cloudtune.rehearsal.oci.works import WorkFailed
from cloudtune.rehearsal.runner import RunningNode, wait_for
from cloudtune.rehearsal.wardens import PACKAGES

if TYPE_CHECKING:
    from cloudtune.rehearsal.oci.cloud import OciCloud

MODEL = "/opt/ds/model/deployed_model"
PORT = 8080
PROGRAMS = "/opt/rehearsed/bin"
#: The service's own limit of one answer, and of one that streams between two pieces.
ANSWER_S, STREAM_S = 60.0, 300.0
#: Seconds of this machine, not of the stage's clock, in which a server must be healthy.
HEALTHY_S = 300.0
_PRINCIPAL = "/opt/datascience/principal"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LAST_LINES = 5
_LOOK_S = 0.05


class Serving:
    """The nodes of one deployment, from their start to their end."""

    def __init__(
        self,
        cloud: OciCloud,
        deployment: Mapping[str, Any],
        model: Path,
        entrypoints: Mapping[str, tuple[str, ...]] = {},
    ) -> None:
        self.cloud, self.id = cloud, str(deployment["id"])
        self._deployment = deployment
        details = deployment["modelDeploymentConfigurationDetails"]
        self.container: Mapping[str, Any] = details["environmentConfigurationDetails"]
        scaling = details["modelConfigurationDetails"].get("scalingPolicy") or {}
        self.replicas = int(scaling.get("instanceCount", 1))
        self.variables: Mapping[str, str] = self.container.get("environmentVariables") or {}
        self.port = int(self.container.get("serverPort") or PORT)
        self.last: deque[str] = deque(maxlen=_LAST_LINES)
        self._model, self._entrypoints = model, entrypoints
        self._running: list[RunningNode] = []
        self._turn = itertools.count()
        self._lock = threading.Lock()

    @property
    def substitutes(self) -> list[str]:
        """What this machine gives in place of what the deployment names, in words for its log."""
        shape = self._deployment["modelDeploymentConfigurationDetails"]["modelConfigurationDetails"]
        name = (shape.get("instanceConfiguration") or {}).get("instanceShapeName")
        image = f"image {self.container['image']} -> programs of this machine"
        return [f"rehearsed: substituted: {each}" for each in (image, f"shape {name} -> this machine")]

    def start(self) -> None:
        """Start the nodes, and wait until all are healthy; WorkFailed where they are not."""
        self._hear(tuple(Line(time_s=time.time(), node="", stream="stdout", text=text) for text in self.substitutes))
        for number in range(self.replicas):
            with self._lock:
                self._running.append(self.cloud.stage.nodes.start(self._node(number), self._hear))
        until = time.monotonic() + HEALTHY_S
        while not all(self._is_healthy(node) for node in self._running):
            ended = next((node.end for node in self._running if node.end is not None), None)
            if ended is not None:
                said = " | ".join(self.last)
                raise WorkFailed("ContainerFailed", f"the container ended with exit code {ended.exit_code}: {said}")
            if time.monotonic() > until or self.cloud.stage.stopping.is_set():
                raise WorkFailed("HealthCheckFailed", f"the container was not healthy within {HEALTHY_S:.0f} s")
            time.sleep(_LOOK_S)

    def stop(self) -> None:
        """End the nodes."""
        with self._lock:
            running, self._running = self._running, []
        for node in running:
            node.stop(grace_s=1.0)
        with contextlib.suppress(Exception):  # what a node said last is nobody's business any more
            wait_for(running, timeout_s=10)
        self.cloud.principals.forget(self.id)

    def forward(self, request: Request, path: str, *, streams: bool) -> Response:
        """Let one of the replicas answer a request; Refused in the service's words where none can."""
        with self._lock:
            running = [node for node in self._running if node.end is None]
        if not running:
            raise Refused(503, "ServiceUnavailable", "Model server unavailable.")
        node = running[next(self._turn) % len(running)].node
        address = node.hosts[node.name]
        connection = http.client.HTTPConnection(address, self.port, timeout=STREAM_S if streams else ANSWER_S)
        try:
            names = ("content-type", "accept")
            headers = {name: request.header(name) for name in names if request.header(name)}
            connection.request("POST", path, request.body.read(), headers)
            answer = connection.getresponse()
            kind = answer.getheader("content-type") or "application/json"
            if streams and answer.status < 400:
                return self._stream(connection, answer, kind)
            body = answer.read()
        except TimeoutError:
            connection.close()
            raise Refused(500, "InternalServerError", "Service Timeout.") from None
        except (OSError, http.client.HTTPException):
            connection.close()
            raise Refused(503, "ServiceUnavailable", "Model server unavailable.") from None
        connection.close()
        return Response(status=answer.status, headers=(("content-type", kind),), body=body)

    def _stream(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, kind: str) -> Response:
        if "event-stream" not in kind and (answer.getheader("transfer-encoding") or "") != "chunked":
            connection.close()
            message = "Unexpected nonstreaming response detected from the deployed model."
            raise Refused(409, "ExternalServerIncorrectState", message)

        return Response(
            headers=(("content-type", kind), ("trailer", "StreamFailure")), body=_Pieces(connection, answer)
        )

    def _is_healthy(self, running: RunningNode) -> bool:
        port = int(self.container.get("healthCheckPort") or self.port)
        path = self.variables.get("MODEL_DEPLOY_HEALTH_ENDPOINT", "/health")
        connection = http.client.HTTPConnection(running.node.hosts[running.node.name], port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _node(self, number: int) -> Node:
        name = f"replica-{number}"
        folder = self.cloud.stage.folder / "deployments" / self.id / f"{name}-{time.monotonic_ns()}"
        programs, principal = folder / "programs", folder / "principal"
        programs.mkdir(parents=True)
        principal.mkdir(mode=0o700)
        _write_vllm(programs / "vllm")
        files = self.cloud.principals.resource_files(self.id, self._deployment["compartmentId"])
        for file, text in files.items():
            (principal / file).write_text(text)
        return Node(
            name=name,
            folder=folder,
            command=self._command(),
            environment=self._environment(),
            binds={
                MODEL: Place(source=self._model, read_only=True),
                PROGRAMS: Place(source=programs, read_only=True),
                _PRINCIPAL: Place(source=principal, read_only=True),
            },
            hosts={name: self.cloud.stage.addresses.take(1)[0]},
        )

    def _command(self) -> tuple[str, ...]:
        """Return what the image would run."""
        entrypoint, cmd = self.container.get("entrypoint") or (), self.container.get("cmd") or ()
        entrypoint = entrypoint or self._entrypoints.get(self.container["image"], ())
        if entrypoint:
            return (*entrypoint, *cmd)
        if "vllm" not in self.container["image"].lower():
            message = "the image's own command cannot be rehearsed: set entrypoint"
            raise WorkFailed("InvalidParameter", message)
        if cmd:
            return ("vllm", "serve", *cmd)
        # the service's own image reads its command line from variables
        model = f"{MODEL}/{self.variables.get('BASE_MODEL', '').strip('/')}".rstrip("/")
        words = shlex.split(self.variables.get("PARAMS", ""))
        return ("vllm", "serve", model, *words, "--port", str(self.port))

    def _environment(self) -> dict[str, str]:
        """Return the variables of a node: the deployment's own, with the service's over them."""
        return {
            "PATH": f"{PROGRAMS}:{Path(sys.executable).parent}:{_SYSTEM_PATH}",
            "PYTHONUNBUFFERED": "1",
            **self.variables,
            "HOME": "/home/datascience",
            "MODEL_DEPLOYMENT_OCID": self.id,
            "TENANCY_OCID": self.cloud.principals.tenancy,
            "CONTAINER_CUSTOM_IMAGE": self.container["image"],
            "OCI_RESOURCE_PRINCIPAL_VERSION": "2.2",
            "OCI_RESOURCE_PRINCIPAL_RPST": f"{_PRINCIPAL}/rpst",
            "OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM": f"{_PRINCIPAL}/private.pem",
            "OCI_RESOURCE_PRINCIPAL_REGION": REGION,
            **self.cloud.environment(),
        }

    def _hear(self, lines: tuple[Line, ...]) -> None:
        self.last.extend(line.text for line in lines)
        logs = (self._deployment.get("categoryLogDetails") or {}).get("predict")
        if logs:
            self.cloud.part(LogSearch).write(logs["logId"], self.id, lines)


def _write_vllm(path: Path) -> None:
    """Write the program that a node finds as ``vllm``."""
    path.write_text(
        f"#!{sys.executable} -I\nimport sys\nsys.path.insert(0, {json.dumps(str(PACKAGES))})\n"
        "from cloudtune.rehearsal.vllm import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    path.chmod(0o755)


class _Pieces:
    """What a server says, as it comes; the connection to it ends also where nobody has begun to listen."""

    def __init__(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> None:
        self._connection, self._answer = connection, answer

    def __iter__(self) -> Iterator[bytes]:
        try:
            while piece := self._answer.read1(1 << 16):
                yield piece
        except http.client.HTTPException as error:
            raise ConnectionError("the server broke off") from error  # and so does the service

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
