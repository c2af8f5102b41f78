"""A stand-in of Oracle Cloud for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oci_place import OciPlace, oci_place
from tests.rehearsal.oci.science import Science


@pytest.fixture
def place(tmp_path: Path) -> Iterator[OciPlace]:
    """Return a stand-in that runs, with this process as its user."""
    with oci_place(tmp_path) as found:
        yield found


@pytest.fixture
def science(place: OciPlace) -> Science:
    """Return the SDK's clients of a stand-in."""
    return Science(place)
