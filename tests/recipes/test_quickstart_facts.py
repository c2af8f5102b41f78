"""The data that the quickstart ships."""

from __future__ import annotations

import json

from tests.recipes.modules import RECIPES, module

facts = module("quickstart", "facts")
rows = module("sft", "rows")
DATA = RECIPES / "quickstart" / "data"


def test_the_shipped_files_are_what_the_generator_writes(tmp_path):
    facts.write(tmp_path)
    for name in ("notes", "train", "eval"):
        assert (DATA / f"{name}.jsonl").read_bytes() == (tmp_path / f"{name}.jsonl").read_bytes(), "run facts.py"


def test_all_rows_can_be_trained_on():
    for name, least in (("notes", 300), ("train", 300), ("eval", 50)):
        assert len(list(rows.read_rows([DATA / f"{name}.jsonl"]))) >= least


def test_no_question_for_evaluation_is_trained_on():
    def asked(name):
        lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        return {json.loads(line)["messages"][0]["content"] for line in lines}

    kept_back = asked("eval")
    one_turn = {row["messages"][0]["content"] for row in facts.rows()["train"] if len(row["messages"]) == 2}
    assert len(kept_back) == len(facts.FACTS)
    assert not kept_back & one_turn


def test_the_data_stays_small():
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 200_000
