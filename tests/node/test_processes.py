from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from cloudtune.node import processes
from tests.processes import eventually


def marked(run_id: str, rank: str = "0") -> dict[str, str]:
    return {**os.environ, "CLOUDTUNE_RUN_ID": run_id, "CLOUDTUNE_NODE_RANK": rank}


def sleeper(run_id: str, rank: str = "0", script: str = "import time; time.sleep(60)") -> subprocess.Popen[bytes]:
    out = subprocess.PIPE if "print" in script else subprocess.DEVNULL
    return processes.start([sys.executable, "-S", "-c", script], env=marked(run_id, rank), stdout=out)


def gone(pid: int) -> bool:
    found = processes.table().get(pid)
    return found is None or found.zombie


def test_processes_are_known_by_their_variables() -> None:
    run_id = f"marks{os.getpid()}"
    first, second = sleeper(run_id, "0"), sleeper(run_id, "1")
    try:
        assert eventually(lambda: processes.marked(run_id) == {first.pid, second.pid})
        assert processes.marked(run_id, 1) == {second.pid}
        assert processes.marked(run_id + "0") == set()
    finally:
        assert processes.end_all(run_id, grace_s=0) == set()
    assert (first.wait(), second.wait()) == (-signal.SIGKILL, -signal.SIGKILL)


def test_one_node_can_be_ended_alone() -> None:
    run_id = f"alone{os.getpid()}"
    first, second = sleeper(run_id, "0"), sleeper(run_id, "1")
    try:
        eventually(lambda: len(processes.marked(run_id)) == 2)
        assert processes.end_all(run_id, grace_s=0, node_rank=1) == set()
        assert gone(second.pid)
        assert first.poll() is None
    finally:
        processes.end_all(run_id, grace_s=0)
        first.wait()
        second.wait()


def test_helpers_are_spared_with_what_they_start() -> None:
    run_id = f"spare{os.getpid()}"
    helper = sleeper(run_id, script="import subprocess; subprocess.run(['sleep', '60'])")
    other = sleeper(run_id)
    try:
        assert eventually(lambda: len(processes.marked(run_id)) == 3)
        ending = processes.Ending(run_id, grace_s=0, spared=lambda: {helper.pid})
        assert eventually(ending.step)
        assert other.wait() == -signal.SIGKILL
        left = processes.marked(run_id)
        assert len(left) == 2
        assert helper.pid in left
    finally:
        processes.end_all(run_id, grace_s=0)
        helper.wait()


def test_sigterm_comes_first_and_its_grace_is_used() -> None:
    run_id = f"grace{os.getpid()}"
    script = """
        import signal, sys, time
        def save(*_):
            time.sleep(0.3)
            print("saved", flush=True)
            sys.exit(7)
        signal.signal(signal.SIGTERM, save)
        print("ready", flush=True)
        time.sleep(60)
    """
    process = sleeper(run_id, script=textwrap.dedent(script))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert processes.end_all(run_id, grace_s=20) == set()
    assert process.wait() == 7
    assert process.stdout.read() == b"saved\n"
    process.stdout.close()


def test_who_ignores_sigterm_is_killed_after_the_grace() -> None:
    run_id = f"deaf{os.getpid()}"
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    process = sleeper(run_id, script=script)
    assert process.stdout is not None
    process.stdout.readline()
    started = time.monotonic()
    assert processes.end_all(run_id, grace_s=0.4) == set()
    assert time.monotonic() - started >= 0.4
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


ESCAPING = """
import os, sys, time
environment = {} if sys.argv[1] == "bare" else dict(os.environ)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        script = f"open({sys.argv[2]!r}, 'w').write(str(__import__('os').getpid())); __import__('time').sleep(60)"
        os.execve(sys.executable, [sys.executable, "-S", "-c", script], environment)
    os._exit(0)
os.wait()
time.sleep(60 if sys.argv[1] != "bare" else 0.5)
"""


def test_an_escaped_process_is_found_by_its_variables(tmp_path: Path) -> None:
    run_id = f"escaped{os.getpid()}"
    note = tmp_path / "pid"
    process = processes.start([sys.executable, "-S", "-c", ESCAPING, "marked", str(note)], env=marked(run_id))
    pid = int(str(eventually(lambda: note.exists() and note.read_text())))
    assert processes.end_all(run_id, grace_s=0) == set()
    assert gone(pid)
    process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_an_escaped_process_without_variables_is_found_by_adoption(tmp_path: Path) -> None:
    # a process of its own: adopting orphans is a property that a test runner should not get
    note = tmp_path / "pid"
    script = f"""
        import os, sys, time
        from cloudtune.node import processes
        assert processes.become_subreaper()
        process = processes.start([sys.executable, "-S", "-c", {ESCAPING!r}, "bare", {str(note)!r}])
        while not os.path.exists({str(note)!r}) or not open({str(note)!r}).read():
            time.sleep(0.02)
        process.wait()
        processes.forget(process)
        pid = int(open({str(note)!r}).read())
        assert processes.table()[pid].parent == os.getpid()
        assert processes.end_all("nobody", grace_s=0) == set()
        assert pid not in processes.table()
        assert processes.ended_returncode(pid) == -9
        print("ended")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "ended\n", done.stderr


def test_the_caller_and_its_parents_are_never_ended() -> None:
    script = """
        import os
        from cloudtune.node import processes
        print(processes.end_all(os.environ["CLOUDTUNE_RUN_ID"], grace_s=0))
    """
    outer = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode)"
    done = subprocess.run(
        [sys.executable, "-c", outer, textwrap.dedent(script)],
        env=marked(f"self{os.getpid()}"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells this on Linux only")
def test_the_end_of_somebody_elses_child_can_be_known() -> None:
    script = """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-S", "-c", "import os; os.kill(os.getpid(), 11)"])
        print(child.pid, flush=True)
        sys.stdin.read()
    """
    parent = subprocess.Popen(
        [sys.executable, "-S", "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    assert eventually(lambda: processes.ended_returncode(pid) is not None)
    assert processes.ended_returncode(pid) == -signal.SIGSEGV
    parent.stdin.close()
    parent.wait()
    parent.stdout.close()
    assert processes.ended_returncode(pid) is None
