"""The supervisor of a local run, in the moments between its start and its first word."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtune.node import supervisor
from cloudtune.node.pack import agent_bytes
from tests.processes import eventually

ROOT = Path(__file__).resolve().parents[2]
#: Keeps the run of a folder in this very process, which is sent a signal as soon as others know of it.
SIGNALLED = """
import os, signal, sys
from pathlib import Path
from cloudtune.node import supervisor
supervisor.detach = lambda: lambda: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(supervisor.supervise(Path(sys.argv[1])))
"""
#: Goes on in a child, and says that it is ready when nobody waits for that any more.
LEFT_ALONE = """
import os, signal, sys, time
from pathlib import Path
from cloudtune.node.supervisor import detach
waiting = os.getpid()
ready = detach()
os.kill(waiting, signal.SIGKILL)
while os.getppid() == waiting:
    time.sleep(0.01)
ready()
Path(sys.argv[1]).touch()
"""


def run(script: str, argument: Path) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, str(argument)]
    return subprocess.run(command, env=environment, timeout=120, check=False).returncode


def test_a_run_that_is_cancelled_as_soon_as_it_shows_is_cancelled_and_not_lost(tmp_path: Path) -> None:
    order = {"runId": "early000", "command": "sleep 600", "graceInSeconds": 0, "processesPerNode": 1}
    (tmp_path / "order.json").write_text(json.dumps(order))
    (tmp_path / "run.json").write_text(json.dumps({"runId": "early000", "nodes": 1, "python": sys.executable}))
    (tmp_path / "agent.pyz").write_bytes(agent_bytes())
    assert run(SIGNALLED, tmp_path) == 1
    assert json.loads((tmp_path / "result.json").read_text())["state"] == "cancelled"


def test_a_full_disk_ends_no_run_that_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    (tmp_path / "order.json").write_text("{}")
    (tmp_path / "run.json").write_text("{}")
    keeper = supervisor.Supervisor(tmp_path)
    monkeypatch.setattr(supervisor, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        keeper.tell("starting")
    keeper.tell("running")
    assert [event["text"] for event in keeper.events] == ["starting", "running"]
    for end in (keeper.wake_read, keeper.wake_write):
        os.close(end)


def test_a_process_goes_on_though_nobody_waits_for_its_first_word(tmp_path: Path) -> None:
    run(LEFT_ALONE, tmp_path / "on")
    eventually((tmp_path / "on").exists)


def test_ports_of_a_run_are_none_that_the_kernel_gives_away() -> None:
    with socket.socket() as anybody:
        anybody.bind(("", 0))
        given = anybody.getsockname()[1]
    assert given > max(supervisor.free_ports(50))
    assert len(set(supervisor.free_ports(50))) == 50


def test_a_port_that_somebody_has_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as somebody:
        (taken,) = supervisor.free_ports(1)
        somebody.bind(("127.0.0.3", taken))
        monkeypatch.setattr(random.SystemRandom, "sample", lambda *_: [taken, taken + 1])
        found = supervisor.free_ports(2)
    assert taken not in found
    assert len(set(found)) == 2
