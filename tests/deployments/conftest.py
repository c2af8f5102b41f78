"""Servers on rehearsed nodes need namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployments.oci_serving import Serving
from tests.oci_place import oci_place
from tests.rehearsal.conftest import namespaces

__all__ = ["namespaces", "serving"]


@pytest.fixture
def serving(tmp_path: Path, namespaces: None) -> Iterator[Serving]:
    with oci_place(tmp_path) as place:
        yield Serving(place, tmp_path)
