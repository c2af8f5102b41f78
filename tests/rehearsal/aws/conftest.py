"""A stand-in of AWS for each test."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.aws_place import AwsPlace, aws_place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[AwsPlace]:
    """Return a stand-in that runs, with this process as its user."""
    with aws_place(tmp_path) as found:
        yield found


@pytest.fixture
def controllers(place: AwsPlace, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Return where the controllers of what is made from now on come to: they run when the test calls them."""
    found: list[Callable[[], None]] = []

    def keep(_: str, deed: Callable[..., None], *arguments: Any) -> None:
        found.append(functools.partial(deed, *arguments))

    monkeypatch.setattr(place.stage, "control", keep)
    return found
