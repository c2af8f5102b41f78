"""Nodes as real processes: what they see, what they say, and that nothing is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.rehearsal import faults
from cloudtune.rehearsal.addresses import Addresses
from cloudtune.rehearsal.faults import Faults
from cloudtune.rehearsal.isolation import Isolation, isolation, try_way
from cloudtune.rehearsal.logs import Log
from cloudtune.rehearsal.nodes import End, Line, Node, Place
from cloudtune.rehearsal.runner import Nodes, wait_for
from tests.processes import eventually, running

#: Paths of clouds that no machine of a user has.
CLOUD = ("/opt/ml", "/home/datascience", "/mnt/outputs", "/fsx", "/var/run/secrets/kubernetes.io/serviceaccount")


@pytest.fixture
def run(nodes: Nodes, tmp_path: Path) -> Callable[..., tuple[End, list[str]]]:
    """Return what runs a shell script on a node and returns how it ended and what it said on stdout."""

    def one(script: str, **words: Any) -> tuple[End, list[str]]:
        log = Log()
        end = nodes.start(node(tmp_path, script, **words), log.append).wait(60)
        assert end is not None
        return end, [line.text for line in log.read() if line.stream == "stdout"]

    return one


def node(folder: Path, script: str, *, name: str = "node-0", **words: Any) -> Node:
    return Node(**{"name": name, "folder": folder / name, "command": ("sh", "-c", script), **words})


def shown(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    return folder / name


def test_the_clouds_paths_are_folders_of_the_node(run: Callable, tmp_path: Path) -> None:
    before = {path: os.path.lexists(path) for path in CLOUD}
    binds = {path: shown(tmp_path, f"place{path}") for path in CLOUD}
    end, _ = run("; ".join(f"echo here > {path}/file" for path in CLOUD), binds=binds)
    assert end.code == 0
    assert [(place / "file").read_text() for place in binds.values()] == ["here\n"] * len(CLOUD)
    assert {path: os.path.lexists(path) for path in CLOUD} == before
    assert not any(os.path.lexists(f"{path}/file") for path in CLOUD)


def test_paths_may_lie_in_one_another_and_be_files(run: Callable, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t0k")
    binds = {
        "/opt/ml/input/data": Place(source=shown(tmp_path, "data"), read_only=True),
        "/opt/ml": shown(tmp_path, "ml"),
        "/opt/ml/input/config/token": Place(source=token, read_only=True),
        "/etc/podinfo/labels": token,
        "/scratch": Place(size_bytes=1 << 20),
    }
    script = (
        "cat /opt/ml/input/config/token /etc/podinfo/labels; echo; touch /opt/ml/model; touch /opt/ml/input/data/x || "
        "echo read only; head -c 2000000 /dev/zero > /scratch/x || echo full; grep -c . /etc/passwd > /dev/null && echo etc"
    )
    end, lines = run(script, binds=binds)
    assert (end.code, lines) == (0, ["t0kt0k", "read only", "full", "etc"])
    assert (tmp_path / "ml" / "model").exists()
    assert not Path("/etc/podinfo").exists()


def test_this_machine_can_be_seen_and_not_changed(run: Callable, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("before")
    away = Path(__file__)  # not below a folder that a node has of its own
    _, lines = run(f"head -n 1 {away}; echo x >> {away} || echo no; cat {mine} || echo nothing", environment={})
    assert lines == [away.read_text().splitlines()[0], "no" if isolation().protected else "", "nothing"]
    assert not away.read_text().endswith("x\n")


#: A node sees the working copy, whose code it may run.
BELOW_TMP = pytest.mark.skipif(Path(__file__).is_relative_to("/tmp"), reason="this working copy lies below /tmp itself")


@BELOW_TMP
def test_each_node_has_a_home_and_temporary_places_of_its_own(run: Callable, tmp_path: Path) -> None:
    script = "cd; pwd; ls -A /tmp /dev/shm; touch ~/mine /tmp/mine /dev/shm/mine"
    end, lines = run(script, environment={"HOME": "/home/datascience"}, shared_memory_bytes=1 << 20)
    assert (end.code, lines) == (0, ["/home/datascience", "/dev/shm:", "", "/tmp:"])
    assert (tmp_path / "node-0" / "machine" / "home" / "mine").exists()
    assert not Path("/tmp/mine").exists()
    assert not Path("/dev/shm/mine").exists()


def test_the_variables_are_those_that_the_service_gives(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "OCI_CONFIG_FILE", "HTTPS_PROXY", "HF_TOKEN", "MINE"):
        monkeypatch.setenv(name, "of the user")
    _, lines = run("env", environment={"JOB": "1", "LANG": "de_DE.UTF-8"})
    given = dict(line.partition("=")[::2] for line in lines)
    assert "of the user" not in given.values()
    assert given.items() >= {"JOB": "1", "LANG": "de_DE.UTF-8", "HOSTNAME": "node-0", "HOME": "/root"}.items()
    assert given["AWS_EC2_METADATA_DISABLED"] == "true"
    assert given["CLOUDTUNE_REHEARSED"] == "1"


@BELOW_TMP
def test_the_users_credentials_are_out_of_sight(run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(__file__).parent / f"home-{os.getpid()}"  # a node sees it, unlike what is below /tmp
    monkeypatch.setenv("HOME", str(home))
    try:
        for name in (".oci/config", ".aws/credentials", ".netrc", "notes"):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text("s3cret")
        _, lines = run(f"cd {home}; ls -A .oci .aws; cat .netrc notes")
        assert lines == [".aws:", "", ".oci:", "s3cret"]  # of the notes
    finally:
        subprocess.run(["rm", "-r", str(home)], check=True)


def test_nodes_find_each_other_by_name_on_addresses_of_their_own(nodes: Nodes, tmp_path: Path) -> None:
    names = ["algo-1", "algo-2.job.svc"]
    hosts = dict(zip(names, Addresses().take(2), strict=True))
    listen = (
        "import socket; s = socket.create_server(('algo-1', 29500)); c, a = s.accept(); "
        "print(socket.gethostname(), a[0], c.recv(9).decode())"
    )
    call = (
        "import socket, time\nwhile True:\n try: c = socket.create_connection(('algo-1', 29500), source_address=(socket.gethostname(), 0)); break\n"
        " except OSError: time.sleep(0.02)\nc.sendall(b'hello')"
    )
    log = Log()
    started = [
        nodes.start(node(tmp_path, "", name=name, hosts=hosts, command=("python", "-c", code)), log.append)
        for name, code in zip(names, (listen, call), strict=True)
    ]
    ends = wait_for(started, timeout_s=30)
    assert [end.code for end in ends if end] == [0, 0]
    assert [line.text for line in log.read()] == [f"algo-1 {hosts['algo-2.job.svc']} hello"]


def test_names_outside_are_not_resolved(run: Callable) -> None:
    _, lines = run("getent hosts localhost | grep -c .; getent hosts example.com || echo nobody")
    assert lines == ["1", "nobody"]


def test_every_line_of_a_flood_is_heard_in_order(nodes: Nodes, tmp_path: Path) -> None:
    log = Log()
    script = "seq 100000; seq 200000 300000 >&2; printf 'no end of line'"
    end = nodes.start(node(tmp_path, script), log.append).wait(60)
    assert end is not None
    by_stream: dict[str, list[str]] = {"stdout": [], "stderr": []}
    for line in log.read():
        by_stream[line.stream].append(line.text)
    assert by_stream["stdout"] == [*map(str, range(1, 100_001)), "no end of line"]
    assert by_stream["stderr"] == [*map(str, range(200_000, 300_001))]
    times = [line.time_s for line in log.read()]
    assert times == sorted(times)
    assert end.started_s <= times[0] <= times[-1] <= end.ended_s


def test_a_line_without_end_is_bounded(run: Callable) -> None:
    _, lines = run("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo next")
    assert len(lines[0]) < 70_000
    assert (lines[0].endswith("64 KiB]"), lines[1:]) == (True, ["next"])


@pytest.mark.parametrize(
    ("script", "code", "exit_code"), [("exit 3", 3, 3), ("kill -9 $$", -9, 137), ("kill -SEGV $$", -11, 139)]
)
def test_the_end_is_told(script: str, code: int, exit_code: int, run: Callable) -> None:
    end, _ = run(script)
    assert (end.code, end.exit_code, end.reason) == (code, exit_code, "exited")


def test_a_command_that_cannot_be_started_ends_as_in_a_container(nodes: Nodes, tmp_path: Path) -> None:
    log = Log()
    end = nodes.start(node(tmp_path, "", command=("no-such-program",)), log.append).wait(30)
    assert end is not None
    assert (end.exit_code, end.reason) == (127, "exited")
    assert [line.text for line in log.read()] == ["no-such-program: No such file or directory (rehearsed node node-0)"]


def ways() -> list[Isolation]:
    some = [
        Isolation(user=user, processes=processes, protected=True)
        for user in ((True, False) if os.geteuid() == 0 else (True,))
        for processes in (True, False)
    ]
    return [way for way in some if isinstance(try_way(way.way), bool)] if sys.platform == "linux" else []


#: Leaves its session, forks twice, and writes nothing: what no process group holds.
DAEMON = "setsid sh -c '(sleep 1000.{mark} & ) ; sleep 1000.{mark}' > /dev/null 2>&1 & "


@pytest.mark.parametrize("way", ways(), ids=lambda way: f"user={way.user},processes={way.processes}")
@pytest.mark.parametrize("how", ["exits", "is killed", "is stopped"])
def test_nothing_is_left_of_a_node(way: Isolation, how: str, tmp_path: Path) -> None:
    mark, log = str(time.time_ns()), Log()
    with Nodes(way=way) as nodes:
        wait = "" if how == "exits" else "; while :; do sleep 0.1; done"
        node_ = nodes.start(node(tmp_path, DAEMON.format(mark=mark) + "sleep 0.3; echo up" + wait), log.append)
        eventually(lambda: len(log) > 0)
        if how != "exits":
            assert len(running(f"sleep 1000.{mark}")) >= 2
        if how == "is killed":
            node_.kill()
        elif how == "is stopped":
            node_.stop(grace_s=10)
        end = node_.wait(30)
    assert end is not None
    expected = {"exits": (0, "exited"), "is killed": (-9, "killed"), "is stopped": (-15, "stopped")}
    assert (end.code, end.reason) == expected[how]
    assert running(f"1000.{mark}") == []


def test_a_node_that_does_not_heed_is_ended_after_the_grace(nodes: Nodes, tmp_path: Path) -> None:
    log = Log()
    deaf = nodes.start(node(tmp_path, "trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done"), log.append)
    eventually(lambda: len(log) > 0)
    deaf.stop(grace_s=2)
    end = deaf.wait(30)
    assert end is not None
    assert (end.code, end.reason) == (-9, "stopped")
    assert [line.text for line in log.read()] == ["up", "asked"]


RUNNER = """
import os, sys, time
from pathlib import Path
from cloudtune.rehearsal.nodes import Node
from cloudtune.rehearsal.runner import Nodes
nodes = Nodes()
for rank in range(2):
    command = ("sh", "-c", os.environ["SCRIPT"])  # which a process list does not show
    node = Node(name=f"node-{rank}", folder=Path(sys.argv[1]) / str(rank), command=command)
    nodes.start(node, lambda lines: print(len(lines), flush=True))
time.sleep(1000)
"""


@pytest.mark.parametrize("victim", ["runner", "warden", "keeper"])
def test_nodes_end_with_the_processes_that_keep_them(victim: str, namespaces: None, tmp_path: Path) -> None:
    mark = str(time.time_ns())
    script = DAEMON.format(mark=mark) + "sleep 0.3; echo up; sleep 1000"
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "SCRIPT": script},
    )
    try:
        assert runner.stdout is not None
        assert [runner.stdout.readline() for _ in range(2)] == [b"1\n", b"1\n"]
        assert len(running(mark)) > 4
        wardens = children(runner.pid)
        assert len(wardens) == 2
        if victim == "runner":
            runner.kill()
        else:
            for warden in wardens:
                os.kill(warden if victim == "warden" else children(warden)[0], signal.SIGKILL)
        eventually(lambda: running(f"1000.{mark}") == [])
    finally:
        runner.kill()
        runner.wait()
        runner.stdout.close()
    eventually(lambda: running(str(tmp_path)) == [])


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def test_a_node_whose_keepers_are_ended_is_lost(nodes: Nodes, tmp_path: Path) -> None:
    log = Log()
    lost = nodes.start(node(tmp_path, "echo up; sleep 1000"), log.append)
    eventually(lambda: len(log) > 0)
    os.kill(lost._warden.process.pid, signal.SIGKILL)
    end = lost.wait(30)
    assert end is not None
    assert (end.code, end.reason) == (-9, "lost")


def test_a_node_has_only_so_much_time(run: Callable) -> None:
    end, lines = run("echo up; sleep 1000", time_limit_s=2)
    assert (end.code, end.reason, lines) == (-9, "time limit", ["up"])


def test_a_node_has_only_so_much_memory(run: Callable) -> None:
    hungry = "import time; print('up', flush=True); kept = bytearray(400 << 20); time.sleep(20)"
    words = {"command": ("python", "-S", "-c", hungry), "memory_limit_bytes": 100 << 20}
    end, lines = run("", **words)
    assert (end.exit_code, end.reason, lines) == (137, "out of memory", ["up"])
    end, _ = run("", command=("python", "-S", "-c", "kept = bytearray(10 << 20)"), memory_limit_bytes=100 << 20)
    assert (end.code, end.reason) == (0, "exited")


def test_a_node_dies_when_the_plan_says_so(namespaces: None, tmp_path: Path) -> None:
    plan = Faults([faults.node_dies("node-1", after_lines=3), faults.node_dies("node-2", seconds=0.3)])
    with Nodes(faults=plan) as nodes:
        logs = [Log() for _ in range(3)]
        script = "for n in $(seq 40); do echo $n; sleep 0.02; done"
        started = [nodes.start(node(tmp_path, script, name=f"node-{n}"), logs[n].append) for n in range(3)]
        ends = wait_for(started, timeout_s=30)
    assert [end.reason for end in ends if end] == ["exited", "died", "died"]
    assert [line.text for line in logs[0].read()] == [str(n) for n in range(1, 41)]
    assert [line.text for line in logs[1].read()] == ["1", "2", "3"]
    assert len(logs[2]) < 40
    assert plan.left() == ()


def test_what_a_listener_raises_is_raised_to_who_waits(nodes: Nodes, tmp_path: Path) -> None:
    def deaf(lines: tuple[Line, ...]) -> None:
        raise ZeroDivisionError

    started = nodes.start(node(tmp_path, "seq 100000; exit 1"), deaf)
    with pytest.raises(ZeroDivisionError):
        started.wait(30)
    assert started.end is not None
    assert started.end.code == 1


def test_a_node_that_cannot_be_made_says_why(nodes: Nodes, tmp_path: Path) -> None:
    gone = shown(tmp_path, "gone")
    wrong = node(tmp_path, "true", binds={"/etc/passwd/x": gone})
    with pytest.raises(CloudtuneError, match=r"node node-0 did not start: .*etc/passwd"):
        nodes.start(wrong, Log().append)
    with pytest.raises(UsageError, match="does not exist"):
        node(tmp_path, "true", binds={"/opt/ml": tmp_path / "nothing"})
    with pytest.raises(UsageError, match="below /"):
        node(tmp_path, "true", binds={"/": gone})
    with pytest.raises(UsageError, match="name of a node"):
        node(tmp_path, "true", name="node_0")


def test_many_nodes_end_with_the_block(namespaces: None, tmp_path: Path) -> None:
    mark = str(time.time_ns())
    before = threading.active_count()
    with Nodes() as nodes:
        for rank in range(8):
            nodes.start(node(tmp_path, f"sleep 1000.{mark}", name=f"node-{rank}"), Log().append)
        assert len(nodes.running()) == 8
    assert running(mark) == []
    assert threading.active_count() == before
    with pytest.raises(CloudtuneError, match="has ended"):
        nodes.start(node(tmp_path, "true"), Log().append)
    assert not list(tmp_path.glob("*/machine/root"))


#: A keeper whose command takes its time to begin, and is asked to end before that.
SLOW_TO_BEGIN = """
import os, time
from cloudtune.rehearsal.cell import Keeper

become = Keeper._become_command

def later(keeper, *given):
    time.sleep(0.5)
    become(keeper, *given)

Keeper._become_command = later
order = {"way": {"processes": True}, "name": "n", "command": ["sleep", "60"], "environment": dict(os.environ)}
keeper = Keeper({**order, "workingDir": "/"}, lambda *_, **__: None, [])
keeper.start()
keeper._obey(b"T")
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(keeper.command, 0)[1]) != -15)
"""


def test_a_command_that_is_asked_to_end_before_it_has_begun_ends() -> None:
    subprocess.run([sys.executable, "-c", SLOW_TO_BEGIN], check=True, timeout=50)
