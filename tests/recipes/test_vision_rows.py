"""Rows with images as the recipe vision reads them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest

from tests.recipes.modules import module
from tests.recipes.seeing import COLOURS, web_pages

module("sft", "flags")
module("sft", "places")
conversations = module("vision", "conversations")
pictures = module("vision", "pictures")


def loaded(source: Path, **words):
    return pictures.load(str(source), "train", "", evaluation=False, **words)


def said(messages):
    return [(one["role"], [part.get("text", part["type"]) for part in one["content"]]) for one in messages]


def test_a_step_of_a_task_on_the_web_is_a_question_about_its_page(tmp_path):
    rows = loaded(web_pages(tmp_path, train=3, test=1))
    rows.check("fail", print)
    messages, (image,) = rows[0]
    asked = "Task: press the button that is as the page\nPrevious actions:\n[heading]  CAR -> CLICK\n"
    assert said(messages)[0] == ("user", ["image", f"{asked}What is the next action?"])
    colour = next(name for name in COLOURS if name in messages[1]["content"][0]["text"])
    assert said(messages)[1] == ("assistant", [f"[button]  {colour} -> CLICK"])
    assert image.getpixel((0, 0)) == COLOURS[colour]
    assert len(rows) == 3
    assert len(pictures.load(str(tmp_path), "", "", evaluation=True)) == 1


def test_the_action_that_is_told_needs_no_index():
    row = {"screenshot": b"", "confirmed_task": "t", "action_reprs": ["a", "b"], "target_action_reprs": "b"}
    messages, _ = conversations.conversation(row, "mind2web", "be brief")
    assert said(messages)[0] == ("system", ["be brief"])
    assert said(messages)[-1] == ("assistant", ["b"])
    assert "Previous actions:\nnone\n" in said(messages)[1][1][1]


def test_images_that_no_message_places_come_before_the_first_words_of_the_user():
    row = {
        "images": ["a.png", "b.png"],
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    }
    messages, images = conversations.conversation(row, "messages")
    assert said(messages) == [("user", ["image", "image", "q"]), ("assistant", ["a"])]
    assert images == ["a.png", "b.png"]


def test_an_image_is_a_path_bytes_or_base64(tmp_path):
    from PIL import Image

    made = io.BytesIO()
    Image.new("L", (2, 3), 7).save(made, "PNG")
    (tmp_path / "a.png").write_bytes(made.getvalue())
    text = "data:image/png;base64," + base64.b64encode(made.getvalue()).decode()
    for one in (
        "a.png",
        text,
        made.getvalue(),
        {"bytes": made.getvalue(), "path": None},
        {"bytes": None, "path": "a.png"},
    ):
        image = conversations.opened(one, tmp_path)
        assert (image.mode, image.size) == ("RGB", (2, 3))
    data = made.getvalue()
    broken = data[:40] + b"\xff" * 8 + data[48:]
    for one in (b"no image", "data:image/png;base64,abc", broken, data[:45], data[:16] + b"\x00\x0f" * 4 + data[24:]):
        with pytest.raises(conversations.RowError, match="cannot be read"):
            conversations.opened(one, tmp_path)


def test_parquet_files_keep_their_images_to_themselves_until_they_are_asked_for(tmp_path):
    import datasets

    folder = web_pages(tmp_path / "pages", train=2, test=1)
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    rows = [{**row, "screenshot": str(folder / row["screenshot"])} for row in rows]
    data = datasets.Dataset.from_list([*rows, {**rows[0], "screenshot": None}])
    data.cast_column("screenshot", datasets.Image()).to_parquet(tmp_path / "train.parquet")
    found = loaded(tmp_path / "train.parquet")
    assert "raw_html" not in found.rows.column_names
    with pytest.raises(conversations.DataError, match=r"train.parquet row 2 has no screenshot"):
        found.check("fail", print)
    found.check("skip", print)
    assert len(found) == 2
    messages, (image,) = found[1]
    assert next(name for name in COLOURS if name in messages[1]["content"][0]["text"]) in COLOURS
    assert image.mode == "RGB"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"image": "none.png", "prompt": "q", "completion": "a"}, "names an image that is not there"),
        ({"image": "train-0.png", "prompt": " ", "completion": "a"}, "prompt is empty"),
        ({"image": "train-0.png", "prompt": "q", "completion": None}, "completion is NoneType, not text"),
        ({"images": "train-0.png", "prompt": "q", "completion": "a"}, "images is str, not a list"),
        ({"images": [], "prompt": "q", "completion": "a"}, "has no image; rows of words alone are for the recipe sft"),
    ],
)
def test_bad_rows_are_named_or_left_out(row, told, tmp_path):
    web_pages(tmp_path, train=1, test=0)
    good = {"image": "train-0.png", "prompt": "q", "completion": "a"}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (good, row)))
    with pytest.raises(conversations.DataError) as caught:
        loaded(path).check("fail", print)
    assert f"{path}:2 {told}" in str(caught.value)
    said, found = [], loaded(path)
    found.check("skip", said.append)
    assert (len(found), len(said)) == (1, 1)


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([{"role": "user", "content": "q"}], "does not end with the assistant's answer"),
        ([{"role": "robot", "content": "q"}], r"messages\[0\].role is 'robot'"),
        (
            [
                {"role": "user", "content": [{"type": "image"}, {"type": "image"}]},
                {"role": "assistant", "content": "a"},
            ],
            "says where 2 images belong, and has 1",
        ),
        ([{"role": "user", "content": [{"type": "sound"}]}], "neither an image nor a text"),
    ],
)
def test_conversations_that_are_none_are_refused(messages, told):
    with pytest.raises(conversations.RowError, match=told):
        conversations.conversation({"image": "a.png", "messages": messages}, "messages")


def test_an_image_that_turns_out_to_be_bad_is_passed_over_if_asked(tmp_path, capsys):
    web_pages(tmp_path, train=2, test=0)
    (tmp_path / "train-0.png").write_bytes(b"no image")
    rows = loaded(tmp_path)
    rows.check("fail", print)
    with pytest.raises(conversations.DataError, match=r"train.jsonl:1 has an image that cannot be read"):
        rows[0]
    rows.check("skip", print)
    assert rows[0][1][0].mode == "RGB"
    assert "data: " in capsys.readouterr().out


def test_columns_that_nothing_is_known_of_are_refused_with_what_is():
    with pytest.raises(conversations.DataError, match="the rows have html, task\n  expected: the columns of Mind2Web"):
        conversations.kind_of(["task", "html"])
