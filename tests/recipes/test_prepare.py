"""The recipe prepare, run as a node runs it: a program of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloudtune.code import SHARED, gather_code
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PythonRuntime, Recipe
from tests.recipes.modules import RECIPES

QUESTION, ANSWER = {"role": "user", "content": "q é"}, {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "Be kind."}
PAIR = {"messages": [QUESTION, ANSWER], "id": 7}
ODD = {"messages": [QUESTION, QUESTION, ANSWER]}


def written(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prepare(folder: Path, *words: str, program: Path = RECIPES / "prepare" / "prepare.py", **environ: str) -> Any:
    command = [sys.executable, str(program), *words]
    variables = {**os.environ, "CLOUDTUNE_OUTPUT_DIR": str(folder / "out"), **environ}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=240)


def left(folder: Path) -> dict[str, list[Any]]:
    files = {path.name: path.read_text(encoding="utf-8").splitlines() for path in (folder / "out").iterdir()}
    return {name: [json.loads(line) for line in lines] for name, lines in files.items()}


def test_the_guides_own_preparation(tmp_path: Path) -> None:
    """A system message where there is none, no odd turns, one file to train on and one to test on."""
    written(tmp_path / "rows" / "train.jsonl", PAIR, ODD, {"messages": [SYSTEM, *PAIR["messages"]]})
    written(tmp_path / "rows" / "test.jsonl", PAIR)
    names = ("--train-file", "train_dataset.json", "--test-file", "test_dataset.json")
    done = prepare(tmp_path, "--data", "rows", "--system-message", SYSTEM["content"], "--odd-turns", "skip", *names)
    assert (done.returncode, done.stderr) == (0, "")
    whole = {"messages": [SYSTEM, QUESTION, ANSWER]}
    assert left(tmp_path) == {"train_dataset.json": [whole, whole], "test_dataset.json": [whole]}
    assert "1 conversations with an odd number of turns are left out" in done.stdout
    assert "é" in (tmp_path / "out" / "test_dataset.json").read_text(encoding="utf-8")


def test_a_share_is_set_apart_the_same_each_time(tmp_path: Path) -> None:
    written(tmp_path / "rows.jsonl", *({"text": f"row {number}"} for number in range(20)))
    found = []
    for seed in ("1", "1", "2"):
        done = prepare(tmp_path, "--data", "rows.jsonl", "--test-fraction", "0.1", "--seed", seed)
        assert done.returncode == 0, done.stderr
        found.append(left(tmp_path))
    assert found[0] == found[1] != found[2]
    assert [len(rows) for rows in (found[0]["train.jsonl"], found[0]["test.jsonl"])] == [18, 2]
    texts = [row["text"] for rows in found[0].values() for row in rows]
    assert sorted(texts) == sorted(f"row {number}" for number in range(20))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--data", "none.jsonl"), "no such file or folder"),
        (("--data", "bad.jsonl"), "bad.jsonl:2: has nothing"),
        (("--data", "odd.jsonl", "--odd-turns", "skip"), "no row is left for train.jsonl"),
        (("--data", "odd.jsonl", "--test-fraction", "0.5"), "cannot be parted"),
        (("--data", "odd.jsonl", "--test-fraction", "1"), "must be at least 0 and below 1"),
        (("--data", "odd.jsonl", "--test-file", "train.jsonl"), "are the same"),
        (("--data", "odd.jsonl", "--train-file", "a/b.jsonl"), "ends with .jsonl"),
        (("--date", "odd.jsonl"), "did you mean --data?"),
        ((), "--data is missing"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_left(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    written(tmp_path / "bad.jsonl", PAIR, {"nothing": 1})
    written(tmp_path / "odd.jsonl", ODD)
    done = prepare(tmp_path, *words)
    assert done.returncode in {1, 2}
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out/*"))


def test_bad_rows_are_left_out_when_asked(tmp_path: Path) -> None:
    written(tmp_path / "bad.jsonl", PAIR, {"nothing": 1})
    done = prepare(tmp_path, "--data", "bad.jsonl", "--bad-rows", "skip")
    assert left(tmp_path) == {"train.jsonl": [{"messages": [QUESTION, ANSWER]}]}
    assert "1 rows are left out" in done.stdout


def test_of_several_processes_one_writes(tmp_path: Path) -> None:
    written(tmp_path / "rows.jsonl", PAIR)
    assert prepare(tmp_path, "--data", "rows.jsonl", RANK="1").returncode == 0
    assert not (tmp_path / "out").exists()


def test_what_it_shares_travels_with_it(tmp_path: Path) -> None:
    workspace = gather_code(JobSpec(runtime=PythonRuntime(recipe=Recipe(name="prepare"))))
    assert workspace is not None
    assert {name.partition("/")[2] for name in SHARED["prepare"]} <= {file.path for file in workspace.files}
    for file in workspace.files:
        (tmp_path / file.path).write_bytes(Path(file.source or "").read_bytes())
    written(tmp_path / "rows.jsonl", PAIR)
    done = prepare(tmp_path, "--data", "rows.jsonl", program=tmp_path / "prepare.py", PYTHONPATH="")
    assert (done.returncode, done.stderr) == (0, "")
    assert left(tmp_path) == {"train.jsonl": [{"messages": [QUESTION, ANSWER]}]}


def test_a_data_set_of_the_hub_is_read_by_its_splits(tmp_path: Path) -> None:
    """A folder stands for the Hub: the package reads both in the same way."""
    code = (
        "import sys, datasets\n"
        "rows = {split: [{'prompt': 'p', 'messages': [{'role': 'user', 'content': split}, "
        "{'role': 'assistant', 'content': 'a'}]}] for split in ('train', 'test')}\n"
        "datasets.load_dataset = lambda name, config, split: datasets.Dataset.from_list(rows[split])\n"
        "datasets.get_dataset_split_names = lambda name, config: list(rows)\n"
        "sys.argv[0] = sys.argv.pop(1)\n"
        "import runpy; sys.path.insert(0, sys.argv[0].rpartition('/')[0]); runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    stand_in = tmp_path / "hub.py"
    stand_in.write_text(code)
    done = prepare(tmp_path, str(RECIPES / "prepare" / "prepare.py"), "--data", "owner/rows", program=stand_in)
    assert done.returncode == 0, done.stderr
    found = left(tmp_path)
    assert [found[name][0]["messages"][0]["content"] for name in ("train.jsonl", "test.jsonl")] == ["train", "test"]
    assert set(found["train.jsonl"][0]) == {"messages"}
