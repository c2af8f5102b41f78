"""A stand-in of AWS for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aws_place import AwsPlace, aws_place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[AwsPlace]:
    """Return a stand-in that runs, with this process as its user."""
    with aws_place(tmp_path) as found:
        yield found
