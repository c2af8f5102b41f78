from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtune.node.errors import NodeError
from cloudtune.node.log import Log, Redaction
from cloudtune.node.outputs import FolderStore, Outputs, look
from tests.processes import eventually


class Shelf:
    """A store in memory that can be made to fail."""

    uri = "shelf://here"

    def __init__(self) -> None:
        self.kept: dict[str, list[bytes]] = {}
        self.failure: Callable[[str], Exception | None] = lambda name: None

    def put(self, source: Path, name: str) -> None:
        problem = self.failure(name)
        if problem is not None:
            raise problem
        content = source.read_bytes()
        self.kept.setdefault(name, []).append(content)

    def remove(self, name: str) -> None:
        del self.kept[name]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "outputs"
    path.mkdir()
    return path


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log", Redaction())


def outputs(
    folder: Path, store: object, log: Log, *, node: int = 0, layout: str = "perNode", every: float = 60
) -> Outputs:
    return Outputs(folder, store, log, node=node, layout=layout, interval_s=every)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("node", "layout", "name"),
    [(0, "perNode", "a/b.txt"), (2, "perNode", "node-2/a/b.txt"), (2, "shared", "a/b.txt")],
)
def test_each_node_has_a_place_of_its_own_unless_told_otherwise(
    folder: Path, shelf: Shelf, log: Log, node: int, layout: str, name: str
) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "b.txt").write_text("x")
    assert outputs(folder, shelf, log, node=node, layout=layout).finish() is None
    assert shelf.kept == {name: [b"x"]}


def test_a_probe_leaves_nothing_behind(folder: Path, log: Log, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "far" / "away", "file:///far/away")
    outputs(folder, store, log, node=1).probe("r1", tmp_path)
    assert list((tmp_path / "far" / "away").iterdir()) == []


def test_a_place_that_cannot_be_written_is_found_out_before_the_start(
    folder: Path, shelf: Shelf, log: Log, tmp_path: Path
) -> None:
    shelf.failure = lambda name: NodeError("AccessDenied: no")
    with pytest.raises(NodeError, match="outputs cannot be kept at shelf://here: AccessDenied: no"):
        outputs(folder, shelf, log).probe("r1", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeError, match=r"outputs cannot be kept at .*Not a directory"):
        outputs(folder, FolderStore(tmp_path / "file" / "below", "x"), log).probe("r1", tmp_path)


def test_files_at_rest_go_while_the_job_runs_and_growing_ones_wait(folder: Path, shelf: Shelf, log: Log) -> None:
    keeper = outputs(folder, shelf, log, every=0.05)
    (folder / "done.bin").write_bytes(b"done")
    growing = (folder / "growing.bin").open("wb", buffering=0)
    keeper.start()

    def grown_until_done_is_kept() -> bool:
        growing.write(b"x")
        os.utime(folder / "growing.bin", ns=(0, growing.tell()))
        return "done.bin" in shelf.kept

    eventually(grown_until_done_is_kept)
    assert keeper.finish() is None
    growing.close()
    assert shelf.kept["done.bin"] == [b"done"]
    assert len(shelf.kept["growing.bin"][-1]) == (folder / "growing.bin").stat().st_size


def test_a_file_that_changed_after_it_was_kept_goes_again(folder: Path, shelf: Shelf, log: Log) -> None:
    keeper = outputs(folder, shelf, log, every=0.02)
    (folder / "a").write_text("1")
    keeper.start()
    eventually(lambda: "a" in shelf.kept)
    (folder / "a").write_text("22")
    assert keeper.finish() is None
    assert shelf.kept["a"] == [b"1", b"22"]


def test_a_failure_on_the_way_is_said_and_made_good_at_the_end(folder: Path, shelf: Shelf, log: Log) -> None:
    keeper = outputs(folder, shelf, log, every=0.02)
    (folder / "a").write_text("1")
    shelf.failure = lambda name: NodeError("busy")
    keeper.start()
    eventually(lambda: any("busy; it is tried again at the end" in words for words in log.last_words))
    shelf.failure = lambda name: None
    assert keeper.finish() is None
    assert shelf.kept["a"] == [b"1"]


def test_a_full_disk_ends_in_a_reason(folder: Path, shelf: Shelf, log: Log) -> None:
    for number in range(9):
        (folder / f"{number}.bin").write_text("x")
    tried = []

    def full(name: str) -> Exception | None:
        tried.append(name)
        return OSError(errno.ENOSPC, "No space left on device") if name >= "3" else None

    shelf.failure = full
    reason = outputs(folder, shelf, log).finish()
    assert reason == (
        "outputs could not be kept at shelf://here: 3.bin: No space left on device; the disk there is full "
        "(9 files were to go)"
    )
    assert tried[-1] == "3.bin"
    assert sorted(shelf.kept) == ["0.bin", "1.bin", "2.bin"]


def test_one_bad_file_does_not_stop_the_others(folder: Path, shelf: Shelf, log: Log) -> None:
    for name in "abc":
        (folder / name).write_text("x")
    shelf.failure = lambda name: NodeError("refused") if name == "b" else None
    reason = outputs(folder, shelf, log).finish()
    assert reason is not None
    assert "b: refused" in reason
    assert sorted(shelf.kept) == ["a", "c"]


def test_a_file_that_vanishes_is_no_failure(folder: Path, shelf: Shelf, log: Log) -> None:
    (folder / "old").write_text("x")
    (folder / "new").write_text("x")

    def vanish(name: str) -> Exception | None:
        (folder / "old").unlink(missing_ok=True)
        return None

    shelf.failure = vanish
    assert outputs(folder, shelf, log).finish() is None
    assert sorted(shelf.kept) == ["new"]


def test_a_file_that_vanishes_on_its_way_to_a_service_is_no_failure(folder: Path, shelf: Shelf, log: Log) -> None:
    (folder / "gone").write_text("1")
    (folder / "model").write_text("1")

    def gone(name: str) -> Exception | None:
        if name != "gone":
            return None
        (folder / "gone").unlink()
        return NodeError("FileNotFoundError: [Errno 2] No such file or directory")  # the courier's own words

    shelf.failure = gone
    assert outputs(folder, shelf, log).finish() is None
    assert list(shelf.kept) == ["model"]


def test_links_and_special_files(folder: Path, shelf: Shelf, log: Log, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "big").write_text("big")
    (folder / "real").write_text("real")
    (folder / "link").symlink_to("real")
    (folder / "dangling").symlink_to("nothing")
    (folder / "latest").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / "pipe")
    assert look(folder).skipped == ("latest",)
    assert outputs(folder, shelf, log).finish() is None
    assert shelf.kept == {"real": [b"real"], "link": [b"real"]}
    assert "outputs: latest is a link to a folder and is not kept" in log.last_words


def test_a_store_inside_the_folder_does_not_feed_itself(folder: Path, log: Log) -> None:
    (folder / "a").write_text("x")
    keeper = outputs(folder, FolderStore(folder / "kept", "x"), log)
    for _ in range(2):
        assert keeper.finish() is None
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("a")) == ["a", "kept/a"]


def test_a_store_that_is_the_folder_has_nothing_to_copy(folder: Path, log: Log) -> None:
    (folder / "a").write_text("x")
    before = (folder / "a").stat().st_ino
    assert outputs(folder, FolderStore(folder, "x"), log).finish() is None
    assert (folder / "a").stat().st_ino == before


def test_no_outputs_at_all_is_fine(shelf: Shelf, log: Log, tmp_path: Path) -> None:
    assert outputs(tmp_path / "never-made", shelf, log).finish() is None
    assert shelf.kept == {}


def test_the_log_lies_beside_the_outputs(folder: Path, shelf: Shelf, log: Log) -> None:
    log.say("hello")
    keeper = outputs(folder, shelf, log, node=3)
    assert keeper.keep_log() is None
    assert b"hello" in shelf.kept["logs/node-3.log"][0]
    shelf.failure = lambda name: OSError(errno.EACCES, "Permission denied")
    assert keeper.keep_log() == "logs/node-3.log could not be kept at shelf://here: Permission denied"
