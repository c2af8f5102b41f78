"""What the node agent adds to a bare torchrun of the same script: CPU seconds a node, in pairs.

    python benchmarks/agent_overhead.py

Two nodes on loopback addresses, one process each. The bare run is `python -m torch.distributed.run` with the ranks on
its command line; the other is the agent as a local run starts it, with code archive, roll-call, per-rank pipes, log
and outputs. Both meet through torch's static rendezvous and run a script that only says hello, so that what differs is
the agent. Rounds alternate; the first does not count. CPU time is user and system time of each node's process and its
children, from wait4.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cloudtune import Job, PyTorchDistributedRuntime
from cloudtune.clients.process import ProcessClient
from cloudtune.node.supervisor import address, free_ports
from cloudtune.plan import Call

NODES = 2
#: CPU seconds a node that the agent may add.
GOAL_S = 0.30
SCRIPT = 'import os\n\nprint("hello from rank", os.environ["RANK"], "of", os.environ["WORLD_SIZE"], flush=True)\n'


def cpu_of(processes: list[subprocess.Popen[bytes]]) -> list[float]:
    """Wait for the nodes and return what each took; a failing one ends the benchmark."""
    taken = []
    for process in processes:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        taken.append(usage.ru_utime + usage.ru_stime)
    if any(process.returncode for process in processes):
        sys.exit(f"a node failed: exit codes {[process.returncode for process in processes]}; see the lines above")
    return taken


def run_bare(folder: Path) -> list[float]:
    """Run torchrun on each node without anything of cloudtune's."""
    main = address(0)
    port = free_ports(main, 1)[0]
    nodes = []
    for rank in range(NODES):
        where = ["--master-addr", main, "--master-port", str(port), "--local-addr", address(rank)]
        size = ["--nnodes", str(NODES), "--node-rank", str(rank), "--nproc-per-node", "1"]
        argv = [sys.executable, "-m", "torch.distributed.run", *size, *where, "hello.py"]
        nodes.append(subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
    return cpu_of(nodes)


def run_agents(folder: Path) -> list[float]:
    """Run the same through the agent of each node, started as the local backend's supervisor starts it."""
    runtime = PyTorchDistributedRuntime(
        command="torchrun hello.py", replicas=NODES, processes_per_node=1, script_path_uri=str(folder / "hello.py")
    )
    plan = Job(name="overhead", runtime=runtime).plan()
    stage = plan.steps[0]
    call = Call(service=stage.service, operation=stage.operation, parameters=stage.parameters)
    staged = Path(ProcessClient().send(call, files=stage.files)["folder"])
    main = address(0)
    port, roll_port = free_ports(main, 2)
    nodes = []
    for rank in range(NODES):
        place = staged / f"node-{rank}"
        place.mkdir()
        environment = {
            **os.environ,
            "CLOUDTUNE_PLACE": "local",
            "CLOUDTUNE_RUN_ID": plan.run_id,
            "CLOUDTUNE_NODE_RANK": str(rank),
            "CLOUDTUNE_NUM_NODES": str(NODES),
            "CLOUDTUNE_MAIN_ADDR": main,
            "CLOUDTUNE_MAIN_PORT": str(port),
            "CLOUDTUNE_ROLL_PORT": str(roll_port),
            "CLOUDTUNE_LOCAL_ADDR": address(rank),
        }
        argv = [sys.executable, "-I", "-S", str(staged / "agent.pyz"), "run"]
        argv += ["--order", str(staged / "order.json"), "--directory", str(place)]
        nodes.append(
            subprocess.Popen(argv, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        )
    taken = cpu_of(nodes)
    shutil.rmtree(staged)
    return taken


def main() -> None:
    """Measure in pairs and print the difference a node."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="pairs that count (default: 9)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    bare: list[list[float]] = []
    agent: list[list[float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "hello.py").write_text(SCRIPT)
        os.environ["CLOUDTUNE_HOME"] = str(folder / "home")
        os.environ["OMP_NUM_THREADS"] = "1"
        for number in range(options.rounds + 1):
            pair = (run_bare(folder), run_agents(folder))
            if number:
                bare.append(pair[0])
                agent.append(pair[1])
    rows: list[dict[str, Any]] = []
    for rank in range(NODES):
        one, other = [taken[rank] for taken in bare], [taken[rank] for taken in agent]
        added = [b - a for a, b in zip(one, other, strict=True)]
        rows.append(
            {
                "node": rank,
                "bareSeconds": round(statistics.median(one), 3),
                "agentSeconds": round(statistics.median(other), 3),
                "addedSeconds": round(statistics.median(added), 3),
                "addedRange": [round(min(added), 3), round(max(added), 3)],
                "goal": GOAL_S,
                "met": statistics.median(added) <= GOAL_S,
            }
        )
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("| node | bare torchrun, CPU s | through the agent | added (median of pairs) | range | goal |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        low, high = row["addedRange"]
        print(
            f"| {row['node']} | {row['bareSeconds']:.2f} | {row['agentSeconds']:.2f} | {row['addedSeconds']:.2f} "
            f"| {low:.2f} to {high:.2f} | {GOAL_S:.2f} {'met' if row['met'] else 'missed'} |"
        )


if __name__ == "__main__":
    main()
