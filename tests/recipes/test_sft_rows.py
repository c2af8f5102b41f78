"""Rows of training data as the recipe sft reads them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recipes.modules import module

rows = module("sft", "rows")
TALK = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}


def written(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    "row",
    [
        TALK,
        {"text": "words"},
        {"prompt": "a", "completion": "b"},
        {"prompt": TALK["messages"][:1], "completion": TALK["messages"][1:]},
        {**TALK, "tools": [{"type": "function"}]},
    ],
)
def test_every_kind_is_read_as_it_is(row, tmp_path):
    assert list(rows.read_rows([written(tmp_path / "a.jsonl", row, "", row)])) == [row, row]


def test_keys_that_training_does_not_read_are_left_out():
    assert rows.check_row({**TALK, "id": 7, "prompt_id": "x"}) == TALK


def test_text_in_parts_is_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "c"}]}
    assert rows.check_row(row)["messages"][0]["content"] == "ab"


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"instruction": "hi", "context": "", "response": "yo", "category": "chat"}, "hi"),
        ({"instruction": "hi", "input": "you", "output": "yo"}, "hi\n\nyou"),
    ],
)
def test_an_instruction_becomes_a_conversation(row, asked):
    messages = rows.check_row(row)["messages"]
    assert [one["content"] for one in messages] == [asked, "yo"]
    with pytest.raises(rows.RowError, match="has an instruction, and no answer"):
        rows.check_row({"instruction": "hi"})


def test_a_call_of_a_tool_needs_no_content():
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    row = {"messages": [TALK["messages"][0], call, {"role": "tool", "content": "3"}, TALK["messages"][1]]}
    assert rows.check_row(row)["messages"][1] == {**call, "content": ""}


def test_system_message_where_there_is_none():
    first = rows.check_row(TALK, "Be kind.")["messages"][0]
    assert first == {"role": "system", "content": "Be kind."}
    again = rows.check_row({"messages": [{"role": "system", "content": "Mine."}, *TALK["messages"]]}, "Be kind.")
    assert again["messages"][0]["content"] == "Mine."


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("nonsense", "not JSON"),
        ("[1]", "is list, not a JSON object"),
        ({"conversations": []}, 'the key is "messages"'),
        ({"foo": 1}, "has foo, but neither"),
        ({"text": " "}, "text is empty"),
        ({"text": 3}, "text is int, not text"),
        ({"messages": []}, "not a list with at least one message"),
        ({"messages": [{"role": "human", "content": "x"}]}, "messages[0].role is 'human', expected one of system"),
        ({"messages": [{"role": "user"}]}, "messages[0].content is NoneType"),
        ({"messages": ["x"]}, "messages[0] is str"),
        ({"messages": TALK["messages"][:1]}, "ends with a message of the user"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "this recipe reads text"),
        ({"text": "x"}, "is of kind text, but the rows before it are of kind messages"),
    ],
)
def test_a_fault_is_told_with_file_and_line(row, said, tmp_path):
    path = written(tmp_path / "a.jsonl", TALK, row)
    with pytest.raises(rows.DataError) as error:
        list(rows.read_rows([path]))
    assert f"{path}:2: " in str(error.value)
    assert said in str(error.value)
    assert "--bad-rows skip" in str(error.value)


def test_a_job_is_told_the_key_of_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDTUNE_RUN_ID", "abc12345")
    with pytest.raises(rows.DataError, match="leave them out with badRows: skip"):
        list(rows.read_rows([written(tmp_path / "a.jsonl", "x")]))


def test_many_faults_are_counted(tmp_path):
    path = written(tmp_path / "a.jsonl", *["x"] * 9)
    with pytest.raises(rows.DataError, match="and 4 more"):
        list(rows.read_rows([path]))


def test_bad_rows_are_left_out_if_asked(tmp_path):
    told = []
    path = written(tmp_path / "a.jsonl", "x", TALK, {"foo": 1})
    assert list(rows.read_rows([path], bad_rows="skip", tell=told.append)) == [TALK]
    assert len(told) == 1
    assert "2 rows are left out" in told[0]


@pytest.mark.parametrize(("lines", "bad_rows"), [((), "fail"), (("x",), "skip")])
def test_data_without_a_good_row_fails(lines, bad_rows, tmp_path):
    with pytest.raises(rows.DataError, match="expected: one JSON object a line"):
        list(rows.read_rows([written(tmp_path / "a.jsonl", *lines)], bad_rows=bad_rows))


def test_a_json_array_is_read_too(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([TALK, {"foo": 1}], indent=1))
    with pytest.raises(rows.DataError, match=r"a\.json\[1\]: has foo"):
        list(rows.read_rows([path]))
    path.write_text(json.dumps([TALK], indent=1))
    assert list(rows.read_rows([path])) == [TALK]


def test_broken_files(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "\xff\xfe"}\n')
    with pytest.raises(rows.DataError, match="not UTF-8"):
        list(rows.read_rows([path]))
    path.write_text("[1,\n2")
    with pytest.raises(rows.DataError, match=r"a\.jsonl:2: not JSON"):
        list(rows.read_rows([path]))


def test_files_of_a_folder_are_parted(tmp_path):
    for name in ("train.jsonl", "eval.jsonl", "test_small.json", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in rows.data_files(str(tmp_path))] == ["train.jsonl"]
    assert [path.name for path in rows.data_files(str(tmp_path), evaluation=True)] == ["eval.jsonl", "test_small.json"]
    assert rows.data_files(str(tmp_path / "eval.jsonl")) == [tmp_path / "eval.jsonl"]


@pytest.mark.parametrize("source", ["./nothing", "/nothing/at/all", "rows.jsonl", "a/b/c"])
def test_a_path_to_nothing_is_told(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(rows.DataError, match="no such file or folder"):
        rows.data_files(source)


@pytest.mark.parametrize("source", ["imdb", "HuggingFaceH4/no_robots"])
def test_a_name_on_the_hub_has_no_files(source):
    assert rows.data_files(source) == []


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(rows.DataError, match=r"no \.jsonl file for training"):
        rows.data_files(str(tmp_path))


@pytest.mark.parametrize(
    ("count", "fraction", "parted"),
    [(1, 0.05, False), (2, 0.05, True), (2, 0.6, False), (100, 0.999, False), (100, 0.99, True)],
)
def test_rows_are_parted_where_some_are_left_to_train_on(count, fraction, parted):
    assert rows.can_be_parted(count, fraction) is parted


@pytest.mark.heavy
def test_a_single_row_is_trained_on_without_evaluation(tmp_path, capsys):
    path = written(tmp_path / "rows.jsonl", TALK)
    flags = ["--model", "m", "--train-data", str(path), "--eval-fraction", "0.05"]
    train, evaluation = module("sft", "data").load_data(module("sft", "options").parse(flags))
    assert (len(train), evaluation) == (1, None)
    assert "too few rows (1)" in capsys.readouterr().out


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["messages", "role", "content", "text", "prompt", "x"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(JSON)
def test_any_json_is_a_row_or_a_fault(value):
    verdict = rows.judge(json.dumps(value), "", "")
    assert isinstance(verdict, (str, dict))
    assert verdict
