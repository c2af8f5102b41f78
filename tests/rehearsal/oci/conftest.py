"""A stand-in of Oracle Cloud for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oci_place import OciPlace, oci_place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[OciPlace]:
    """Return a stand-in that runs, with this process as its user."""
    with oci_place(tmp_path) as found:
        yield found
