"""The client of local runs: what travels into a run's folder, and what its calls answer."""

from __future__ import annotations

import fcntl
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloudtune import jobs
from cloudtune.clients import process
from cloudtune.clients.process import ProcessClient
from cloudtune.errors import RunNotFound, ServiceError
from cloudtune.home import runs_folder
from cloudtune.node.report import write_json
from cloudtune.plan import Call
from cloudtune.runs import Run
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PythonRuntime, PyTorchDistributedRuntime, ScriptRuntime
from tests.processes import eventually


def call(operation: str, run_id: str, **parameters: object) -> Call:
    return Call(service="process", operation=operation, parameters={"runId": run_id, **parameters})


def staged(run_id: str) -> Path:
    ProcessClient().send(call("stage", run_id, nodes=0, python=None, order=None))
    return runs_folder() / run_id


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], object]]:
    """Hold the lock of a run's folder, as its supervisor does; gives what lets go of it early."""
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lambda: fcntl.flock(lock, fcntl.LOCK_UN)


def meanwhile(monkeypatch: pytest.MonkeyPatch, deed: Callable[[], object]) -> None:
    """Let something happen, once, right after it was looked whether a run is alive."""
    held, left = process._held, [deed]

    def looked(folder: Path) -> bool:
        answer = held(folder)
        if left:
            left.pop()()
        return answer

    monkeypatch.setattr(process, "_held", looked)


def texts(run: Run) -> list[str]:
    return [line.text for line in run.lines() if line.stream != "agent"]


def test_a_folder_of_code_runs_from_its_entrypoint(tmp_path: Path) -> None:
    code = tmp_path / "code"
    (code / "inner").mkdir(parents=True)
    (code / "inner" / "main.py").write_text("import sys, near; print(near.WORD, sys.argv[1:])\n")
    (code / "inner" / "near.py").write_text("WORD = 'beside'\n")
    (code / "secret.txt").write_text("not for the job")
    (code / ".gitignore").write_text("secret.txt\n")
    runtime = PythonRuntime(script_path_uri=str(code), entrypoint="inner/main.py", args=("--x", "a b"))
    run = jobs.start(JobSpec(name="code", runtime=runtime))
    assert run.wait(60).state == "succeeded"
    assert texts(run) == ["beside ['--x', 'a b']"]
    assert not list((runs_folder() / run.id / "node-0").rglob("secret.txt"))


def test_an_archive_of_the_user_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("main.py", "print('from the archive')\n")
    runtime = ScriptRuntime(script_path_uri=str(tmp_path / "code.zip"), entrypoint="main.py")
    run = jobs.start(JobSpec(name="zip", runtime=runtime))
    run.wait(60)
    assert texts(run) == ["from the archive"]


def test_a_folder_that_holds_one_archive_stays_a_folder(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    with zipfile.ZipFile(tmp_path / "code" / "data.zip", "w") as archive:
        archive.writestr("inside.txt", "1")
    runtime = PyTorchDistributedRuntime(command="ls", script_path_uri=str(tmp_path / "code"), replicas=1)
    run = jobs.start(JobSpec(name="data", runtime=runtime))
    run.wait(60)
    assert texts(run) == ["data.zip"]


def test_nodes_leave_their_outputs_apart() -> None:
    command = 'echo "$CLOUDTUNE_NODE_RANK" > "$CLOUDTUNE_OUTPUT_DIR/who.txt"'
    run = jobs.start(JobSpec(name="outputs", runtime=PyTorchDistributedRuntime(command=command, replicas=3)))
    status = run.wait(60)
    assert status.state == "succeeded"
    place = Path(status.outputs[0].removeprefix("file://"))
    assert (place / "who.txt").read_text() == "0\n"
    assert (place / "node-1" / "who.txt").read_text() == "1\n"
    assert (place / "node-2" / "who.txt").read_text() == "2\n"
    assert sorted(path.name for path in (place / "logs").glob("*.log")) == ["node-0.log", "node-1.log", "node-2.log"]


def test_outputs_are_kept_when_the_job_fails(tmp_path: Path) -> None:
    command = 'echo half > "$CLOUDTUNE_OUTPUT_DIR/half.txt"; exit 5'
    runtime = PyTorchDistributedRuntime(command=command, output_uri=str(tmp_path / "kept"))
    run = jobs.start(JobSpec(name="outputs", runtime=runtime))
    assert run.wait(60).state == "failed"
    assert (tmp_path / "kept" / "half.txt").read_text() == "half\n"
    run.delete()
    assert (tmp_path / "kept" / "half.txt").exists()


def test_the_contract_s_variables_are_there() -> None:
    command = "env | grep -E '^(CLOUDTUNE_|PET_|MASTER_)' | sort"
    run = jobs.start(JobSpec(name="env", runtime=PyTorchDistributedRuntime(command=command, replicas=2)))
    run.wait(60)
    by_node = {
        replica: dict(
            line.text.split("=", 1)
            for line in run.logs(replica=replica)
            if "=" in line.text and line.stream == "stdout"
        )
        for replica in (0, 1)
    }
    for replica, found in by_node.items():
        assert found["CLOUDTUNE_RUN_ID"] == run.id
        assert found["CLOUDTUNE_NODE_RANK"] == str(replica)
        assert found["CLOUDTUNE_NUM_NODES"] == "2"
        assert found["CLOUDTUNE_PROCESSES_PER_NODE"] == "1"
        assert found["CLOUDTUNE_MAIN_ADDR"] == found["MASTER_ADDR"]
        assert found["CLOUDTUNE_MAIN_PORT"] == found["MASTER_PORT"]


def test_a_full_run_is_not_removed_while_it_goes_on() -> None:
    run = jobs.start(JobSpec(name="long", runtime=PyTorchDistributedRuntime(command="sleep 60")))
    eventually(lambda: run.state == "running")
    client = ProcessClient()
    remove = Call(service="process", operation="remove", parameters={"runId": run.id})
    with pytest.raises(ServiceError, match="still going"):
        client.send(remove)
    run.cancel()
    client.send(remove)
    with pytest.raises(RunNotFound):
        client.read(Call(service="process", operation="describe", parameters={"runId": "zzzzzzzz"}))


def test_steps_sent_twice_change_nothing() -> None:
    run = jobs.start(JobSpec(name="twice", runtime=PyTorchDistributedRuntime(command="echo once")))
    run.wait(60)
    start = Call(service="process", operation="start", parameters={"runId": run.id, "environment": {}})
    ProcessClient().send(start, token=run.id)
    assert texts(run) == ["once"]
    assert json.loads((runs_folder() / run.id / "result.json").read_text())["state"] == "succeeded"


def test_a_run_that_starts_while_it_is_looked_at_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = staged("starts00")
    with locked(folder):
        taken = (folder / "lock").rename(folder / "kept")  # as long as it is not taken, nobody holds it

        def start() -> None:
            taken.rename(folder / "lock")
            write_json(folder / "state.json", {"state": "starting"})

        meanwhile(monkeypatch, start)
        assert ProcessClient().read(call("describe", "starts00"))["state"] == "pending"
        write_json(folder / "state.json", {"state": "running"})
        assert ProcessClient().read(call("describe", "starts00"))["state"] == "running"
    assert ProcessClient().read(call("describe", "starts00"))["state"] == "lost"


def test_a_run_that_is_reset_while_it_is_looked_at_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = staged("resets00")
    write_json(folder / "state.json", {"state": "running"})
    write_json(folder / "result.json", {"state": "failed"})
    meanwhile(monkeypatch, lambda: ProcessClient().send(call("reset", "resets00")))
    assert ProcessClient().read(call("describe", "resets00"))["state"] == "pending"


@pytest.mark.parametrize("operation", ["reset", "remove"])
def test_a_supervisor_that_has_told_its_result_is_waited_for(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = staged("ending00")
    write_json(folder / "result.json", {"state": "failed"})
    with locked(folder) as let_go:
        meanwhile(monkeypatch, let_go)
        ProcessClient().send(call(operation, "ending00"))
    assert not (folder / "result.json").exists()


def test_a_log_that_is_removed_while_it_is_read_is_told_in_plain_words(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = staged("removed0")
    (folder / "node-0").mkdir()
    (folder / "node-0" / "log").write_text("a line\n")
    read = call("read_logs", "removed0", offsets={}, cursor=None)
    assert ProcessClient().read(read)["logs"] == {"0": "a line\n"}

    def removed() -> float:
        (folder / "node-0" / "log").unlink(missing_ok=True)
        return 0.0

    with monkeypatch.context() as patch:
        patch.setattr("time.time", removed)
        with pytest.raises(RunNotFound, match="removed meanwhile"):
            ProcessClient().read(read)
    (folder / "node-0" / "log").mkdir()
    with pytest.raises(ServiceError, match="Is a directory"):
        ProcessClient().read(read)
