"""The contract suite on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtune.backends.local import LocalBackend
from cloudtune.home import runs_folder
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.states import Handle
from tests.contract.suite import BackendContract, Place


def job(command: str, *, replicas: int = 2) -> JobSpec:
    runtime = PyTorchDistributedRuntime(command=command, replicas=replicas)
    return JobSpec(name="contract", infrastructure=LocalJob(), runtime=runtime)


class TestLocal(BackendContract):
    @pytest.fixture
    def place(self) -> Place:
        return Place(
            backend=LocalBackend(),
            good=job("echo one; echo two >&2"),
            bad=job('echo "about to fail"; if [ "$CLOUDTUNE_NODE_RANK" = 1 ]; then exit 3; fi; sleep 30'),
            long=job("sleep 300"),
            talkative=job(
                'if [ "$CLOUDTUNE_NODE_RANK" = 1 ]; then for i in 1 2 3 4 5; do echo "short $i"; sleep 0.1; done; fi;'
                ' if [ "$CLOUDTUNE_NODE_RANK" = 0 ]; then seq -f "a line of a long log: %.0f" 30000; fi'
            ),
        )

    @pytest.fixture
    def foreign(self, tmp_path: Path) -> Callable[[Handle], str]:
        def moved(handle: Handle) -> str:
            elsewhere = tmp_path / "elsewhere" / handle.id
            shutil.copytree(runs_folder() / handle.id, elsewhere)
            return str(elsewhere)

        return moved
