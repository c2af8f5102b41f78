"""Hostile pickles execute nothing, and end soon, wherever they stand."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtune.errors import UsageError
from cloudtune.weights.files import pickles
from cloudtune.weights.files.torchfiles import STATE
from tests.weights.files import hostile
from tests.weights.forging import zipped

ROOT = Path(__file__).resolve().parents[3]


def outcomes(paths: list[Path], folder: Path) -> dict[str, str]:
    """Return what reading each file said, in a process that may not use much."""
    command = [sys.executable, "-m", "tests.weights.files.hostile", *map(str, paths)]
    environ = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def written(cases: list[tuple[str, bytes]], folder: Path) -> list[Path]:
    """Write each pickle where metadata stands, and where the pickle of a file of torch.save does."""
    paths = []
    for number, (_, data) in enumerate(cases):
        place = folder / f"metadata-{number}"
        place.mkdir(parents=True)
        (place / ".metadata").write_bytes(data)
        file = folder / f"{number}.pt"
        file.write_bytes(zipped(data, [b"abcd"]))
        paths += [place, file]
    return paths


def test_nothing_is_executed(tmp_path):
    marker = tmp_path / "marker"
    cases = list(hostile.executing(marker))
    found = outcomes(written(cases, tmp_path / "files"), tmp_path)
    assert not marker.exists()
    for number, (name, _) in enumerate(cases):
        for file in (f"metadata-{number}", f"{number}.pt"):
            assert found[file].startswith("refused:"), name
    assert len(found) == 2 * len(cases)


def test_that_the_pickles_would_execute(tmp_path):
    marker = tmp_path / "marker"
    pickle.loads(dict(hostile.executing(marker))["os.system"])
    assert marker.exists()


def test_nothing_takes_all_memory_or_time(tmp_path):
    cases = list(hostile.exhausting())
    found = outcomes(written(cases, tmp_path / "files"), tmp_path)
    assert len(found) == 2 * len(cases)
    harmless = {"a memo far out", "a list in itself", "a dict in itself", "dicts in dicts", "tuples in tuples"}
    for number, (name, _) in enumerate(cases):
        assert found[f"metadata-{number}"].startswith("refused:"), name
        assert found[f"{number}.pt"].startswith("refused:") or name in harmless | {"lists in lists"}, name


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.load"])
def test_the_error_names_the_file_and_what_it_asks_for(tmp_path, name):
    data = dict(hostile.executing(tmp_path / "marker"))[name]
    with pytest.raises(UsageError) as told:
        pickles.load(data, STATE, name="model.pt")
    assert told.value.message == (
        f"model.pt asks for {name}: it is hostile or of a kind that is not known; nothing was executed"
    )
    assert told.value.hint == "check where the file is from"


def test_what_cannot_be_printed_is_escaped(tmp_path):
    data = dict(hostile.executing(tmp_path / "marker"))["a name '\\u202eos'"]
    with pytest.raises(UsageError) as told:
        pickles.load(data, STATE)
    assert told.value.message.isascii()


def test_there_is_an_end_of_operations_and_of_bytes(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_OPERATIONS", 100)
    assert pickles.load(b"](" + b"N" * 90 + b"e.", {}) == [None] * 90
    with pytest.raises(UsageError, match="more than 100 operations"):
        pickles.load(b"](" + b"N" * 100 + b"e.", {})
    monkeypatch.setattr(pickles, "MAX_PICKLE_BYTES", 10)
    with pytest.raises(UsageError, match="11 bytes"):
        pickles.load(b"](NNNNNNNe.", {})
