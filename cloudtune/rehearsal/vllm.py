"""What a rehearsed node runs in place of vLLM, which wants a GPU: transformers' server, with vLLM's manners.

It takes vLLM's command line, answers at its port under the model's served name, refuses other names as vLLM does, and
says of itself that it is a substitute. What the flags ask for beyond that (parallelism, memory) is left out, and said.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cloudtune.node.supervisor import free_ports

PORT = 8000
_HERE = "127.0.0.1"
_LOOK_S = 0.2
_ANSWER_S = 600.0
_DONE = b"data: [DONE]"


class Inner:
    """transformers' server, on a port that nobody else is told."""

    def __init__(self, model: str) -> None:
        self.model = str(Path(model).absolute())
        self.most_tokens = _most_tokens(Path(model))
        self.port = free_ports(1)[0]
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", self.model]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HOME": _cache()}
        self.process = subprocess.Popen(
            [*command, "--device", "cpu", "--host", _HERE, "--port", str(self.port)], env=environment
        )

    def healthy(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(OSError, http.client.HTTPException), self.ask("GET", "/health") as answer:
            return bool(answer.status == 200)
        return False

    @contextlib.contextmanager
    def ask(self, method: str, path: str, body: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
        """Send a request and give the open answer."""
        connection = http.client.HTTPConnection(_HERE, self.port, timeout=_ANSWER_S)
        try:
            headers = {"content-type": "application/json"} if body is not None else {}
            connection.request(method, path, body, headers)
            yield connection.getresponse()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    """Answers as vLLM's server does."""

    protocol_version = "HTTP/1.1"
    inner: Inner
    names: tuple[str, ...]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
        """Write a line for each request, as vLLM does."""
        sys.stdout.write(f"INFO: {format % args}\n")
        sys.stdout.flush()

    def do_GET(self) -> None:
        """Say whether the model is there, and how it is called."""
        if self.path in ("/health", "/ping"):
            self._say(200 if self.inner.healthy() else 503, b"")
        elif self.path == "/v1/models":
            rows = [
                {"id": name, "object": "model", "owned_by": "vllm", "root": self.inner.model} for name in self.names
            ]
            self._say(200, json.dumps({"object": "list", "data": rows}).encode())
        else:
            self._refuse(404, "Not Found", "NotFoundError")

    def do_POST(self) -> None:
        """Let the model answer a request for one of its names."""
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = "/v1/chat/completions" if self.path == "/invocations" else self.path
        try:
            asked = json.loads(data)
            name = asked.get("model", self.names[0])
        except (ValueError, AttributeError):
            self._refuse(400, "the body is no JSON object", "BadRequestError")
            return
        if name not in self.names:
            self._refuse(404, f"The model `{name}` does not exist.", "NotFoundError")
            return
        body = json.dumps({**_limited(asked, self.inner.most_tokens), "model": self.inner.model}).encode()
        with self.inner.ask("POST", path, body) as answer:
            self._pass_on(answer, name)

    def _pass_on(self, answer: http.client.HTTPResponse, name: str) -> None:
        ours, theirs = json.dumps(self.inner.model).encode(), json.dumps(name).encode()
        kind = answer.getheader("content-type") or "application/json"
        if "event-stream" not in kind:
            self._say(answer.status, answer.read().replace(ours, theirs), kind)
            return
        self.send_response(answer.status)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        done = False
        for line in answer:
            self._chunk(line.replace(ours, theirs))
            done = done or line.strip() == _DONE
        if not done:  # the server below only ends; vLLM says so
            self._chunk(_DONE + b"\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, piece: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def _refuse(self, status: int, message: str, kind: str) -> None:
        error = {"object": "error", "message": message, "type": kind, "param": None, "code": status}
        self._say(status, json.dumps({"error": error, **error}).encode())

    def _say(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(argv: Sequence[str]) -> int:
    """Serve until the server below ends, or this process is told to end."""
    asked, left_out = _read(argv)
    print("rehearsed: substituted: vLLM -> transformers serve of this machine", flush=True)
    if left_out:
        print(f"rehearsed: left out: {' '.join(left_out)}", flush=True)
    inner = Inner(asked.model)
    signal.signal(signal.SIGTERM, lambda *_: inner.process.terminate())
    names = tuple(asked.served_model_name or (asked.model,))
    handler = type("Handler", (_Handler,), {"inner": inner, "names": names})
    # the node's own address: 0.0.0.0 would be this machine's
    address = socket.gethostbyname(socket.gethostname())
    server = ThreadingHTTPServer((address, asked.port), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(_LOOK_S,), daemon=True).start()
    while inner.process.poll() is None:
        time.sleep(_LOOK_S)
    server.shutdown()
    return inner.process.returncode if inner.process.returncode >= 0 else 128 - inner.process.returncode


def _read(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    words = list(argv[1:] if argv[:1] == ["serve"] else argv)
    parser = argparse.ArgumentParser(prog="vllm serve", allow_abbrev=False)
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--model")
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--host")
    asked, left_out = parser.parse_known_args(words)
    asked.model = asked.model_tag or asked.model
    if not asked.model:
        parser.error("no model is named")
    return asked, left_out


def _most_tokens(model: Path) -> int | None:
    """Return how long a model lets its answers be: vLLM makes it the limit of every request."""
    try:
        most = json.loads((model / "generation_config.json").read_text(encoding="utf-8")).get("max_new_tokens")
    except (OSError, ValueError, AttributeError):
        return None
    return most if isinstance(most, int) else None


def _limited(asked: Mapping[str, Any], most: int | None) -> dict[str, Any]:
    """Return a request with an answer of so many tokens at most."""
    lengths = (asked.get("max_completion_tokens"), asked.get("max_tokens"), most)
    known = [length for length in lengths if isinstance(length, int)]
    return {**asked, "max_tokens": min(known)} if known and most is not None else dict(asked)


def _cache() -> str:
    place = Path("/tmp/huggingface")  # noqa: S108 - the node's own
    (place / "hub").mkdir(parents=True, exist_ok=True)
    return str(place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
