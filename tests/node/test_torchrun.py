"""Two nodes under the real torchrun, over gloo on loopback."""

from __future__ import annotations

import importlib.util
import os
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtune.node.failure import first_failure
from tests.node.running import Job
from tests.processes import eventually

TRAIN = """
import os, pathlib, sys, time
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
pathlib.Path(sys.argv[1], str(rank)).write_text(str(os.getpid()))
print("rank", rank, "of", world, "local", os.environ["LOCAL_RANK"], "node", os.environ["CLOUDTUNE_NODE_RANK"])
print("also on stderr", rank, file=sys.stderr)
for step in range(2000):
    total = torch.ones(1)
    dist.all_reduce(total)
    assert total.item() == world
    time.sleep(0.02)
"""


@pytest.mark.heavy
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_ranks_labels_and_the_first_failure_of_a_killed_rank(new_job: Callable[..., Job], tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(textwrap.dedent(TRAIN))
    pids = tmp_path / "pids"
    pids.mkdir()
    job = new_job(
        launcher="torchrun",
        command=f"torchrun {tmp_path}/train.py {pids}",
        nodes=2,
        processesPerNode=2,
        environment={"OMP_NUM_THREADS": "1"},
    )
    for node in (0, 1):
        job.start(node)

    def said(rank: int) -> bool:
        node, local = divmod(rank, 2)
        words = f"rank {rank} of 4 local {local} node {node}"
        return {(rank, "stdout", words), (rank, "stderr", f"also on stderr {rank}")} <= set(job.lines(node))

    eventually(lambda: all(said(rank) for rank in range(4)), within_s=120)
    os.kill(int((pids / "2").read_text()), signal.SIGKILL)
    assert job.wait(timeout_s=120) == [1, 1]
    reports = [job.report(0), job.report(1)]
    failure = first_failure(reports)
    assert failure is not None
    assert (failure["replica"], failure["rank"], failure["exitCode"], failure["signal"]) == (1, 2, 137, "SIGKILL")
    assert failure["lines"][-1] in ("rank 2 of 4 local 0 node 1", "also on stderr 2")
    victims = {rank["rank"] for report in reports for rank in report["ranks"] if rank["exitCode"]} - {2}
    assert victims == {0, 1, 3}
