"""Where namespaces are not allowed, tests of nodes skip and say what this machine said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtune.errors import UsageError
from cloudtune.rehearsal.isolation import isolation
from cloudtune.rehearsal.runner import Nodes
from cloudtune.rehearsal.stage import Stage


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip where nodes cannot have paths of their own."""
    try:
        isolation()
    except UsageError as error:
        pytest.skip(str(error))


@pytest.fixture
def nodes(namespaces: None) -> Iterator[Nodes]:
    """Return what runs nodes; all of them are gone after the test."""
    with Nodes() as running:
        yield running


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Return a stage; the stand-in on it must not have failed."""
    with Stage(tmp_path / "stage") as ground:
        yield ground
    assert ground.errors == ()
