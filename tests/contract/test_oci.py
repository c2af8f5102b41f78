"""The contract suite on OCI Data Science: its stand-in on this machine, asked by the real SDK, with real nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudtune.backends import oci_logs
from cloudtune.backends.oci import OciBackend
from cloudtune.spec.infrastructure import DataScienceJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.states import Handle
from tests.contract.suite import BackendContract, Place, cloud_place
from tests.oci_place import OciPlace, oci_place
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

pytest.importorskip("oci", reason="the oci SDK is not installed")


def job(on: OciPlace, command: str) -> JobSpec:
    where = DataScienceJob(
        compartment_id=on.compartment,
        project_id=on.project,
        log_group_id=on.log_group,
        shape_name="VM.Standard2.1",
        block_storage_size=50,
    )
    runtime = PyTorchDistributedRuntime(command=command, replicas=2)
    return JobSpec(name="contract", infrastructure=where, runtime=runtime)


@pytest.mark.usefixtures("namespaces")
class TestOci(BackendContract):
    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
        monkeypatch.setattr(oci_logs, "PAGES", 8)  # a log of several replies need not be long
        with oci_place(tmp_path) as on:
            yield cloud_place(OciBackend(), lambda command: job(on, command), lines=9000)

    @pytest.fixture
    def foreign(self) -> Callable[[Handle], str]:
        return lambda handle: handle.id
