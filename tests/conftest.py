"""What every test gets: a home of its own, no colours, no variables of a surrounding job."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the home of cloudtune for one test."""
    place = tmp_path / "home"
    monkeypatch.setenv("CLOUDTUNE_HOME", str(place))
    monkeypatch.setenv("CLOUDTUNE_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("NO_COLOR", "1")
    for name in list(os.environ):
        if name.startswith(("PET_", "CLOUDTUNE_NODE", "CLOUDTUNE_RUN")) or name in {
            "RANK",
            "WORLD_SIZE",
            "MASTER_ADDR",
        }:
            monkeypatch.delenv(name)
    return place


@pytest.fixture
def shared() -> Path:
    """Return the folder of oracles and schemas beside the checkout; the test skips where it is absent."""
    if not (SHARED / "oracle").is_dir():
        pytest.skip("the oracles are not beside this checkout (../shared)")
    return SHARED
