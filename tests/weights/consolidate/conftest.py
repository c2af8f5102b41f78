"""A base, and a checkpoint of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.weights.consolidate.checkpoints import arrays, write_base, write_checkpoint


@pytest.fixture
def base(tmp_path) -> Path:
    return write_base(tmp_path / "base", arrays())


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint", arrays())
