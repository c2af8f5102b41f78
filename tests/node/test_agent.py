"""The agent as a real process, with trainers of a few lines of standard library."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tarfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudtune.node import processes
from cloudtune.node.accelerators import none_at_all
from cloudtune.node.failure import first_failure
from tests.node.running import Job, small_disk
from tests.processes import eventually

NewJob = Callable[..., Job]


def python(script: str) -> list[str]:
    return ["python", "-S", "-c", textwrap.dedent(script)]


def pack(job: Job, **files: str) -> None:
    """Put an archive with the files beside the order; a double underscore in a name is a slash."""
    with tarfile.open(job.folder / "code.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            data = textwrap.dedent(text).encode()
            info = tarfile.TarInfo(name.replace("__", "/").replace("_py", ".py").replace("_txt", ".txt"))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


ARCHIVE = {"kind": "archive", "path": "code.tar.gz"}


def kept_in(folder: Path) -> dict[str, Any]:
    return {"dir": None, "uri": f"file://{folder}", "layout": "perNode"}


def test_a_plain_command_from_its_code_to_its_outputs(new_job: NewJob, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.txt").write_text("3")
    job = new_job(
        command="python -S train.py --x 1",
        code=ARCHIVE,
        workingDir="app",
        pythonPath=["lib"],
        environment={"COLOUR": "blue"},
        inherited=["FROM_SHELL"],
        inputs={f"file://{tmp_path}/data": "in", str(tmp_path / "data" / "rows.txt"): "copied/"},
        outputs={**kept_in(tmp_path / "kept"), "dir": "out"},
    )
    train = """
        import json, os, pathlib, sys, helper
        pathlib.Path("out/sub").mkdir(parents=True)
        facts = {name: os.environ[name] for name in ("COLOUR", "FROM_SHELL", "CLOUDTUNE_OUTPUT_DIR", "RANK")}
        facts["rows"] = pathlib.Path("in/rows.txt").read_text() + pathlib.Path("copied/rows.txt").read_text()
        facts["argv"] = sys.argv
        pathlib.Path(os.environ["CLOUDTUNE_OUTPUT_DIR"], "sub", "facts.json").write_text(json.dumps(facts))
        print(helper.WORD)
        print("to stderr", file=sys.stderr)
    """
    pack(job, app__train_py=train, app__lib__helper_py="WORD = 'helped'")
    assert job.run(FROM_SHELL="here") == [0], job.log()
    facts = json.loads((tmp_path / "kept" / "sub" / "facts.json").read_text())
    assert facts == {
        "COLOUR": "blue",
        "FROM_SHELL": "here",
        "CLOUDTUNE_OUTPUT_DIR": str(job.folder / "node-0" / "work" / "app" / "out"),
        "RANK": "0",
        "rows": "33",
        "argv": ["train.py", "--x", "1"],
    }
    lines = job.lines()
    assert (0, "stdout", "helped") in lines
    assert (0, "stderr", "to stderr") in lines
    assert (tmp_path / "kept" / "logs" / "node-0.log").read_text() == job.log()
    report = job.report()
    assert (report["node"], report["exitCode"], report["signal"], report["failure"]) == (0, 0, None, None)
    assert [(rank["rank"], rank["exitCode"]) for rank in report["ranks"]] == [(0, 0)]
    assert json.loads((tmp_path / "kept" / "logs" / "node-0.json").read_text()) == report
    assert not (job.folder / "node-0" / ".agent").exists()


def test_the_commands_exit_code_and_traceback_are_passed_on(new_job: NewJob, tmp_path: Path) -> None:
    script = """
        import os, pathlib, sys
        pathlib.Path(os.environ["CLOUDTUNE_OUTPUT_DIR"], "partial.txt").write_text("half")
        def inner(): raise ValueError("bad data")
        print("before")
        inner()
    """
    job = new_job(command=python(script), outputs=kept_in(tmp_path / "kept"))
    assert job.run() == [1]
    report = job.report()
    assert report["reason"] == "rank 0 failed (exit code 1); the command ended with exit code 1"
    failure = report["failure"]
    assert (failure["replica"], failure["rank"], failure["exitCode"], failure["signal"]) == (0, 0, 1, None)
    assert failure["traceback"].startswith("Traceback (most recent call last):\n")
    assert failure["traceback"].endswith("\nValueError: bad data")
    assert failure["lines"][0] == "before"
    assert (tmp_path / "kept" / "partial.txt").read_text() == "half"


@pytest.mark.parametrize(("command", "code", "name"), [("exit 42", 42, None), ("kill -9 $$", 137, "SIGKILL")])
def test_codes_and_signals(new_job: NewJob, command: str, code: int, name: str | None) -> None:
    job = new_job(command=command)
    assert job.run() == [code]
    report = job.report()
    assert (report["exitCode"], report["signal"], report["failure"]["signal"]) == (code, name, name)


def test_a_command_that_does_not_exist_is_the_nodes_failure(new_job: NewJob) -> None:
    job = new_job(command=["no-such-program"])
    assert job.run() == [125]
    assert job.report()["reason"] == (
        "cannot start no-such-program: No such file or directory; is it in the image and on PATH?"
    )
    assert job.report()["failure"]["rank"] is None


@pytest.mark.parametrize("nodes", [1, 2])
def test_several_processes_without_accelerators_are_told_so(new_job: NewJob, nodes: int) -> None:
    job = new_job(command="echo cpu=$ACCELERATE_USE_CPU", nodes=nodes, environment={})
    assert job.run() == [0] * nodes, job.log()
    assert job.texts() == ["cpu=true" if nodes > 1 and none_at_all() else "cpu="]


def test_argv_is_exact_and_lines_go_through_the_shell(new_job: NewJob) -> None:
    words = ["a b", "$HOME", "", "*", 'quo"te', "new\nline"]
    job = new_job(command=["python", "-S", "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", *words])
    assert job.run() == [0]
    assert json.loads(job.texts()[0]) == words
    job = new_job(command="echo $CLOUDTUNE_RUN_ID | tr a-z A-Z && echo two; exit 0")
    assert job.run() == [0]
    assert job.texts() == [job.order["runId"].upper(), "two"]


def test_bars_long_lines_and_broken_text(new_job: NewJob) -> None:
    script = r"""
        import sys
        out = sys.stdout.buffer
        out.write(b"\r 10%\r 20%\r100%\n" + b"x" * 200_000 + b"\n" + b"\xff\xfe\n" + "caf\u00e9\n".encode() + b"no end")
    """
    job = new_job(command=python(script))
    assert job.run() == [0]
    texts = job.texts()
    assert texts[:3] == [" 10%", " 20%", "100%"]
    assert len(texts[3]) < 70_000
    assert texts[4:] == ["\ufffd\ufffd", "caf\u00e9", "no end"]


def test_a_million_bytes_of_output_arrive_in_order(new_job: NewJob) -> None:
    job = new_job(command=python("for number in range(40_000): print('line', number)"))
    assert job.run() == [0]
    assert job.texts() == [f"line {number}" for number in range(40_000)]


def test_secrets_reach_the_job_but_not_the_log(new_job: NewJob, tmp_path: Path) -> None:
    script = """
        import os, sys
        print("token", os.environ["HUB"], "and", os.environ["API_KEY"], len(os.environ["HUB"]))
        sys.exit("died with " + os.environ["HUB"])
    """
    job = new_job(
        command=python(script),
        secrets={"HUB": "env:SHELL_HUB"},
        inherited=["API_KEY"],
        outputs=kept_in(tmp_path / "kept"),
    )
    assert job.run(SHELL_HUB="geheim-1", API_KEY="geheim-2") == [1]
    assert job.texts() == ["token *** and *** 8"]
    everything = "".join(
        p.read_text() for p in (*job.folder.rglob("*"), *(tmp_path / "kept").rglob("*")) if p.is_file()
    )
    assert "geheim" not in everything
    assert job.report()["failure"]["lines"][-1] == "died with ***"


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"inherited": ["NOT_THERE"]}, "the job is to inherit NOT_THERE, but this node was started without"),
        ({"secrets": {"A": "env:NOT_THERE"}}, "secret A is to come from NOT_THERE"),
        ({"code": ARCHIVE}, "code.tar.gz, did not arrive on this node"),
        ({"code": {"kind": "git", "url": "file:///no/such"}}, "cannot fetch HEAD of file:///no/such"),
        ({"code": {"kind": "uri", "uri": "/no/such"}}, "cannot fetch /no/such to"),
        ({"workingDir": "missing"}, "workingDir 'missing' is not a folder of the job's code"),
        ({"inputs": {"/no/such": "x"}}, "cannot fetch /no/such to"),
        ({"outputs": {"uri": "file:///proc/nowhere"}}, "outputs cannot be kept at file:///proc/nowhere"),
        ({"dependencies": {"pipRequirements": "none.txt"}}, "pipRequirements names 'none.txt'"),
        ({"dependencies": {"pipPackages": "'open"}}, "pipPackages cannot be read as a command line"),
        ({"nodes": 3}, "the order is for 3 nodes, but local started 1"),
        ({"launcher": "mpirun"}, "the order names launcher 'mpirun'"),
    ],
)
def test_what_goes_wrong_before_the_start_is_reported(new_job: NewJob, order: dict[str, Any], reason: str) -> None:
    job = new_job(**{"command": "true", **order})
    job.start(0, CLOUDTUNE_NUM_NODES="1")
    assert job.wait() == [125]
    report = job.report()
    assert reason in report["reason"]
    assert report["exitCode"] == 125
    assert "outputs are kept" not in job.log()
    assert f"error: {report['reason']}".splitlines()[0] in job.texts(stream="agent")
    assert first_failure([report]) is not None


def test_sigterm_is_passed_on_and_leaves_time_to_save(new_job: NewJob, tmp_path: Path) -> None:
    script = """
        import os, pathlib, signal, sys, time
        def save(*_):
            print("saving", flush=True)
            time.sleep(1)
            pathlib.Path(os.environ["CLOUDTUNE_OUTPUT_DIR"], "checkpoint").write_text("saved")
            sys.exit(9)
        signal.signal(signal.SIGTERM, save)
        print("ready", flush=True)
        time.sleep(60)
    """
    # behind a shell that does not exec: the signal must reach the whole tree
    line = " ".join(("python -S -c", f"'{textwrap.dedent(script)}'".replace('"', '"'), "; exit $?"))
    job = new_job(command=line, graceInSeconds=20, outputs=kept_in(tmp_path / "kept"))
    job.start(0)
    eventually(lambda: "ready" in job.texts())
    job.nodes[0].send_signal(signal.SIGTERM)
    (code,) = job.wait()
    report = job.report()
    assert (tmp_path / "kept" / "checkpoint").read_text() == "saved"
    assert "saving" in job.texts()
    assert code == report["exitCode"]
    assert code in (9, 143)  # the shell's, which the signal reaches too
    assert (report["stopped"], report["failure"]) == ("SIGTERM", None)
    assert report["reason"].startswith("stopped by SIGTERM; the command ")


def test_who_does_not_end_within_the_grace_is_killed(new_job: NewJob) -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    job = new_job(command=python(script), graceInSeconds=1)
    job.start(0)
    eventually(lambda: "ready" in job.texts())
    started = time.monotonic()
    job.nodes[0].send_signal(signal.SIGTERM)
    assert job.wait() == [137]
    assert 1 <= time.monotonic() - started < 50


def test_sigterm_before_the_command_starts(new_job: NewJob, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slow")  # an input that never comes
    job = new_job(command="echo ran", inputs={str(tmp_path / "slow"): "x"})
    job.start(0)
    eventually(lambda: "node 0 of 1" in job.log())
    time.sleep(0.3)
    job.nodes[0].send_signal(signal.SIGTERM)
    assert job.wait() == [143]
    assert job.report()["reason"] == "stopped by SIGTERM before the command started"
    assert job.texts() == []


def test_the_time_limit_ends_the_job(new_job: NewJob) -> None:
    job = new_job(command="sleep 600", maximumRuntimeInSeconds=3)  # the command must have started by then
    assert job.run() == [124]
    report = job.report()
    assert report["reason"] == "the time limit of 3 s was reached"
    assert (report["failure"]["exitCode"], report["failure"]["rank"]) == (124, None)


def test_the_time_limit_holds_before_the_command_too(new_job: NewJob, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slow")
    job = new_job(command="true", inputs={str(tmp_path / "slow"): "x"}, maximumRuntimeInSeconds=1)
    assert job.run() == [124]
    assert job.report()["reason"] == "the time limit of 1 s was reached before the command started"


ESCAPING = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-S", "-c",
            f"open({sys.argv[1]!r}, 'w').write(str(__import__('os').getpid())); __import__('time').sleep(300)"], {})
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
    time.sleep(0.02)
print("escaped", flush=True)
time.sleep(float(sys.argv[2]))
"""


def alive(pid: int) -> bool:
    found = processes.table().get(pid)
    return found is not None and not found.zombie


@pytest.mark.skipif(sys.platform != "linux", reason="a process without variables is found by adoption, on Linux")
@pytest.mark.parametrize("how", ["end", "cancel"])
def test_a_process_that_escaped_is_ended_with_the_job(new_job: NewJob, tmp_path: Path, how: str) -> None:
    note = tmp_path / "pid"
    job = new_job(command=["python", "-S", "-c", ESCAPING, str(note), "0" if how == "end" else "300"])
    job.start(0)
    eventually(lambda: "escaped" in job.texts())
    pid = int(note.read_text())
    if how == "cancel":
        assert alive(pid)
        job.nodes[0].send_signal(signal.SIGTERM)
    job.wait()
    assert not alive(pid)


def test_everything_ends_at_once_when_the_supervisor_dies(new_job: NewJob, tmp_path: Path) -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    job = new_job(command=python(script), graceInSeconds=600)
    read, write = os.pipe()
    job.start(0, fds=(read,), CLOUDTUNE_SUPERVISOR_FD=str(read))
    os.close(read)
    eventually(lambda: "ready" in job.texts())
    assert processes.marked(job.order["runId"])
    os.close(write)
    assert job.wait() == [137]
    assert job.report()["reason"] == "the supervisor of the run died, so everything was ended"
    assert processes.marked(job.order["runId"]) == set()


def test_the_death_of_the_supervisor_is_noticed_before_the_command_too(new_job: NewJob, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slow")
    job = new_job(command="true", inputs={str(tmp_path / "slow"): "x"})
    read, write = os.pipe()
    job.start(0, fds=(read,), CLOUDTUNE_SUPERVISOR_FD=str(read))
    os.close(read)
    eventually(lambda: "node 0 of 1" in job.log())
    os.close(write)
    assert job.wait() == [137]


def test_a_list_of_nodes_that_is_never_whole_is_waited_for_so_long_and_no_longer(
    new_job: NewJob, tmp_path: Path
) -> None:
    nodes = tmp_path / "nodes.json"
    nodes.write_text(json.dumps([{"Rank": 0, "IPAddress": "127.0.0.2"}]))
    place = {"CLOUDTUNE_PLACE": "oci", "INITIAL_CLUSTER_SIZE": "2", "CLUSTER_NODES_METADATA_FILE": str(nodes)}
    job = new_job(command="echo ran", nodes=2, rendezvousTimeoutInSeconds=1)
    job.start(0, NODE_RANK="0", **place)
    assert job.wait() == [125]
    assert f"{nodes} lists the nodes 0; still missing: 1 (waited 1 s)" in job.report()["reason"]


def test_a_missing_node_is_named_by_all_who_came(new_job: NewJob) -> None:
    job = new_job(command="echo ran", nodes=3, rendezvousTimeoutInSeconds=6)  # both must have started by then
    for rank in (0, 2):
        job.start(rank)
    assert job.wait() == [125, 125]
    for rank in (0, 2):
        report = job.report(rank)
        assert "of 3 nodes nodes 0, 2 came and node 1 is missing" in report["reason"]
        assert job.texts(rank) == []
    failure = first_failure([job.report(0), None, job.report(2)])
    assert failure is not None
    assert (failure["replica"], failure["rank"]) == (0, None)


def test_a_node_that_cannot_start_ends_the_others_wait(new_job: NewJob) -> None:
    job = new_job(command="echo ran", nodes=2, rendezvousTimeoutInSeconds=60, inherited=["ONLY_ON_0"])
    job.start(0, ONLY_ON_0="x")
    eventually(lambda: "node 0 of 2" in job.log())
    time.sleep(0.3)
    job.start(1)
    assert job.wait() == [125, 125]
    assert job.report(0)["reason"].startswith("node 1 cannot start: the job is to inherit ONLY_ON_0")
    failure = first_failure([job.report(0), job.report(1)])
    assert failure is not None
    assert failure["replica"] == 1


def test_outputs_are_kept_while_the_job_runs(new_job: NewJob, tmp_path: Path) -> None:
    script = """
        import os, pathlib, sys, time
        pathlib.Path(os.environ["CLOUDTUNE_OUTPUT_DIR"], "early.txt").write_text("early")
        go = pathlib.Path(sys.argv[1])
        while not go.exists():
            time.sleep(0.02)
    """
    job = new_job(command=[*python(script), str(tmp_path / "go")], outputs=kept_in(tmp_path / "kept"))
    job.start(0, CLOUDTUNE_SYNC_SECONDS="0.1")
    eventually((tmp_path / "kept" / "early.txt").exists)
    eventually((tmp_path / "kept" / "logs" / "node-0.log").exists)
    (tmp_path / "go").touch()
    assert job.wait() == [0]


def test_a_full_disk_for_outputs_fails_the_run_with_a_reason(new_job: NewJob, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    prefix = small_disk(tmp_path / "kept", "256k")
    script = """
        import os, pathlib
        pathlib.Path(os.environ["CLOUDTUNE_OUTPUT_DIR"], "model.bin").write_bytes(b"x" * 1_000_000)
        print("trained")
    """
    job = new_job(command=python(script), outputs=kept_in(tmp_path / "kept"))
    job.start(0, prefix=prefix)
    assert job.wait() == [125]
    report = job.report()
    assert "trained" in job.texts()
    assert "model.bin: No space left on device; the disk there is full" in report["reason"]
    assert report["failure"]["exitCode"] == 125


def test_a_log_that_did_not_fit_says_so(new_job: NewJob) -> None:
    job = new_job(command="head -c 600000 /dev/zero > $CLOUDTUNE_OUTPUT_DIR/x; seq 1000; echo on")
    (job.folder / "node-0").mkdir()
    job.start(0, prefix=small_disk(job.folder / "node-0", "512k"))  # the log of its stdout lies elsewhere
    job.wait()
    assert "on" in job.texts()
    told = "warning: lines of this log may be missing: cannot write"
    assert any(text.startswith(told) for text in job.texts(stream="agent")), job.log()


def test_a_failed_command_stays_the_reason_when_the_disk_is_full_too(new_job: NewJob, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    prefix = small_disk(tmp_path / "kept", "256k")
    script = """
        import os, pathlib, sys
        pathlib.Path(os.environ["CLOUDTUNE_OUTPUT_DIR"], "model.bin").write_bytes(b"x" * 1_000_000)
        sys.exit(3)
    """
    job = new_job(command=python(script), outputs=kept_in(tmp_path / "kept"))
    job.start(0, prefix=prefix)
    assert job.wait() == [3]
    assert job.report()["reason"].startswith("rank 0 failed (exit code 3)")
    assert "No space left on device" in job.log()


def test_each_nodes_outputs_have_a_place_of_their_own(new_job: NewJob, tmp_path: Path) -> None:
    job = new_job(command="echo $RANK > $CLOUDTUNE_OUTPUT_DIR/rank", nodes=2, outputs=kept_in(tmp_path / "kept"))
    assert job.run() == [0, 0]
    assert (tmp_path / "kept" / "rank").read_text() == "0\n"
    assert (tmp_path / "kept" / "node-1" / "rank").read_text() == "1\n"
    assert sorted(path.name for path in (tmp_path / "kept" / "logs").glob("*.log")) == ["node-0.log", "node-1.log"]


def test_accelerators_that_are_not_there_stop_the_job(new_job: NewJob, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: NVIDIA A10 (UUID: GPU-1)'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    job = new_job(command="true", processesPerNode=2, acceleratorsPerNode=2, accelerator="A10")
    assert job.run(PATH=path) == [125]
    assert "starts 2 processes on 2 A10 a node, but this one shows 1" in job.report()["reason"]
    job = new_job(command="true", acceleratorsPerNode=1, accelerator="H100")
    assert job.run(PATH=path) == [0]
    assert "warning: the plan counts on H100, this node has NVIDIA A10" in job.texts(stream="agent")


def test_a_function_is_called_with_arguments_as_ads_gives_them(new_job: NewJob) -> None:
    job = new_job(command=["@agent", "call", "app/main.py", "entry", "one", "--key", "two", "--flag"], code=ARCHIVE)
    pack(
        job,
        app__main_py="""
            import sys, sibling
            def entry(*args, **kwargs):
                print(args, kwargs, sibling.X, __name__)
                try:
                    import cloudtune.node
                except ImportError:
                    print("the agent stepped aside")
        """,
        app__sibling_py="X = 5",
    )
    assert job.run() == [0], job.log()
    assert job.texts()[0] == "('one',) {'key': 'two', 'flag': None} 5 main"


def test_a_function_that_is_not_there_is_named(new_job: NewJob) -> None:
    job = new_job(command=["@agent", "call", "main.py", "missing"], code=ARCHIVE)
    pack(job, main_py="def entry(): pass")
    assert job.run() == [1]
    assert job.texts(stream="stderr") == ["main.py has no function 'missing'; it has entry"]


def test_a_broken_order_still_leaves_a_report(agent: Path, new_job: NewJob) -> None:
    job = new_job(command="true")
    (job.folder / "order.json").write_text('{"runId": 1')
    assert job.run() == [125]
    assert "is not JSON" in job.report()["reason"]


OLD_PYTHON = Path.home() / ".pyenv" / "versions" / "3.9.18" / "bin" / "python"


@pytest.mark.skipif(not OLD_PYTHON.exists(), reason="there is no Python 3.9 on this machine")
def test_the_oldest_python_runs_the_agent(agent: Path, tmp_path: Path) -> None:
    job = Job(
        agent,
        tmp_path / "old",
        run_id=f"old{os.getpid()}",
        python=str(OLD_PYTHON),
        command=python("import sys; print(sys.version_info[:2]); raise ValueError('old')"),
        nodes=2,
        code=ARCHIVE,
        outputs=kept_in(tmp_path / "kept"),
    )
    pack(job, a_txt="x")
    assert job.run() == [1, 1]
    assert job.texts() == ["(3, 9)"]
    assert job.report(1)["failure"]["traceback"].endswith("ValueError: old")
