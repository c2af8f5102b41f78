"""Launchers' ranks: labels, pids, ends. A stand-in of a few lines takes the place of each launcher's package."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tarfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtune.node.failure import first_failure
from tests.node.running import Job
from tests.processes import eventually

NewJob = Callable[..., Job]

# starts ranks as torchrun does: by PYTHON_EXEC, in sessions of their own; ends the others when one fails
TORCHRUN = """
import os, signal, subprocess, sys, time
python = os.environ.get("PYTHON_EXEC", sys.executable)
count, node = int(os.environ["PET_NPROC_PER_NODE"]), int(os.environ["PET_NODE_RANK"])
world = int(os.environ["PET_NNODES"]) * count
ranks = []
for local in range(count):
    env = {**os.environ, "LOCAL_RANK": str(local), "RANK": str(node * count + local), "WORLD_SIZE": str(world),
           "LOCAL_WORLD_SIZE": str(count)}
    ranks.append(subprocess.Popen([python, "-u", *sys.argv[1:]], env=env, start_new_session=True))
def stop(*_):
    for rank in ranks:
        rank.poll() is None and rank.terminate()
signal.signal(signal.SIGTERM, stop)
print("the launcher speaks", flush=True)
while True:
    codes = [rank.poll() for rank in ranks]
    failed = [index for index, code in enumerate(codes) if code]
    if failed:
        stop()
        [rank.wait() for rank in ranks]
        first = ranks[failed[0]]
        print(f"  exitcode  : {first.returncode} (pid: {first.pid})", file=sys.stderr)
        sys.exit(1)
    if None not in codes:
        sys.exit(0)
    time.sleep(0.05)
"""
SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ.get('PYTHON_EXEC')]))"


def work(job: Job, files: dict[str, str]) -> Job:
    with tarfile.open(job.folder / "code.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            data = textwrap.dedent(text).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return job


def torch_job(new_job: NewJob, train: str, **order: object) -> Job:
    job = new_job(
        **{"launcher": "torchrun", "command": "torchrun train.py", "processesPerNode": 2, **order},
        code={"kind": "archive", "path": "code.tar.gz"},
    )
    empty = {"torch/__init__.py": "", "torch/distributed/__init__.py": ""}
    return work(job, {**empty, "torch/distributed/run.py": TORCHRUN, "train.py": train})


def test_every_line_carries_its_rank_and_stream(new_job: NewJob) -> None:
    train = """
        import os, sys
        print("hello from", os.environ["RANK"])
        print("trouble of", os.environ["RANK"], file=sys.stderr)
        print(sys.executable == sys.argv[0], sys.argv[1:])
    """
    job = torch_job(new_job, train, nodes=2, command="torchrun train.py 'a b'")
    assert job.run() == [0, 0], job.log()
    for node in (0, 1):
        lines = job.lines(node)
        for rank in (2 * node, 2 * node + 1):
            assert (rank, "stdout", f"hello from {rank}") in lines
            assert (rank, "stderr", f"trouble of {rank}") in lines
            assert (rank, "stdout", "False ['a b']") in lines
        assert (None, "stdout", "the launcher speaks") in lines
        report = job.report(node)
        assert [(r["rank"], r["localRank"], r["exitCode"]) for r in report["ranks"]] == [
            (2 * node, 0, 0),
            (2 * node + 1, 1, 0),
        ]
        assert all(r["pid"] and r["endedAt"] for r in report["ranks"])


def test_the_rank_that_was_killed_is_named_not_its_victims(new_job: NewJob, tmp_path: Path) -> None:
    train = """
        import os, pathlib, sys, time
        peers = pathlib.Path(sys.argv[1])
        (peers / os.environ["RANK"]).write_text(str(os.getpid()))
        print("step 5")
        while all(os.path.exists(f"/proc/{path.read_text()}") or not path.read_text() for path in peers.iterdir()):
            time.sleep(0.02)
        sys.exit("RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    """
    peers = tmp_path / "peers"
    peers.mkdir()
    job = torch_job(new_job, train, nodes=2, command=f"torchrun train.py {peers}")
    for rank in (0, 1):
        job.start(rank)
    eventually(lambda: all("step 5" in job.texts(node) for node in (0, 1)) and len(list(peers.iterdir())) == 4)
    os.kill(int((peers / "3").read_text()), signal.SIGKILL)
    assert job.wait() == [1, 1]
    failure = first_failure([job.report(0), job.report(1)])
    assert failure is not None
    assert (failure["replica"], failure["rank"], failure["signal"]) == (1, 3, "SIGKILL")
    assert failure["lines"] == ["step 5"]
    assert job.report(1)["reason"].startswith("rank 3 failed (ended by SIGKILL)")


def test_a_ranks_traceback_is_in_the_report(new_job: NewJob) -> None:
    train = """
        import os, time
        if os.environ["RANK"] == "1":
            raise KeyError("column")
        time.sleep(60)
    """
    job = torch_job(new_job, train)
    assert job.run() == [1]
    failure = job.report()["failure"]
    assert (failure["rank"], failure["exitCode"]) == (1, 1)
    assert failure["traceback"].endswith("KeyError: 'column'")


def test_sigterm_reaches_each_rank_once(new_job: NewJob) -> None:
    train = """
        import signal, sys, time
        told = []
        signal.signal(signal.SIGTERM, lambda *_: told.append(1))
        print("ready")
        while not told:
            time.sleep(0.01)
        time.sleep(0.5)
        print("told", len(told))
    """
    job = torch_job(new_job, train, graceInSeconds=20)
    job.start(0)
    eventually(lambda: job.texts().count("ready") == 2)
    job.nodes[0].send_signal(signal.SIGTERM)
    job.wait()
    assert sorted(text for text in job.texts() if text.startswith("told")) == ["told 1", "told 1"]


@pytest.mark.parametrize("redirect", ["> all.txt 2>&1; cat all.txt", "2>&1 | tee all.txt"])
def test_output_that_the_user_sends_elsewhere_goes_there(new_job: NewJob, redirect: str) -> None:
    # one write a line: the ranks share a pipe here, where print's newline comes apart
    train = "import os; r = os.environb[b'RANK']; os.write(1, b'out %s\\n' % r); os.write(2, b'err %s\\n' % r)"
    job = torch_job(new_job, train, command=f"torchrun train.py {redirect}")
    assert job.run() == [0]
    lines = [line for line in job.lines() if line[1] == "stdout"]
    assert {(None, "stdout", f"{stream} {rank}") for stream in ("out", "err") for rank in (0, 1)} < set(lines)
    written = (job.folder / "node-0" / "work" / "all.txt").read_text().splitlines()
    assert {"out 0", "out 1", "err 0", "err 1"} < set(written)
    assert [rank["rank"] for rank in job.report()["ranks"]] == [0, 1]  # followed all the same


@pytest.mark.parametrize(
    "command",
    [
        "python -m torch.distributed.run train.py",
        "python -u -m torch.distributed.run train.py",
        "sh -c 'torchrun train.py'",
    ],
)
def test_other_ways_to_call_torchrun_are_labelled_too(new_job: NewJob, command: str) -> None:
    train = "import os; print('rank', os.environ['RANK'])"
    job = torch_job(new_job, train, command=command)
    assert job.run() == [0], job.log()
    assert (1, "stdout", "rank 1") in job.lines()


def test_a_launcher_inside_a_plain_command_is_labelled_too(new_job: NewJob) -> None:
    job = torch_job(new_job, "import os; print('rank', os.environ['RANK'])", launcher="command", processesPerNode=1)
    assert job.run() == [0]
    assert (0, "stdout", "rank 0") in job.lines()
    assert [rank["rank"] for rank in job.report()["ranks"]] == [0]


def test_more_processes_than_pipes_still_run(new_job: NewJob) -> None:
    environment = {"PET_NPROC_PER_NODE": "12"}
    # one write a line: ranks without a pipe of their own share one, where print's newline comes apart
    train = "import os; os.write(1, b'rank %s\\n' % os.environb[b'RANK'])"
    job = torch_job(new_job, train, environment=environment)
    assert job.run() == [0]
    texts = [(rank, text) for rank, _, text in job.lines(stream="stdout") if text.startswith("rank")]
    assert sorted(text for _, text in texts) == sorted(f"rank {rank}" for rank in range(12))
    assert {(rank, f"rank {rank}") for rank in range(8)} < set(texts)
    assert [rank["rank"] for rank in job.report()["ranks"]] == list(range(12))


def test_the_users_own_python_exec_is_left_alone(new_job: NewJob) -> None:
    job = torch_job(new_job, "print('ran')", environment={"PYTHON_EXEC": sys.executable})
    assert job.run() == [0]
    assert "".join(job.texts()).count("ran") == 2  # without pipes of their own, lines may run into each other
    assert job.report()["ranks"] == []


def test_accelerate_is_given_its_place_by_flags(new_job: NewJob) -> None:
    job = new_job(
        launcher="accelerate",
        nodes=2,
        processesPerNode=2,
        command="accelerate launch --mixed_precision bf16 train.py --x; accelerate env; python -m accelerate.commands.launch t.py",
        code={"kind": "archive", "path": "code.tar.gz"},
        environment={"HF_HOME": "/nowhere"},
        rendezvousTimeoutInSeconds=60,
    )
    names = ("accelerate/__init__.py", "accelerate/commands/__init__.py")
    shows = ("accelerate/commands/launch.py", "accelerate/commands/accelerate_cli.py")
    work(job, {**dict.fromkeys(names, ""), **dict.fromkeys(shows, SHOW)})
    assert job.run() == [0, 0], job.log()
    (arguments, ranks), (env, _), (module, _) = (json.loads(text) for text in job.texts(1))
    place = [
        *("--num_machines", "2", "--num_processes", "4", "--machine_rank", "1"),
        *("--main_process_ip", "127.0.0.2", "--main_process_port", str(job.port), "--same_network"),
        *("--rdzv_conf", "timeout=60,join_timeout=60,read_timeout=60", "--multi_gpu"),
    ]
    assert arguments == [*place, "--mixed_precision", "bf16", "train.py", "--x"]
    assert ranks.endswith("/.agent/bin/rank")
    assert env == ["env"]
    assert module == [*place, "t.py"]


DEEPSPEED_LAUNCH = """
import os, subprocess, sys
for local in range(2):
    env = {**os.environ, "LOCAL_RANK": str(local), "RANK": str(2 + local)}
    subprocess.run([sys.executable, "-u", sys.argv[1]], env=env, check=True)
"""
DEEPSPEED_RUNNER = """
import json, subprocess, sys
def main():
    print(json.dumps(sys.argv[1:]), flush=True)
    print(open(sys.argv[sys.argv.index("--hostfile") + 1]).read().split(), flush=True)
    subprocess.run([sys.executable, "-u", "-m", "deepspeed.launcher.launch", "train.py"], check=True)
"""


def test_deepspeed_is_given_its_place_and_its_ranks_are_labelled(new_job: NewJob) -> None:
    job = new_job(
        launcher="deepspeed",
        nodes=2,
        processesPerNode=2,
        command="deepspeed train.py",
        code={"kind": "archive", "path": "code.tar.gz"},
    )
    files = dict.fromkeys(("deepspeed/__init__.py", "deepspeed/launcher/__init__.py"), "")
    files.update({"deepspeed/launcher/runner.py": DEEPSPEED_RUNNER, "deepspeed/launcher/launch.py": DEEPSPEED_LAUNCH})
    work(job, {**files, "train.py": "import os; print('rank', os.environ['RANK'])"})
    assert job.run() == [0, 0], job.log()
    texts = job.texts(1)
    arguments = json.loads(texts[0])
    assert arguments[:2] == ["--no_ssh", "--hostfile"]
    assert arguments[3:] == [
        *("--node_rank", "1", "--master_addr", "127.0.0.2", "--master_port", str(job.port), "train.py")
    ]
    assert texts[1] == "['node-0', 'slots=2', 'node-1', 'slots=2']"
    assert {(2, "stdout", "rank 2"), (3, "stdout", "rank 3")} < set(job.lines(1))


def test_a_folder_with_blanks_and_quotes_in_its_name(agent: Path, tmp_path: Path) -> None:
    job = Job(
        agent,
        tmp_path / 'it\'s a $HOME "folder"',
        run_id=f"odd{os.getpid()}",
        launcher="torchrun",
        command="torchrun train.py",
        processesPerNode=2,
        code={"kind": "archive", "path": "code.tar.gz"},
    )
    files = {"torch/__init__.py": "", "torch/distributed/__init__.py": "", "torch/distributed/run.py": TORCHRUN}
    work(job, {**files, "train.py": "import os; print('rank', os.environ['RANK'])"})
    assert job.run() == [0], job.log()
    assert (1, "stdout", "rank 1") in job.lines()
