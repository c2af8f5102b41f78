"""A real server on this machine."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from cloudtune.deployments import local
from cloudtune.errors import CloudtuneError, UsageError
from tests import tiny
from tests.processes import running
from tests.registries.models import safetensors

pytestmark = pytest.mark.heavy


def test_a_model_answers_until_it_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    told: list[str] = []
    reserved = local.reserve(tiny.random_model(), name="mine", directory=tmp_path)
    served = local.deploy(reserved, progress=told.append)
    try:
        assert local.alive(served)
        assert told[0].startswith("starting a server for")
        answer = local.invoke(served, "What is LoRA?", max_tokens=6)
        assert answer
        pieces: list[str] = []
        assert local.invoke(served, "What is LoRA?", max_tokens=6, show=pieces.append) == answer
        assert "".join(pieces) == answer
        # pinned: no other model can be named
        request = urllib.request.Request(
            f"{served.url}/v1/chat/completions",
            data=b'{"model": "other", "messages": [{"role": "user", "content": "x"}]}',
            headers={"Content-Type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        refused.value.close()
        assert refused.value.code == 400
        with pytest.raises(UsageError):
            local.deploy(
                local.reserve(tiny.random_model(), name="m", directory=tmp_path / "b"),
                port=int(served.url.split(":")[2]),
            )
    finally:
        local.stop(served)
    assert not local.alive(served)
    assert running(f"serve {served.model}") == []


def test_a_server_that_ends_shows_its_last_lines(tmp_path):
    model = tmp_path / "broken"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "no such thing"}')
    (model / "model.safetensors").write_bytes(safetensors())
    with pytest.raises(CloudtuneError, match="ended with exit code") as error:
        local.deploy(local.reserve(model, name="broken", directory=tmp_path / "d"))
    log = tmp_path / "d" / "log"
    assert log.read_text().splitlines()[-1] in error.value.message
    assert str(log) in error.value.hint
    assert running(f"serve {model}") == []
