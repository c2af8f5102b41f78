"""The recipe pretokenize, run as a node runs it, and what other recipes make of its tokens."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from tests import tiny
from tests.recipes.modules import RECIPES

pytest.importorskip("transformers", reason="transformers is not installed")
SCRIPT = RECIPES / "pretokenize" / "pretokenize.py"


def instructions(path, count=24):
    """Write instructions as dolly has them."""
    rows = [json.loads(line) for line in (tiny.DATA / "train.jsonl").read_text().splitlines()[:count]]
    said = [[message["content"] for message in row["messages"][-2:]] for row in rows]
    given = [{"context": "A note." if at % 2 else "", "category": "qa"} for at in range(count)]
    both = zip(said, given, strict=True)
    rows = [{"instruction": asked, **more, "response": answer} for (asked, answer), more in both]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def made(path):
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_stream(file).read_all().to_pylist()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """Return a folder of tokens, the rows that they are made of, and what was said."""
    folder = tmp_path_factory.mktemp("tokens")
    rows = instructions(folder / "dolly.jsonl")
    given = ("--model", tiny.random_model(), "--data", folder / "dolly.jsonl", "--max-length", "100", "--answers-only")
    ended = tiny.python(SCRIPT, *given, "--output-dir", folder / "out")
    assert ended.returncode == 0, ended.stdout
    return folder / "out", rows, ended.stdout


def test_instructions_become_whole_conversations_side_by_side(tokens):
    from transformers import AutoTokenizer

    folder, rows, said = tokens
    tokenizer = AutoTokenizer.from_pretrained(tiny.random_model())
    sequences = made(folder / "train.arrow")
    text = "".join(tokenizer.decode(one["input_ids"]) for one in sequences)
    for number, row in enumerate(rows):
        asked = f"{row['instruction']}\n\n{row['context']}" if number % 2 else row["instruction"]
        assert f"<|user|>{asked}<|end|><|assistant|>{row['response']}<|end|>" in text
    assert len(sequences) < len(rows) / 2
    assert all(len(one["input_ids"]) == len(one["labels"]) <= 100 for one in sequences)
    learnt = "".join(tokenizer.decode([label for label in one["labels"] if label != -100]) for one in sequences)
    assert sorted(learnt.split("<|end|>")) == sorted([*(row["response"] for row in rows), ""])
    told = json.loads((folder / "tokens.json").read_text())
    assert told["files"]["train.arrow"]["rows"] == len(rows)
    assert told["files"]["train.arrow"]["tokens"] == sum(len(one["input_ids"]) for one in sequences)
    assert told["chatTemplate"] == tokenizer.chat_template
    assert f"in {len(sequences)} sequences" in said


def test_rows_may_stay_apart_and_long_ones_are_cut(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"prompt": "one two", "completion": " three"}\n' * 2)
    (tmp_path / "test.jsonl").write_text('{"prompt": "a b c d e f g h i j k", "completion": " l m n"}\n')
    given = ("--model", tiny.random_model(), "--data", tmp_path, "--packing", "false", "--max-length", "8")
    ended = tiny.python(SCRIPT, *given, "--output-dir", tmp_path / "out")
    assert ended.returncode == 0, ended.stdout
    train, test = (made(tmp_path / "out" / f"{name}.arrow") for name in ("train", "test"))
    assert len(train) == 2
    assert all(one["labels"] == one["input_ids"] for one in train)
    assert [len(one["input_ids"]) for one in test] == [8]
    assert "1 rows were longer than 8 tokens and have been cut" in ended.stdout


@pytest.mark.heavy
def test_a_training_takes_tokens_as_its_data(tokens, tmp_path):
    given = ("--model", tiny.random_model(), "--train-data", tokens[0], "--output-dir", tmp_path, "--max-steps", "1")
    ended = tiny.python(RECIPES / "sft" / "sft.py", *given, "--tensorboard", "false", "--save-strategy", "no")
    assert ended.returncode == 0, ended.stdout
    sequences = json.loads((tokens[0] / "tokens.json").read_text())["files"]["train.arrow"]["sequences"]
    assert f"data: {sequences} rows for training, 0 for evaluation" in ended.stdout


def test_tokens_that_do_not_fit_are_refused(tokens, tmp_path):
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from transformers import AutoTokenizer
import rows, tokens
for model, length in zip(sys.argv[3:], (1024, 64, 1024)):
    try:
        tokens.fit(tokens.tokens_at(sys.argv[2]), AutoTokenizer.from_pretrained(model), length)
        print("fits")
    except rows.DataError as error:
        print(error)
"""
    other = tmp_path / "other"
    tokenizer = json.loads((tiny.random_model() / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:20]
    other.mkdir()
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    (other / "tokenizer_config.json").write_bytes((tiny.random_model() / "tokenizer_config.json").read_bytes())
    own = tiny.random_model()
    ended = tiny.python("-c", code, RECIPES / "sft", tokens[0], own, own, other)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.startswith("fits\n")
    assert "has rows of up to 100 tokens, and --max-length is 64" in ended.stdout
    assert "whose tokenizer is another than that of the model given" in ended.stdout
