"""Gated models: what is known without the Hub, and what the Hub says; it is a server on this machine."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cloudtune.diagnosis import document, hub
from cloudtune.diagnosis.checks import carried_out
from tests.diagnosis.test_document import job

LLAMA, QWEN = "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-8B"
OCI = ("dataScienceJob", {"shapeName": "VM.GPU.A10.2"})


def look(folder, environ, *, model=LLAMA, place=None, **runtime):
    """Return what is found about the Hub for a job that trains a model."""
    command = f"torchrun train.py --model_name {model} --use_peft"
    found = document.read(job(folder, place=place, command=command, **runtime), environ=environ)
    return [(one.status, one.message) for one in carried_out(hub.checks(found, environ))]


@pytest.fixture
def offline(tmp_path):
    return {"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}


def test_families_that_are_gated_are_known_offline(tmp_path, offline):
    unasked, token = look(tmp_path, offline)
    assert unasked == ("unknown", f"{LLAMA} is gated, as far as is known; the Hub is not asked: HF_HUB_OFFLINE is set")
    assert token == ("problem", f"{LLAMA} is gated, and no token is there")
    (free,) = look(tmp_path, offline, model=QWEN)
    assert free == ("unknown", f"{QWEN} is not known to be gated; the Hub is not asked: HF_HUB_OFFLINE is set")


def test_a_job_here_has_the_token_of_this_machine(tmp_path, offline):
    _, token = look(tmp_path, {**offline, "HF_TOKEN": "hf_x"})
    assert token == ("ok", f"{LLAMA} is gated; it is asked for with the variable HF_TOKEN")


@pytest.mark.parametrize(
    ("variable", "status", "said"),
    [
        ({"secret": "ocid1.vaultsecret.oc1.iad.x"}, "ok", "the job brings HF_TOKEN, a secret"),
        ({"value": "hf_x"}, "ok", "the job brings HF_TOKEN"),
        ({"value": "<your token>"}, "problem", "no token is there"),
        ({}, "ok", "the job brings HF_TOKEN"),
    ],
)
def test_a_job_in_a_cloud_must_bring_its_own(tmp_path, offline, variable, status, said):
    here = {**offline, "HF_TOKEN": "hf_x"}
    env = [{"name": "HF_TOKEN", **variable}]
    if variable:
        assert look(tmp_path, here, place=OCI)[1][0] == "problem"  # that of this machine stays here
        found = look(tmp_path, here, place=OCI, env=env)[1]
    else:  # a bare name: read from the shell when the job is submitted
        command = f"torchrun train.py --model_name {LLAMA}"
        read = document.read(job(tmp_path, place=OCI, command=command), env=["HF_TOKEN"], environ=here)
        found = [(one.status, one.message) for one in carried_out(hub.checks(read, here))][1]
    assert (found[0], said in found[1]) == (status, True), found


class Hub:
    """Answers for models as the Hub does; ``models`` holds what ``gated`` is, ``token`` who has access."""

    def __init__(self):
        self.models, self.token, self.status = {LLAMA: "manual", QWEN: False}, "hf_good", None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, headers, body = hub.answer(self.path, self.headers.get("authorization", ""))
                self.send_response(status)
                data = json.dumps(body).encode()
                for name, value in {**headers, "content-length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def answer(self, path, authorization):
        if self.status is not None:
            return self.status, {}, {}
        name = path.partition("/api/models/")[2].partition("?")[0].removesuffix("/auth-check")
        if name not in self.models:
            return 401, {"x-error-code": "RepoNotFound", "x-error-message": "Repository not found"}, {}
        if path.endswith("/auth-check"):
            refused = {"x-error-code": "GatedRepo", "x-error-message": "Access to model is restricted"}
            return (200, {}, {}) if authorization == f"Bearer {self.token}" else (403, refused, {})
        return 200, {"content-type": "application/json"}, {"id": name, "gated": self.models[name]}

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def service(monkeypatch, tmp_path):
    pytest.importorskip("huggingface_hub")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    made = Hub()
    yield made
    made.stop()


def environ(service, tmp_path, **more):
    return {"HF_ENDPOINT": f"http://127.0.0.1:{service.server.server_port}", "HOME": str(tmp_path), **more}


def test_the_hub_is_asked_where_it_can_be(service, tmp_path):
    (free,) = look(tmp_path, environ(service, tmp_path), model=QWEN)
    assert free == ("ok", f"the Hub has {QWEN}: not gated")
    allowed, token = look(tmp_path, environ(service, tmp_path, HF_TOKEN="hf_good"))
    assert allowed == ("ok", f"the Hub has {LLAMA}: gated, and your token may read it")
    assert token[0] == "ok"
    refused, _ = look(tmp_path, environ(service, tmp_path, HF_TOKEN="hf_other"))
    assert refused == ("warning", f"{LLAMA} is gated, and your token has no access")


def test_what_the_hub_says_goes_before_what_was_known(service, tmp_path):
    service.models = {LLAMA: False, QWEN: "auto"}
    (free,) = look(tmp_path, environ(service, tmp_path))
    assert free[0] == "ok"
    assert [status for status, _ in look(tmp_path, environ(service, tmp_path), model=QWEN)] == ["warning", "problem"]


def test_models_that_are_not_there_are_problems(service, tmp_path):
    (missing,) = look(tmp_path, environ(service, tmp_path), model="Qwen/Qwen33-8B")
    assert missing == ("problem", "the Hub has no model Qwen/Qwen33-8B, or does not show it without a token")


@pytest.mark.parametrize("command", ["python train.py --model-id $BASE", "torchrun x.py --model_name_or_path ${BASE}"])
def test_the_model_may_be_named_by_a_variable(tmp_path, offline, command):
    read = document.read(job(tmp_path, command=command, env={"BASE": LLAMA}), environ=offline)
    assert list(hub.models_of(read.subjects[0])) == [("spec.runtime.spec.command", LLAMA)]
    read = document.read(job(tmp_path, command=command), environ=offline)
    assert list(hub.models_of(read.subjects[0])) == []


def test_a_hub_that_does_not_answer_leaves_it_unknown(service, tmp_path):
    service.status = 418
    (unknown,) = look(tmp_path, environ(service, tmp_path), model=QWEN)
    assert unknown == ("unknown", f"the Hub answered 418 when it was asked for {QWEN}")
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HOME": str(tmp_path)}
    unknown, problem = look(tmp_path, closed)
    assert unknown[0] == "unknown"
    assert problem == ("problem", f"{LLAMA} is gated, and no token is there")
