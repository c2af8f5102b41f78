"""The contract suite on Kubernetes: a stand-in of a cluster on this machine, asked by the real client, with real pods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudtune.backends import eks_logs
from cloudtune.backends.eks import EksBackend
from cloudtune.states import Handle
from tests.contract.suite import BackendContract, Place, cloud_place
from tests.eks_place import eks_place, job
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

pytest.importorskip("kubernetes", reason="kubernetes is not installed")


@pytest.mark.usefixtures("namespaces")
class TestEks(BackendContract):
    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
        # a log of several replies need not be long
        monkeypatch.setattr(eks_logs, "LIMIT_BYTES", 100_000)
        monkeypatch.setitem(eks_logs._BEGINNING, "limit", 100_000)
        with eks_place(tmp_path):
            yield cloud_place(EksBackend(), job, lines=5000)

    @pytest.fixture
    def foreign(self) -> Callable[[Handle], str]:
        return lambda handle: handle.id
