"""Targets on this machine: one writer at a time, and faults of disks, sources and threads."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtune.errors import CloudtuneError, ServiceError, UsageError
from cloudtune.ranges import Reader
from cloudtune.weights.files.assembly import Made, Output, Span
from cloudtune.weights.files.filenames import RECORD
from cloudtune.weights.target import folder as here
from cloudtune.weights.target import locks, open_target
from cloudtune.weights.target.writing import LAST
from tests.processes import open_below
from tests.weights.target.killing import KEY, workplaces, write
from tests.weights.target.outputs import OTHER, SIZE, begun, fails, inodes, kept, made, write_all

# --- one at a time


WRITER = """
import sys, time
from cloudtune.weights.target import open_target
from cloudtune.weights.files.assembly import Made, Output
def blocks():
    yield b"abc"
    print("writing", flush=True)
    sys.stdin.readline()
    yield b"def"
with open_target(sys.argv[1], sys.argv[2]) as target:
    target.write([Output(name="model.safetensors", pieces=(Made(length=6, blocks=blocks),))])
"""


@pytest.fixture
def writer():
    """Return a function that starts another process which writes and waits for a line."""
    started = []

    def start(folder: Path, key: str = KEY) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", WRITER, str(folder), key]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("existing", [False, True])
def test_of_two_processes_one_writes_and_the_other_is_told(folder, writer, existing):
    if existing:
        folder.mkdir()
    process = writer(folder)
    for key in (KEY, OTHER):
        with pytest.raises(UsageError, match="another process is writing") as raised, open_target(str(folder), key):
            pass
        assert raised.value.hint
    with open_target(str(folder.parent / "another"), KEY) as target:
        target.write([made(b"other")])
    process.communicate("\n")
    assert process.returncode == 0
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == b"abcdef"
    assert workplaces(folder) == []


def test_of_processes_at_once_each_writes_a_target_of_its_own(folder, writer):
    processes = [writer(folder.parent / str(number)) for number in range(3)]
    for process in processes:
        process.communicate("\n")
    assert {(folder.parent / str(number) / "model.safetensors").read_bytes() for number in range(3)} == {b"abcdef"}


@pytest.fixture
def no_locks(monkeypatch):
    """Let no file system know locks."""

    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)


def test_where_there_are_no_locks_one_can_write(folder, no_locks):
    write_all(folder, KEY, made(b"abc"))
    assert (folder / "model.safetensors").read_bytes() == b"abc"
    assert workplaces(folder) == []


@pytest.mark.parametrize("existing", [False, True])
def test_where_there_are_no_locks_another_machine_takes_nothing_from_whoever_writes(
    folder, tmp_path, monkeypatch, no_locks, existing
):
    if existing:
        folder.mkdir()

    def another_machine() -> None:
        before = inodes(folder)
        with monkeypatch.context() as patch:
            patch.setattr(locks, "_BOOT", tmp_path / "boot")
            (tmp_path / "boot").write_text("another machine\n")
            for key in (KEY, OTHER):
                with pytest.raises(UsageError, match="another process is writing") as raised:
                    write_all(folder, key, made(b"two"))
                assert f"process {os.getpid()} on " in raised.value.hint
                assert f"remove {workplaces(folder)[0] / 'owner'}" in raised.value.hint
        assert inodes(folder) == before

    write_all(folder, KEY, made(b"one"), another_machine, ("config.json", b"{}"))
    assert (folder / "model.safetensors").read_bytes() == b"one"
    assert workplaces(folder) == []


def test_where_there_are_no_locks_who_was_killed_is_removed_by_hand(folder, monkeypatch, no_locks):
    begun(folder, KEY)
    (work,) = workplaces(folder)
    assert not (work / "owner").exists()
    before = kept(folder)
    for left in ('{"host": "elsewhere", "pid": 7}', "", "[]"):
        (work / "owner").write_text(left)
        with pytest.raises(UsageError, match="another process is writing") as raised:
            write_all(folder, KEY, made(b"one"))
        assert raised.value.hint.endswith(f"if that process is dead, remove {work / 'owner'}")
        assert (work / "owner").read_text() == left
    monkeypatch.undo()
    with pytest.raises(UsageError, match="another process is writing"):  # a machine that has locks knows of it, too
        write_all(folder, KEY, made(b"one"))
    (work / "owner").unlink()
    write_all(folder, KEY, made(b"one"))
    assert (folder / "model.safetensors").stat().st_ino == before["model.safetensors"]


def test_who_was_killed_holds_nothing(folder, writer):
    process = writer(folder)
    process.kill()
    process.wait()
    with open_target(str(folder), KEY) as target:
        target.write([made(b"again!")])
    assert (folder / "model.safetensors").read_bytes() == b"again!"


def test_threads_of_one_process_are_kept_apart_too(folder):
    outcomes = []

    def one() -> None:
        try:
            with open_target(str(folder), KEY) as target:
                target.write([made(b"abc")])
            outcomes.append("written")
        except UsageError as error:
            outcomes.append(error.message.rpartition(" is writing ")[0] or error.message.rpartition(" holds ")[2])

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("written") == 1
    assert set(outcomes) <= {"written", "another process", "a model already"}
    assert workplaces(folder) == []


# --- faults


@pytest.mark.parametrize("piece", ["span", "made", "put"])
def test_a_disk_that_takes_no_more_is_told_and_continued(folder, source, piece):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write_it() -> None:
        with Reader(str(source)) as reader, open_target(str(folder), KEY) as target:
            target.write([made(b"small", "a.safetensors")])
            span = Span(reader=reader, offset=0, length=SIZE)
            if piece == "put":
                target.put("b.json", source.read_bytes())
            else:
                whole = made(source.read_bytes(), "b.safetensors")
                target.write([Output(name="b.safetensors", pieces=(span,)) if piece == "span" else whole])

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(CloudtuneError, match="cannot be written: File too large") as raised:
            write_it()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "ulimit -f" in raised.value.hint
    assert "run the same again" in raised.value.hint
    before = kept(folder)
    assert "a.safetensors" in before
    write_it()
    assert (folder / "a.safetensors").stat().st_ino == before["a.safetensors"]
    assert sum(path.stat().st_size for path in folder.iterdir()) == SIZE + 5
    assert workplaces(folder) == []


@pytest.fixture
def small_disk(tmp_path):
    """Return a file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "cloudtune-test", str(place)]
    if os.geteuid() or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("a small disk is mounted by root only")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_model_that_cannot_fit_is_refused_before_it_is_begun(small_disk):
    with pytest.raises(UsageError, match="GB free, and the model takes") as raised:
        write_all(small_disk / "model", KEY, made(b"x" * (2 << 20)))
    assert "make room" in raised.value.hint
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_is_told_and_continued_when_there_is_room(small_disk):
    """The room is taken by somebody else while the model is written; the target is a mount."""
    (small_disk / "notes").write_bytes(b"mine")

    def greedy() -> Iterator[bytes]:
        (small_disk / "other").write_bytes(b"x" * (600 << 10))
        yield b"x" * (400 << 10)

    def write_it(blocks: object) -> None:
        with open_target(str(small_disk), KEY) as target:
            target.write([made(b"y" * (300 << 10), "a.safetensors")])
            target.write([Output(name="b.safetensors", pieces=(Made(length=400 << 10, blocks=blocks),))])  # type: ignore[arg-type]

    with pytest.raises(CloudtuneError, match="cannot be written: No space left") as raised:
        write_it(greedy)
    assert raised.value.hint.startswith("make room, then run the same again")
    assert {path.name for path in small_disk.iterdir() if path.is_file()} == {"notes", "other"}
    before = kept(small_disk)
    with pytest.raises(UsageError, match="GB free"):
        write_it(greedy)
    assert kept(small_disk) == before  # what was begun stays although it does not fit yet
    (small_disk / "other").unlink()
    write_it(lambda: iter([b"x" * (400 << 10)]))
    assert {path.name for path in small_disk.iterdir()} == {"notes", "a.safetensors", "b.safetensors"}
    assert (small_disk / "a.safetensors").stat().st_ino == before["a.safetensors"]


def test_a_source_that_is_cut_off_meanwhile_leaves_nothing_whole(folder, source):
    def cut() -> Iterator[bytes]:
        os.truncate(source, 1000)
        yield b"x"

    with Reader(str(source)) as reader:
        pieces = (Made(length=1, blocks=cut), Span(reader=reader, offset=0, length=SIZE))
        with pytest.raises(ServiceError, match="shorter than it was"), open_target(str(folder), KEY) as target:
            target.write([Output(name="model.safetensors", pieces=pieces)])
    assert not folder.exists()
    assert kept(folder) == {}


@pytest.mark.parametrize("made_bytes", [9, 11])
def test_what_is_made_too_short_or_too_long_leaves_nothing_whole(folder, made_bytes):
    output = Output(name="model.safetensors", pieces=(Made(length=10, blocks=lambda: iter([b"x" * made_bytes])),))
    with pytest.raises(ValueError, match="were announced"), open_target(str(folder), KEY) as target:
        target.write([output])
    assert not folder.exists()
    assert kept(folder) == {}


def test_the_first_error_stops_all_threads(folder):
    def endless() -> Iterator[bytes]:
        while True:
            time.sleep(0.001)
            yield b"x"

    outputs = [Output(name=f"{number}.safetensors", pieces=(Made(length=1 << 40, blocks=endless),)) for number in "ab"]
    before = threading.active_count()
    here_space = here.shutil.disk_usage
    try:
        here.shutil.disk_usage = lambda path: here_space(path)._replace(free=1 << 50)
        with pytest.raises(ZeroDivisionError), open_target(str(folder), KEY) as target:
            target.write([fails(ZeroDivisionError()), *outputs])
    finally:
        here.shutil.disk_usage = here_space
    assert threading.active_count() == before


def test_an_interruption_stops_all_threads_and_is_continued(folder):
    """Ctrl-C arrives while the threads write."""

    def interrupting() -> Iterator[bytes]:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10**4):
            time.sleep(0.001)
            yield b"x"

    before = threading.active_count()
    slow = Output(name="b.safetensors", pieces=(Made(length=10**4, blocks=interrupting),))
    with pytest.raises(KeyboardInterrupt):
        write_all(folder, KEY, made(b"one", "a.safetensors"), slow)
    end = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)  # one that was just being started has nothing to do any more, but has to find that out
    assert threading.active_count() == before
    assert not folder.exists()
    assert kept(folder).keys() == {"a.safetensors"}
    with open_target(str(folder), KEY) as target:
        target.write([made(b"one", "a.safetensors"), made(b"two", "b.safetensors")])
    assert (folder / "b.safetensors").read_bytes() == b"two"


def test_descriptors_and_threads_are_given_back(folder, source):
    before = set(threading.enumerate())
    for number in range(5):
        write(folder.parent / str(number), source)
        with pytest.raises(UsageError), open_target(str(folder.parent / str(number)), KEY):
            pass
        with pytest.raises(ZeroDivisionError), open_target(str(folder), KEY) as target:
            target.write([made(b"a"), fails(ZeroDivisionError(), name="b.safetensors")])
    assert open_below(folder.parent) == []
    assert set(threading.enumerate()) <= before


def test_an_error_before_anything_is_written_leaves_nothing(folder):
    for error in (UsageError("no"), ZeroDivisionError(), KeyboardInterrupt()):
        with pytest.raises(type(error)), open_target(str(folder), KEY):
            raise error
    assert list(folder.parent.iterdir()) == []


def test_where_there_is_no_posix_it_is_told_when_it_is_used(folder, source):
    code = (
        "import os, sys\n"
        "for name in ('fcntl', 'resource'):\n"
        "    sys.modules[name] = None\n"
        "del os.pread, os.preadv, os.pwrite, os.copy_file_range, os.sched_getaffinity\n"
        "from cloudtune.errors import UsageError\n"
        "from cloudtune.ranges import LooseReader, Reader\n"
        "from cloudtune.weights.target import open_target\n"
        "def entered(): open_target(sys.argv[1], '0' * 16).__enter__()\n"
        "for use in (entered, lambda: Reader(sys.argv[2]), lambda: LooseReader(sys.argv[2], 1)):\n"
        "    try: use()\n"
        "    except UsageError as error: print(error.message)\n"
    )
    argv = [sys.executable, "-c", code, str(folder), str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "models are written to folders of Linux and macOS",
        *["weights are read on Linux and macOS"] * 2,
    ]


def test_the_record_comes_last():
    assert LAST[-1] == RECORD
