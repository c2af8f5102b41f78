"""Where targets are, and a file to be copied there."""

from __future__ import annotations

import os

import pytest

from tests.weights.target.outputs import SIZE


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model"
