from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtune.node import processes
from cloudtune.node.pack import agent_bytes
from tests.node.running import Job

_serial = iter(range(1, 1_000_000))


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the zipapp that is sent to nodes."""
    path = tmp_path_factory.mktemp("agent") / "agent.pyz"
    path.write_bytes(agent_bytes())
    return path


@pytest.fixture
def new_job(agent: Path, tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Return a maker of jobs; whatever is left of them afterwards is ended."""
    jobs: list[Job] = []

    def make(**order: Any) -> Job:
        run_id = f"t{os.getpid():06d}{next(_serial):04d}"
        jobs.append(Job(agent, tmp_path / run_id, run_id=run_id, **order))
        return jobs[-1]

    yield make
    for job in jobs:
        for node in job.nodes:
            if node.poll() is None:
                os.kill(node.pid, signal.SIGKILL)
            node.wait()
        processes.end_all(job.order["runId"], grace_s=0)
