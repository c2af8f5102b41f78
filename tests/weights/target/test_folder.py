"""Targets on this machine: whole or absent, continued, one writer at a time, and nothing left over."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cloudtune.errors import CloudtuneError, NotAllowed, ServiceError, UsageError
from cloudtune.ranges import Reader
from cloudtune.weights.files.assembly import Made, Output, Span
from cloudtune.weights.files.filenames import RECORD
from cloudtune.weights.files.records import record_text
from cloudtune.weights.target import folder as here
from cloudtune.weights.target import locks, open_target
from cloudtune.weights.target.writing import LAST
from tests.rights import as_somebody_else
from tests.weights.target import killing
from tests.weights.target.killing import KEY, SMALL, workplaces, write

OTHER = "f" * 16
SIZE = 300_000


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model"


def made(data: bytes, name: str = "model.safetensors") -> Output:
    return Output(name=name, pieces=(Made(length=len(data), blocks=lambda: iter([data])),))


def fails(error: BaseException, length: int = 10, name: str = "model.safetensors") -> Output:
    def blocks() -> Iterator[bytes]:
        yield b"x"
        raise error

    return Output(name=name, pieces=(Made(length=length, blocks=blocks),))


def write_all(folder: Path, key: str, *deeds: object) -> None:
    """Write a model by deeds: outputs, small files by name, errors to be raised, functions to be called."""
    with open_target(str(folder), key) as target:
        for deed in deeds:
            if isinstance(deed, Output):
                target.write([deed])
            elif isinstance(deed, tuple):
                target.put(*deed)
            elif isinstance(deed, BaseException):
                raise deed
            else:
                deed()


def kept(folder: Path) -> dict[str, int]:
    """Return the files that are complete in the workplace, by inode."""
    return {path.name: path.stat().st_ino for work in workplaces(folder) for path in work.glob("*/*[!t]")}


def inodes(folder: Path) -> list[int]:
    return sorted(path.stat().st_ino for work in workplaces(folder) for path in work.glob("*/*"))


# --- whole


def test_a_model_is_written_with_its_checksums(folder, source):
    sums = write(folder, source)
    assert sums == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    assert list(sums) == sorted({*SMALL, *(f"model-{number}.safetensors" for number in range(3))})
    data = source.read_bytes()
    blocks = b"".join(bytes([1 + block]) * (64 << 10) for block in range(12))
    assert (folder / "model-1.safetensors").read_bytes() == b"head1" + data[1:] + blocks + data
    assert workplaces(folder) == []


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "file://{}/", "file://localhost{}"])
def test_a_target_is_named_in_any_way(folder, form):
    with open_target(form.format(folder), KEY) as target:
        target.write([made(b"abc")])
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert (folder / "model.safetensors").read_bytes() == b"abc"


def test_nothing_is_seen_before_the_end(folder):
    with open_target(str(folder), KEY) as target:
        target.write([made(b"abc")])
        target.put("config.json", b"{}")
        assert not folder.exists()
        assert target.checksums().keys() == {"config.json", "model.safetensors"}
    assert folder.exists()


def test_a_target_may_be_a_link_also_to_nothing(folder, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "dangling").symlink_to(folder)
    for name, place in (("link", tmp_path / "there"), ("dangling", folder)):
        with open_target(str(tmp_path / name), KEY) as target:
            target.write([made(b"abc")])
        assert (tmp_path / name).is_symlink()
        assert [path.name for path in place.iterdir()] == ["model.safetensors"]


def test_parents_are_made_and_long_names_are_fine(folder):
    long = folder / ("d" * 255) / ("n" * 255)
    with open_target(str(long), KEY) as target:
        target.write([made(b"abc", "m" * 238 + ".safetensors")])
    assert len(list(long.iterdir())) == 1


def test_a_name_that_is_too_long_is_told(folder):
    with pytest.raises(CloudtuneError, match="too long"), open_target(str(folder), KEY) as target:
        target.put("m" * 255, b"")
    with pytest.raises(CloudtuneError, match="too long"), open_target(str(folder / ("d" * 256)), KEY):
        pass


def test_rights_are_those_of_the_user(folder):
    before = os.umask(0o027)
    try:
        with open_target(str(folder), KEY) as target:
            target.write([made(b"abc")])
            target.put("config.json", b"{}")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_empty_files_and_no_files_are_fine(folder):
    with open_target(str(folder), KEY) as target:
        target.write([])
        target.write([Output(name="a.safetensors", pieces=()), made(b"", "b.safetensors")])
        target.put("c.json", b"")
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == dict.fromkeys(
        ("a.safetensors", "b.safetensors", "c.json"), 0
    )


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "x.part", ".cloudtune-0000000000000000.part"])
def test_names_that_are_none_are_a_mistake(folder, name):
    for place in (str(folder), "memory://names"):
        with pytest.raises(ValueError, match="no name of a file"), open_target(place, KEY) as target:
            target.put(name, b"")
    with pytest.raises(ValueError, match="no key"), open_target(str(folder), "short"):
        pass
    assert workplaces(folder) == []


def test_progress_reaches_the_whole_once(folder, source):
    said = []
    with Reader(str(source)) as reader, open_target(str(folder), KEY) as target:
        target.write(killing.outputs(reader), lambda done, total: said.append((done, total)))
    done = [one for one, _ in said]
    assert done == sorted(done)
    assert said[0] == (0, said[-1][1])
    assert said[-1][0] == said[-1][1] == sum(path.stat().st_size for path in folder.iterdir())


def test_a_record_is_text_whatever_is_in_it():
    assert record_text({"a": "ü"}) == '{\n  "a": "ü"\n}\n'.encode()
    assert json.loads(record_text({"a": "\ud800"})) == {"a": "\ud800"}


# --- what is in the way


@pytest.mark.parametrize("name", [*LAST, "model.safetensors", "x.safetensors"])
def test_a_model_is_not_written_over_another(folder, name):
    folder.mkdir()
    (folder / name).write_bytes(b"there")
    with pytest.raises(UsageError, match="holds a model already"), open_target(str(folder), KEY):
        pass
    assert [path.name for path in folder.iterdir()] == [name]
    assert workplaces(folder) == []


def test_a_file_is_no_target(folder):
    folder.write_bytes(b"")
    with pytest.raises(UsageError, match="is a file"), open_target(str(folder), KEY):
        pass
    with pytest.raises(UsageError, match="is a file"), open_target(str(folder / "below"), KEY):
        pass
    assert folder.read_bytes() == b""


def test_other_files_stay_and_are_not_written_over(folder):
    folder.mkdir()
    (folder / "README.md").write_bytes(b"mine")
    (folder / "tokenizer.json").write_bytes(b"same")
    with pytest.raises(UsageError, match=r"README\.md is there already"):
        write_all(folder, KEY, made(b"abc"), ("README.md", b"another"))
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"README.md", "tokenizer.json"}
    (folder / "README.md").rename(folder / "MINE.md")
    with open_target(str(folder), KEY) as target:
        target.write([made(b"abc")])
        target.put("README.md", b"another")
        target.put("tokenizer.json", b"same")
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found == {
        "MINE.md": b"mine",
        "README.md": b"another",
        "tokenizer.json": b"same",
        "model.safetensors": b"abc",
    }


def test_what_is_in_the_way_of_any_file_is_told_before_the_first(folder):
    folder.mkdir()
    (folder / "README.md").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"README\.md is there already"), open_target(str(folder), KEY) as target:
        target.expect(["model.safetensors", "README.md"])
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    with open_target(str(folder), KEY) as target:
        target.expect(["model.safetensors", "never.json"])
        target.write([made(b"abc")])
        assert target.checksums().keys() == {"model.safetensors"}
    assert {path.name for path in folder.iterdir()} == {"README.md", "model.safetensors"}


def test_whoever_interrupts_is_told_how_it_goes_on_and_where_what_is_done_lies(folder):
    with pytest.raises(KeyboardInterrupt, match=r"^the same command goes on where it stopped$"):
        write_all(folder, KEY, KeyboardInterrupt())
    assert workplaces(folder) == []
    with pytest.raises(KeyboardInterrupt) as raised:
        write_all(folder, KEY, made(b"abc"), KeyboardInterrupt())
    (work,) = workplaces(folder)
    assert str(raised.value) == f"the same command goes on where it stopped ({work} holds what is done)"
    write_all(folder, KEY, made(b"abc"))


def test_a_folder_that_appears_meanwhile_is_filled(folder):
    with open_target(str(folder), KEY) as target:
        target.write([made(b"abc")])
        folder.mkdir()
        (folder / "notes").write_bytes(b"mine")
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "notes"}
    assert workplaces(folder) == []


def test_a_model_that_appears_meanwhile_is_left_alone(folder):
    with pytest.raises(UsageError, match="holds a model already"):
        write_all(folder, KEY, made(b"abc"), folder.mkdir, lambda: (folder / "config.json").write_bytes(b"another"))
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_a_folder_without_rights_is_told(folder):
    folder.parent.chmod(0o555)
    with as_somebody_else(folder.parent), pytest.raises(NotAllowed, match="may not"):
        write_all(folder, KEY)
    folder.mkdir()
    folder.chmod(0o555)
    with as_somebody_else(folder.parent), pytest.raises(NotAllowed, match="may not"):
        write_all(folder, KEY)
    assert workplaces(folder) == []


# --- what was begun, continued


@pytest.mark.parametrize("existing", [False, True])
def test_what_is_complete_is_not_written_again(folder, existing):
    if existing:
        folder.mkdir()
    with pytest.raises(ZeroDivisionError):
        write_all(folder, KEY, made(b"one", "a.safetensors"), fails(ZeroDivisionError(), name="b.safetensors"))
    before = kept(folder)
    assert before.keys() == {"a.safetensors"}
    assert not (folder / "a.safetensors").exists()
    asked = []

    def again() -> Iterator[bytes]:
        asked.append(1)
        yield b"one"

    said = []
    with open_target(str(folder), KEY) as target:
        first = Output(name="a.safetensors", pieces=(Made(length=3, blocks=again),))
        target.write([first, made(b"two", "b.safetensors")], lambda done, total: said.append((done, total)))
    assert asked == []
    assert said == [(3, 6), (6, 6)]
    assert (folder / "a.safetensors").stat().st_ino == before["a.safetensors"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "a.safetensors": b"one",
        "b.safetensors": b"two",
    }
    assert workplaces(folder) == []


def begun(folder: Path, key: str, data: bytes = b"one") -> None:
    with pytest.raises(ZeroDivisionError):
        write_all(folder, key, made(data), ZeroDivisionError())


@pytest.mark.parametrize("existing", [False, True])
def test_what_was_begun_of_another_model_is_kept_until_one_is_whole(folder, existing):
    if existing:
        folder.mkdir()
    begun(folder, KEY)
    first = inodes(folder)
    begun(folder, OTHER, b"two")
    assert set(first) <= set(inodes(folder))
    assert len(inodes(folder)) == 2
    with open_target(str(folder), OTHER) as target:
        target.write([made(b"two")])
    assert (folder / "model.safetensors").read_bytes() == b"two"
    assert workplaces(folder) == []


def test_what_was_begun_for_a_file_of_another_length_is_written_again(folder):
    begun(folder, KEY, b"too long")
    with open_target(str(folder), KEY) as target:
        target.write([made(b"three")])
    assert (folder / "model.safetensors").read_bytes() == b"three"


def test_what_an_earlier_try_wrote_and_this_one_does_not_is_dropped(folder):
    with pytest.raises(ZeroDivisionError), open_target(str(folder), KEY) as target:
        target.write([made(b"one", "old.safetensors"), fails(ZeroDivisionError(), name="cut.safetensors")])
    with open_target(str(folder), KEY) as target:
        target.write([made(b"two")])
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]


def test_what_was_begun_beside_is_continued_inside(folder):
    begun(folder, KEY)
    before = kept(folder)
    folder.mkdir()
    (folder / "notes").write_bytes(b"mine")
    with open_target(str(folder), KEY) as target:
        target.write([made(b"one")])
    assert (folder / "model.safetensors").stat().st_ino == before["model.safetensors"]
    assert workplaces(folder) == []


def test_after_the_machine_went_down_everything_is_written_again(folder, tmp_path, monkeypatch):
    """The files may have holes for contents: nothing was forced to the disk."""
    folder.mkdir()
    begun(folder, KEY)
    monkeypatch.setattr(locks, "_BOOT", tmp_path / "boot")
    (tmp_path / "boot").write_text("another start\n")
    with open_target(str(folder), KEY) as target:
        target.write([made(b"new")])
    assert (folder / "model.safetensors").read_bytes() == b"new"


def test_where_starts_of_the_machine_are_not_known_only_what_is_on_the_disk_is_kept(folder, tmp_path, monkeypatch):
    forced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: forced.append(os.fstat(descriptor).st_ino))
    begun(folder, KEY)
    assert forced == []
    monkeypatch.setattr(locks, "_BOOT", tmp_path / "none")
    begun(folder, KEY, b"two")  # what is not on the disk is not continued
    before = kept(folder)
    assert forced == [before["model.safetensors"]]
    write_all(folder, KEY, made(b"two"))
    assert (folder / "model.safetensors").stat().st_ino == before["model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == b"two"


def test_after_the_machine_went_down_while_files_were_moved_too(folder, tmp_path, monkeypatch):
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(b"mine")
    break_disk = partial(monkeypatch.setattr, Path, "replace", failing_for(folder / "config.json"))
    small = ("tokenizer.json", b"mine"), ("config.json", b"{}")
    with pytest.raises(CloudtuneError, match="cannot be written: Input/output error"):
        write_all(folder, KEY, made(b"abc"), *small, break_disk)
    monkeypatch.undo()
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"model.safetensors", "tokenizer.json"}
    with pytest.raises(UsageError, match="the same command completes it"), open_target(str(folder), OTHER):
        pass
    monkeypatch.setattr(locks, "_BOOT", tmp_path / "boot")
    (tmp_path / "boot").write_text("another start\n")
    with pytest.raises(ZeroDivisionError):
        write_all(folder, KEY, ZeroDivisionError())
    assert [path.name for path in folder.iterdir()] == ["tokenizer.json"]
    with open_target(str(folder), OTHER) as target:
        target.write([made(b"new")])
    assert (folder / "model.safetensors").read_bytes() == b"new"
    assert workplaces(folder) == []


def failing_for(path: Path):
    """Return a ``Path.replace`` that fails for a path."""
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target == path:
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    return fail


@pytest.mark.parametrize("kind", ["new", "existing"])
def test_killed_at_every_step_it_is_whole_absent_or_continued(tmp_path, kind):
    assert killed(kind, tmp_path) > 30


@pytest.mark.parametrize("kind", ["new", "existing"])
def test_killed_at_random_moments_it_is_whole_absent_or_continued(tmp_path, kind):
    assert killed(kind, tmp_path, "8", "1") >= 8


def killed(*arguments: object) -> int:
    argv = [sys.executable, "-m", "tests.weights.target.killing", *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["killed"]


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
    proc = Path("/proc/self/fd")
    if not proc.is_dir():
        pytest.skip("counts descriptors in /proc")
    before = len(list(proc.iterdir())), threading.active_count()
    for number in range(5):
        write(folder.parent / str(number), source)
        with pytest.raises(UsageError), open_target(str(folder.parent / str(number)), KEY):
            pass
        with pytest.raises(ZeroDivisionError), open_target(str(folder), KEY) as target:
            target.write([made(b"a"), fails(ZeroDivisionError(), name="b.safetensors")])
    assert (len(list(proc.iterdir())), threading.active_count()) == before


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
