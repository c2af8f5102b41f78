"""Runs agents as a supervisor does: one process a node, in a session of its own, told its place by variables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloudtune.node.lines import parse_line
from cloudtune.node.supervisor import free_ports

Line = tuple[int | None, str, str]


def free_port() -> int:
    """Return a port that is free on every address, and that the kernel gives to nobody who asks for any."""
    return free_ports(1)[0]


def small_disk(folder: Path, size: str) -> tuple[str, ...]:
    """Return a prefix that runs a command where the folder is a disk of that size; skips where that is not allowed."""
    mount = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
    prefix = ("unshare", "-Urm", "sh", "-c", mount, str(folder))
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this machine allows no mounts of one's own")
    return prefix


class Job:
    """The nodes of one job below a folder."""

    def __init__(self, agent: Path, folder: Path, *, run_id: str, python: str = sys.executable, **order: Any) -> None:
        self.agent = agent
        self.folder = folder
        self.python = python
        self.order = {"runId": run_id, "graceInSeconds": 5, **order}
        self.port, self.roll_port = free_ports(2)
        self.nodes: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "order.json").write_text(json.dumps(self.order))

    def start(self, rank: int, *, fds: tuple[int, ...] = (), prefix: tuple[str, ...] = (), **variables: str) -> None:
        """Start one node."""
        place = self.folder / f"node-{rank}"
        place.mkdir(exist_ok=True)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("COV_")},
            "CLOUDTUNE_PLACE": "local",
            "CLOUDTUNE_RUN_ID": self.order["runId"],
            "CLOUDTUNE_NODE_RANK": str(rank),
            "CLOUDTUNE_NUM_NODES": str(self.order.get("nodes", 1)),
            "CLOUDTUNE_MAIN_ADDR": "127.0.0.2",
            "CLOUDTUNE_MAIN_PORT": str(self.port),
            "CLOUDTUNE_ROLL_PORT": str(self.roll_port),
            "CLOUDTUNE_LOCAL_ADDR": f"127.0.0.{2 + rank}",
            **variables,
        }
        command = [*prefix, self.python, "-I", "-S", str(self.agent), "run"]
        command += ["--order", str(self.folder / "order.json"), "--directory", str(place)]
        with (place / "log").open("ab") as log:
            self.nodes.append(
                subprocess.Popen(
                    command,
                    cwd=place,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=fds,
                )
            )

    def run(self, *, timeout_s: float = 60.0, **variables: str) -> list[int]:
        """Start all nodes and wait for them; return their exit codes."""
        for rank in range(int(self.order.get("nodes", 1))):
            self.start(rank, **variables)
        return self.wait(timeout_s=timeout_s)

    def wait(self, *, timeout_s: float = 60.0) -> list[int]:
        """Wait for the nodes that were started; return their exit codes."""
        return [node.wait(timeout=timeout_s) for node in self.nodes]

    def report(self, rank: int = 0) -> dict[str, Any]:
        """Return the report of a node."""
        report: dict[str, Any] = json.loads((self.folder / f"node-{rank}" / "report.json").read_text())
        return report

    def log(self, rank: int = 0) -> str:
        """Return the log of a node."""
        path = self.folder / f"node-{rank}" / "log"
        return path.read_text() if path.exists() else ""

    def lines(self, rank: int = 0, *, stream: str | None = None) -> list[Line]:
        """Return (rank, stream, text) of a node's log; every line must be one of the agent's form."""
        found = []
        for text in self.log(rank).splitlines():
            parsed = parse_line(text)
            assert parsed is not None, f"not a line of the log: {text!r}"
            if stream is None or parsed[2] == stream:
                found.append(parsed[1:])
        return found

    def texts(self, rank: int = 0, *, stream: str = "stdout") -> list[str]:
        """Return the texts of one stream."""
        return [text for _, _, text in self.lines(rank, stream=stream)]
