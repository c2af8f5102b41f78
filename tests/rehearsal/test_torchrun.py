"""A job of two nodes as a service would run it: torchrun finds node-0 by its name in the private hosts file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtune.rehearsal.addresses import Addresses
from cloudtune.rehearsal.logs import Log
from cloudtune.rehearsal.nodes import Node, Place
from cloudtune.rehearsal.runner import Nodes, wait_for

TRAIN = r"""
import os, socket, sys
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(rank)
# both ranks of a node share its output, and the `python -u` of torchrun writes the end of a printed line by itself
line = f"rank {dist.get_rank()} of {dist.get_world_size()} on {socket.gethostname()}: {rank.item():g}\n"
os.write(sys.stdout.fileno(), line.encode())
if os.environ["LOCAL_RANK"] == "0":
    open("/opt/ml/model/sum", "w").write(str(rank.item()))
dist.barrier()
dist.destroy_process_group()
os._exit(0)  # a thread of Gloo may still free a tensor, which aborts where the interpreter is going: pytorch#179291
"""


@pytest.mark.heavy
def test_torchrun_over_two_nodes_by_their_names(nodes: Nodes, tmp_path: Path) -> None:
    names = ["node-0", "node-1"]
    hosts = dict(zip(names, Addresses().take(2), strict=True))
    (tmp_path / "train.py").write_text(TRAIN)
    log, started = Log(), []
    for rank, name in enumerate(names):
        (tmp_path / name / "model").mkdir(parents=True)
        flags = f"--nnodes 2 --nproc-per-node 2 --node-rank {rank} --master-addr node-0 --master-port 7777"
        node = Node(
            name=name,
            folder=tmp_path / name,
            command=(
                "sh",
                "-c",
                f"exec python -m torch.distributed.run {flags} --local-addr {name} /opt/ml/code/train.py",
            ),
            environment={"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            binds={
                "/opt/ml/model": tmp_path / name / "model",
                "/opt/ml/code/train.py": Place(source=tmp_path / "train.py", read_only=True),
            },
            hosts=hosts,
        )
        started.append(nodes.start(node, log.append))
    ends = wait_for(started, timeout_s=300)
    said = sorted(line.text for line in log.read() if line.text.startswith("rank"))
    assert [end.code for end in ends if end] == [0, 0], [line.text for line in log.read()]
    assert said == [f"rank {rank} of 4 on node-{rank // 2}: 10" for rank in range(4)]
    assert [(tmp_path / name / "model" / "sum").read_text() for name in names] == ["10.0", "10.0"]
    assert not Path("/opt/ml/model/sum").exists()
