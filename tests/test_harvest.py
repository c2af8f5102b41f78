"""What runs have left: downloaded without writing over anything, removed wherever it lies."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cloudtune import harvest
from cloudtune.errors import UsageError
from cloudtune.runs import Run, run_of
from cloudtune.states import Handle
from cloudtune.store import Record, Store


def ended(run_id: str, *outputs: Path, kind: str = "run", parent: str | None = None, backend: str = "local") -> Run:
    """Record a run that has succeeded, with these places as its outputs."""
    now = time.time()
    record = Record(
        id=run_id,
        name=run_id,
        backend=backend,
        state="succeeded",
        created=now,
        updated=now,
        parent=parent,
        handle=Handle(backend=backend, kind=kind, id=run_id).uri,
        outputs=tuple(f"file://{place}" for place in outputs),
    )
    Store().add_run(record)
    return run_of(record, Store())


def left(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def pipeline(tmp_path: Path) -> Run:
    run = ended("pipeline", kind="pipeline")
    for name in ("one", "two", "two-2"):
        ended(f"pipeline-{name}", left(tmp_path / "left" / name, model=name), parent="pipeline")
    return run


def test_steps_that_left_the_same_name_get_a_folder_each(pipeline: Run, tmp_path: Path) -> None:
    harvest.download(pipeline, tmp_path / "here")
    assert tree(tmp_path / "here") == {"one/model": "one", "two/model": "two", "two-2/model": "two-2"}
    assert len(harvest.files(pipeline)) == 3


def test_a_run_goes_into_the_folder_itself(tmp_path: Path) -> None:
    run = ended("run", left(tmp_path / "left", a="1"))
    left(tmp_path / "here", b="2")
    harvest.download(run, tmp_path / "here")
    assert tree(tmp_path / "here") == {"a": "1", "b": "2"}


def test_what_is_there_is_not_written_over_unless_forced(tmp_path: Path) -> None:
    run = ended("run", left(tmp_path / "left", a="new", b="new"))
    here = left(tmp_path / "here", b="old")
    (here / "a").symlink_to("nowhere")
    with pytest.raises(UsageError, match="a is there already, and 1 more") as caught:
        harvest.download(run, here)
    assert "--force" in str(caught.value)
    assert (here / "b").read_text() == "old"
    assert (here / "a").is_symlink()
    harvest.download(run, here, force=True)
    assert (here / "a").read_text() == (here / "b").read_text() == "new"


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    run = ended("run", left(tmp_path / "left", a="1"))
    (tmp_path / "here").touch()
    with pytest.raises(UsageError, match="here is a file"):
        harvest.download(run, tmp_path / "here")


def test_outputs_that_are_one_file_or_none(tmp_path: Path) -> None:
    folder = left(tmp_path / "left", single="1")
    (tmp_path / "empty").mkdir()
    run = ended("run", folder / "single", tmp_path / "empty", tmp_path / "gone")
    harvest.download(run, tmp_path / "here")
    assert tree(tmp_path / "here") == {"single": "1"}
    assert [Path(file["uri"]).name for file in harvest.files(run)] == ["single"]


def test_two_places_with_one_file_are_told_apart(tmp_path: Path) -> None:
    run = ended("run", left(tmp_path / "x", a="1"), left(tmp_path / "y", a="2"))
    with pytest.raises(UsageError, match=r"a is in .*x and in .*y"):
        harvest.download(run, tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_outputs_are_removed_wherever_they_lie(pipeline: Run, tmp_path: Path) -> None:
    removed = harvest.remove(pipeline)
    assert [uri.rpartition("/")[2] for uri in removed] == ["one", "two", "two-2"]
    assert tree(tmp_path / "left") == {}
    assert harvest.remove(pipeline) == ()


def test_what_another_run_has_left_too_is_not_removed(tmp_path: Path) -> None:
    shared = left(tmp_path / "left", a="1")
    run, other = ended("run", shared), ended("other", shared / "deeper")
    ended("sibling", tmp_path / "left-2")
    with pytest.raises(UsageError, match=r"run other has its outputs in .*left too"):
        harvest.remove(run)
    assert tree(shared) == {"a": "1"}
    other.store.remove_run("other")
    assert harvest.remove(run) == (f"file://{shared}",)
    assert not shared.exists()


def test_a_step_of_another_pipeline_counts_too(pipeline: Run, tmp_path: Path) -> None:
    run = ended("run", tmp_path / "left")
    with pytest.raises(UsageError, match="run pipeline-one has"):
        harvest.remove(run)


def test_what_lies_on_a_volume_of_the_nodes_is_not_taken_for_a_folder_here(tmp_path: Path) -> None:
    run = ended("run", tmp_path / "fsx" / "out", backend="eks")
    for deed in (harvest.files, lambda found: harvest.download(found, tmp_path / "here")):
        with pytest.raises(UsageError, match="on its nodes"):
            deed(run)
    folder = left(tmp_path / "fsx" / "out", a="1")  # the same volume, mounted here too
    assert [file["bytes"] for file in harvest.files(run)] == [1]
    with pytest.raises(UsageError, match="it is not removed"):
        harvest.remove(run)
    assert tree(folder) == {"a": "1"}
