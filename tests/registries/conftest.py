"""A Hub for the tests."""

from __future__ import annotations

import huggingface_hub.constants
import pytest

from tests.registries.hub import TOKEN, running


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Return a running Hub that this process, and those it starts, take for the real one; ann is signed in."""
    # hf_xet speaks to a service of its own, which is not here; the library reads the variable when it is imported
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with running() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found
