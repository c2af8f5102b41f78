"""The command line between pipes and interrupts: readers that go away, Ctrl-C while a run is submitted or watched."""

from __future__ import annotations

import json
import os
import pty
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtune import runs
from cloudtune.store import Store
from tests.processes import eventually

#: Sends an interrupt to itself when it is about to carry out a call of the local client.
INTERRUPTED = """
import os, signal, sys, time
from cloudtune.clients import process
from cloudtune.cli import main
send = process.ProcessClient.send
def interrupted(self, call, **more):
    if call.operation == "start":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
    return send(self, call, **more)
process.ProcessClient.send = interrupted
main()
"""


def cloudtune(*arguments: str, reader: bool = True, listener: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a verb; without a reader nobody reads its stdout, without a listener nobody its stderr."""
    there, writer = os.pipe()
    os.close(there)
    with os.fdopen(writer, "wb") as gone:
        return subprocess.run(
            [sys.executable, "-m", "cloudtune", *arguments],
            stdout=subprocess.PIPE if reader else gone,
            stderr=subprocess.PIPE if listener else gone,
            text=True,
            timeout=60,
            check=False,
        )


def job_file(folder: Path, command: str) -> str:
    path = folder / "job.yaml"
    runtime = {"type": "pyTorchDistributed", "spec": {"command": command}}
    path.write_text(json.dumps({"kind": "job", "spec": {"name": "j", "runtime": runtime}}))
    return str(path)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let what is started be interrupted, also where whoever started the tests ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def waiting(tmp_path: Path, gate: Path) -> str:
    """Return a job that speaks and waits until there is a gate."""
    return job_file(tmp_path, f"echo begun; while [ ! -e {gate} ]; do sleep 0.1; done")


def test_a_reader_that_went_away_is_no_error() -> None:
    done = cloudtune("schema", reader=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("form", [(), ("-o", "json")])
def test_a_run_that_nobody_reads_goes_on_and_is_not_called_a_success(
    form: tuple[str, ...], waiting: str, gate: Path
) -> None:
    run_id = cloudtune("run", "-d", "-q", "-f", waiting).stdout.strip()
    for done in (cloudtune("watch", run_id, *form, reader=False), cloudtune("run", "-f", waiting, reader=False)):
        assert done.returncode == 101
        assert "goes on; come back with: cloudtune watch" in done.stderr
        assert "Traceback" not in done.stderr
    gate.touch()
    for record in Store().runs():
        assert runs.get(record.id).wait(60).state == "succeeded"
    assert cloudtune("watch", run_id, *form, reader=False).returncode == 0


def test_lines_reach_a_pipe_at_once_beside_a_live_line_on_a_terminal(waiting: str, gate: Path) -> None:
    terminal, side = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "cloudtune", "run", "-f", waiting], stdout=subprocess.PIPE, stderr=side, text=True
    )
    os.close(side)
    talk = threading.Thread(target=drain, args=(terminal,), daemon=True)
    talk.start()
    assert run.stdout is not None
    with selectors.DefaultSelector() as ready:
        ready.register(run.stdout, selectors.EVENT_READ)
        came = ready.select(30)
    (record,) = Store().runs()
    gate.touch()
    assert came
    assert "main address" in run.stdout.readline()
    run.stdout.close()
    assert runs.get(record.id).wait(60).state == "succeeded"
    assert run.wait(60) in {0, 101}  # nobody reads: at once, or with the run's next line
    talk.join(60)


def drain(terminal: int) -> None:
    """Read what is shown on a terminal until nobody holds its other side."""
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:
        pass
    os.close(terminal)


def test_a_failure_that_nobody_reads_is_a_failure(tmp_path: Path) -> None:
    run_id = cloudtune("run", "-q", "-f", job_file(tmp_path, "echo broken; exit 7")).stdout.strip()
    assert cloudtune("watch", run_id, reader=False).returncode == 100
    assert cloudtune("run", "-o", "json", "-f", str(tmp_path / "job.yaml"), reader=False).returncode == 100


def test_a_submission_does_not_stop_because_nobody_listens(tmp_path: Path) -> None:
    done = cloudtune("run", "-f", job_file(tmp_path, "echo heard"), listener=False)
    assert done.returncode == 0
    assert "[0/0] heard" in done.stdout.splitlines()


def test_an_interrupted_submission_names_the_run_and_how_to_go_on(tmp_path: Path) -> None:
    file = job_file(tmp_path, "true")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "run", "-f", file], capture_output=True, text=True, timeout=60, check=False
    )
    (record,) = Store().runs()
    assert done.returncode == 130
    assert done.stderr.splitlines()[0] == f"run {record.id} (j)"
    assert f"go on with: cloudtune run --resume {record.id}" in done.stderr
    assert "Traceback" not in done.stderr
    resumed = cloudtune("run", "--resume", record.id)
    assert resumed.returncode == 0, resumed.stderr
    assert len(Store().runs()) == 1


@pytest.mark.parametrize("form", [(), ("-o", "json")])
def test_an_interrupted_watch_says_how_to_come_back(form: tuple[str, ...], waiting: str, gate: Path) -> None:
    run_id = cloudtune("run", "-d", "-q", "-f", waiting).stdout.strip()
    watch = subprocess.Popen(
        [sys.executable, "-m", "cloudtune", "watch", run_id, *form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    eventually(lambda: "begun" in watch.stdout.readline())  # type: ignore[union-attr]
    watch.send_signal(signal.SIGINT)
    _, said = watch.communicate(timeout=60)
    assert watch.returncode == 130
    assert f"cloudtune watch {run_id}" in said
    assert f"cloudtune cancel {run_id}" in said
    gate.touch()
    assert runs.get(run_id).wait(60).state == "succeeded"
