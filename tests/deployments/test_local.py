"""Serving on this machine: what is asked and answered, against a small server of the same words."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from cloudtune.deployments import local
from cloudtune.errors import ServiceError, UsageError
from tests.processes import eventually, running
from tests.registries.models import safetensors

PIECES = ["What ", "is ", "true?"]


class Speaker(BaseHTTPRequestHandler):
    """Answers as the real server does, and remembers the last request."""

    asked: ClassVar[dict[str, object]] = {}

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked = {"path": self.path, **request}
        if request["messages"] == "refuse":
            self._send(400, b'{"detail": "no list"}')
        elif request["messages"] == "strange":
            self._send(200, b'{"answer": 42}')
        elif request.get("stream"):
            events = [{"choices": [{"delta": {"content": piece}}]} for piece in PIECES]
            events = [{"choices": [{"delta": {"role": "assistant"}}]}, *events, {"choices": [{"delta": {}}]}]
            if request["messages"] == "break":
                events[2] = {"error": "worker died"}
            body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + ": comment\n\ndata: [DONE]\n\n"
            self._send(200, body.encode())
        else:
            self._send(200, json.dumps({"choices": [{"message": {"content": "".join(PIECES)}}]}).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[local.LocalDeployment]:
    """Return a deployment whose server is a thread of this process; proxies of the surroundings do not matter."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server = ThreadingHTTPServer((local.HOST, 0), Speaker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://{local.HOST}:{server.server_port}"
    yield local.LocalDeployment(name="mine", url=url, model="/models/mine/1", mark="serve-x", pid=0, log="/the/log")
    server.shutdown()
    server.server_close()


def test_a_prompt_becomes_a_conversation_with_the_pinned_model(served):
    assert local.invoke(served, "Why?", max_tokens=7) == "What is true?"
    assert Speaker.asked == {
        "path": "/v1/chat/completions",
        "messages": [{"role": "user", "content": "Why?"}],
        "model": "/models/mine/1",
        "max_tokens": 7,
    }


def test_a_whole_body_goes_as_it_is_but_for_the_model(served):
    body = {"messages": [{"role": "user", "content": "x"}], "temperature": 0, "model": "other"}
    assert local.invoke(served, body=body) == "What is true?"
    assert Speaker.asked["temperature"] == 0
    assert Speaker.asked["model"] == "/models/mine/1"
    assert body["model"] == "other"


def test_pieces_are_shown_as_they_come(served):
    shown: list[str] = []
    assert local.invoke(served, "Why?", show=shown.append) == "What is true?"
    assert shown == PIECES
    assert local.invoke(served, body={"messages": [], "stream": True}) == "What is true?"


def test_refusals_and_strange_answers(served):
    with pytest.raises(UsageError, match=r"refused the request \(400\): .*no list"):
        local.invoke(served, body={"messages": "refuse"})
    with pytest.raises(ServiceError, match="unexpected reply"):
        local.invoke(served, body={"messages": "strange"})
    with pytest.raises(ServiceError, match="worker died"):
        local.invoke(served, body={"messages": "break", "stream": True})
    for wrong in ({}, {"prompt": "x", "body": {}}):
        with pytest.raises(UsageError, match="one of the two"):
            local.invoke(served, **wrong)


def test_a_server_that_is_down_is_named(served):
    gone = attrs.evolve(served, url=f"http://{local.HOST}:1")
    with pytest.raises(ServiceError, match="mine does not answer at") as error:
        local.invoke(gone, "x")
    assert "/the/log" in error.value.hint


def test_what_is_no_model_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(UsageError, match=r"no config\.json"):
        local.reserve(tmp_path, name="m", directory=tmp_path / "d")
    (tmp_path / "adapter_config.json").touch()
    with pytest.raises(UsageError) as error:
        local.reserve(tmp_path, name="m", directory=tmp_path / "d")
    assert "merge it first" in error.value.hint
    (tmp_path / "config.json").touch()
    with pytest.raises(UsageError, match="a config but no weights"):
        local.reserve(tmp_path, name="m", directory=tmp_path / "d")
    (tmp_path / "model.safetensors").write_bytes(safetensors()[:-1])
    with pytest.raises(UsageError, match=r"model\.safetensors is no whole safetensors file"):
        local.reserve(tmp_path, name="m", directory=tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_port_that_nobody_named_is_none_that_the_kernel_gives_away() -> None:
    with socket.socket() as anybody:
        anybody.bind(("", 0))
        given = anybody.getsockname()[1]
    assert 1024 < local._free_port(None) < given


def test_a_port_that_is_taken_is_refused(served, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    reserved = local.reserve(tmp_path, name="m", directory=tmp_path / "d")
    with pytest.raises(UsageError, match="cannot be had"):
        local.deploy(reserved, port=int(served.url.rpartition(":")[2]))


def test_the_server_inherits_nothing_of_a_job_around_it(tmp_path, monkeypatch):
    for name in ("CLOUDTUNE_RUN_ID", "PET_NNODES", "RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "7")
    found = local._environment(tmp_path, "serve-x")
    assert found["CLOUDTUNE_RUN_ID"] == "serve-x"
    assert found["HF_HUB_OFFLINE"] == "1"
    assert not {"PET_NNODES", "RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"} & set(found)
    assert (Path(found["HF_HOME"]) / "hub").is_dir()


def test_stop_ends_the_server_and_what_left_its_session():
    mark = f"serve-{secrets.token_hex(6)}"
    child = "import time; time.sleep(600)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}, '{mark}'], start_new_session=True); time.sleep(600)"
    started = subprocess.Popen(
        [sys.executable, "-c", code, mark], env={**os.environ, "CLOUDTUNE_RUN_ID": mark}, start_new_session=True
    )
    deployment = local.LocalDeployment(name="m", url="", model="", mark=mark, pid=started.pid, log="")
    eventually(lambda: len(running(mark)) == 2)
    assert local.alive(deployment)
    local.stop(deployment)
    assert running(mark) == []
    assert not local.alive(deployment)
    local.stop(deployment)
    started.wait()


def test_what_was_kept_of_a_deployment_gives_it_back():
    deployment = local.LocalDeployment(name="m", url="u", model="/m", mark="x", pid=3, log="l")
    details = json.loads(json.dumps(attrs.asdict(deployment)))
    assert local.from_details({**details, "later": 1}) == deployment
