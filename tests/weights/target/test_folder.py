"""Targets on this machine: whole or absent, continued, one writer at a time, and nothing left over."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cloudtune.errors import CloudtuneError, NotAllowed, UsageError
from cloudtune.ranges import Reader
from cloudtune.weights.files.assembly import Made, Output
from cloudtune.weights.files.records import record_text
from cloudtune.weights.target import locks, open_target
from cloudtune.weights.target.writing import LAST
from tests.rights import as_somebody_else
from tests.weights.target import killing
from tests.weights.target.killing import KEY, SMALL, workplaces, write
from tests.weights.target.outputs import OTHER, begun, fails, inodes, kept, made, write_all

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
