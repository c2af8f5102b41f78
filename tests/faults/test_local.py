"""What local runs do when things go wrong: processes killed, terminals closed, nodes that will not end."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtune import jobs, runs
from cloudtune.home import runs_folder
from cloudtune.runs import Run
from cloudtune.spec.infrastructure import LocalJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from tests.node.running import small_disk
from tests.processes import eventually, running


@pytest.fixture
def mark() -> str:
    """Return a length of sleep that nobody else sleeps: it marks this test's processes in the table."""
    return f"{random.randrange(10**5, 10**6)}.{random.randrange(10**5, 10**6)}"


def start(command: str, *, replicas: int = 2) -> Run:
    runtime = PyTorchDistributedRuntime(command=command, replicas=replicas)
    return jobs.start(JobSpec(name="fault", infrastructure=LocalJob(), runtime=runtime))


def supervisor_pid(run: Run) -> int:
    return int(json.loads((runs_folder() / run.id / "state.json").read_text())["pid"])


def test_cancel_ends_every_process_of_every_node(mark: str) -> None:
    # one that ignores the polite signal, one in a session of its own, one orphaned, one without the run's variables
    command = (
        f"(trap '' TERM; sleep {mark}) & setsid sleep {mark} & (setsid sh -c 'sleep {mark} & sleep {mark}' &) ;"
        f" env -i setsid sleep {mark} & sleep {mark}"
    )
    run = start(command)
    eventually(lambda: len(running(f"sleep {mark}")) >= 10)
    status = run.cancel()
    assert status.state == "cancelled"
    assert running(mark) == []


def test_a_killed_process_is_named_and_its_peers_are_ended(mark: str) -> None:
    run = start(f"echo started; exec sleep {mark}")
    victims = eventually(lambda: len(found := running(f"sleep {mark}")) == 2 and found)
    folder = runs_folder() / run.id
    of_node_1 = [pid for pid in victims if "node-1" in str(Path(f"/proc/{pid}/cwd").readlink())]  # type: ignore[attr-defined]
    os.kill(of_node_1[0], signal.SIGKILL)
    status = run.wait(60)
    assert status.state == "failed"
    assert status.failure is not None
    assert (status.failure.replica, status.failure.signal) == (1, "SIGKILL")
    assert status.failure.lines[-1] == "started"
    assert running(mark) == []
    assert json.loads((folder / "result.json").read_text())["failure"]["replica"] == 1


def test_the_nodes_end_with_their_supervisor(mark: str) -> None:
    run = start(f"sleep {mark}")
    eventually(lambda: len(running(f"sleep {mark}")) >= 2)
    os.kill(supervisor_pid(run), signal.SIGKILL)
    status = run.wait(60)
    assert status.state == "lost"
    assert "supervisor" in (status.reason or "")
    assert run.exit_code == 100
    eventually(lambda: running(mark) == [])
    assert run.cancel().state == "lost"


def test_a_killed_agent_fails_the_run_and_leaves_nothing(mark: str) -> None:
    run = start(f"sleep {mark}")
    eventually(lambda: len(running(f"sleep {mark}")) >= 2)
    agents = json.loads((runs_folder() / run.id / "state.json").read_text())["nodes"]
    os.kill(agents[1], signal.SIGKILL)
    status = run.wait(60)
    assert status.state == "failed"
    assert status.failure is not None
    assert status.failure.replica == 1
    assert running(mark) == []


def test_a_server_that_names_a_run_of_its_own_outlives_the_job(mark: str) -> None:
    run = start(
        f"CLOUDTUNE_RUN_ID=serve-{mark} setsid sleep {mark} & sleep 0.3; setsid sleep {mark} & true", replicas=1
    )
    try:
        assert run.wait(60).state == "succeeded"
        left = running(f"sleep {mark}")
        assert len(left) == 1
        assert f"CLOUDTUNE_RUN_ID=serve-{mark}".encode() in Path(f"/proc/{left[0]}/environ").read_bytes()
    finally:
        for pid in running(f"sleep {mark}"):
            os.kill(pid, signal.SIGKILL)


def cli(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cloudtune", *arguments]


def test_a_run_that_a_job_submits_outlives_the_job(mark: str, tmp_path: Path) -> None:
    inner = job_file(tmp_path, f"sleep {mark}", nodes=1)
    outer = start(f"{shlex.join(cli('run', '-q', '-d', '-f', inner))} && echo submitted", replicas=1)
    status = outer.wait(120)
    assert status.state == "succeeded", (status.reason, [line.text for line in outer.lines()][-20:])
    (run,) = (run for run in runs.runs() if run.id != outer.id)
    try:
        eventually(lambda: running(f"sleep {mark}"))
        assert run.state == "running"
    finally:
        run.cancel()
    assert running(mark) == []


def job_file(tmp_path: Path, command: str, *, nodes: int = 2) -> str:
    path = tmp_path / "job.yaml"
    runtime = {"kind": "runtime", "type": "pyTorchDistributed", "spec": {"command": command, "replicas": nodes}}
    path.write_text(json.dumps({"kind": "job", "spec": {"name": "cli", "runtime": runtime}}))
    return str(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_the_run_outlives_the_terminal(number: signal.Signals, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    file = job_file(tmp_path, f"echo begun; while [ ! -e {gate} ]; do sleep 0.1; done; echo done")
    client = subprocess.Popen(cli("run", "-f", file), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert client.stdout is not None
    for line in client.stdout:
        if "begun" in line:
            break
    client.send_signal(number)
    _, said = client.communicate(timeout=60)
    run = runs.runs()[0]
    if number == signal.SIGINT:
        assert client.returncode == 130
        assert f"cloudtune watch {run.id}" in said
        assert f"cloudtune cancel {run.id}" in said
    assert run.state == "running"
    gate.touch()
    watched = subprocess.run(cli("watch", run.id[:7]), capture_output=True, text=True, timeout=60, check=False)
    assert watched.returncode == 0, watched.stderr
    said_at_the_end = [line for line in watched.stdout.splitlines() if line.endswith("] done")]
    assert sorted(said_at_the_end) == ["[0/0] done", "[1/1] done"]
    again = subprocess.run(cli("watch", run.id, "-o", "json"), capture_output=True, text=True, timeout=60, check=False)
    texts = [json.loads(line) for line in again.stdout.splitlines()]
    assert sorted((one["replica"], one["rank"]) for one in texts if one["text"] == "done") == [(0, 0), (1, 1)]


def test_exit_codes_tell_how_it_ended(tmp_path: Path) -> None:
    good = subprocess.run(
        cli("run", "-f", job_file(tmp_path, "true")), capture_output=True, text=True, timeout=60, check=False
    )
    assert good.returncode == 0, good.stderr
    bad = subprocess.run(
        cli("run", "-f", job_file(tmp_path, "echo broken >&2; exit 7")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert bad.returncode == 100
    assert "exit code 7" in bad.stderr
    assert "broken" in bad.stderr
    missing = subprocess.run(cli("status", "zzzzzzzz"), capture_output=True, text=True, timeout=60, check=False)
    assert missing.returncode == 102
    wrong = subprocess.run(cli("run", "-f", "nowhere.yaml"), capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_a_job_that_fills_the_disk_has_a_result_that_says_how_it_failed(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    prefix = small_disk(home, "2m")
    file = job_file(tmp_path, 'echo begun; head -c 3000000 /dev/zero > "$CLOUDTUNE_OUTPUT_DIR/model"; exit 3', nodes=1)
    command = [*prefix, *cli("run", "-q", "-o", "json", "-f", file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 100, done.stderr
    told = json.loads(done.stdout)
    assert (told["state"], told["reason"]) == ("failed", "replica 0, rank 0, ended with exit code 3")
    assert "begun" in told["failure"]["lines"]


def test_a_run_that_was_never_started_can_be_cancelled_and_deleted() -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    runtime = PyTorchDistributedRuntime(command="true")
    with pytest.raises(KeyboardInterrupt):
        jobs.start(JobSpec(name="fault", infrastructure=LocalJob(), runtime=runtime), announce=interrupt)
    (run,) = runs.runs()
    assert run.state == "pending"
    assert not (runs_folder() / run.id).exists()
    assert run.cancel().state == "cancelled"
    run.delete()
    assert runs.runs() == []
    assert not (runs_folder() / run.id).exists()


def test_a_run_that_has_ended_is_left_as_it_is_and_can_be_deleted() -> None:
    run = start("true")
    run.wait(60)
    assert run.cancel().state == "succeeded"
    run.delete()
    assert runs.runs() == []
    assert not (runs_folder() / run.id / "run.json").exists()
