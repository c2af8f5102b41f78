from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.node.lines import (
    CUT_NOTE,
    LIMIT_BYTES,
    Numbered,
    Splitter,
    format_line,
    parse_line,
    parse_numbered,
    start_word,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


def test_a_line_has_the_form_that_clients_read() -> None:
    time_s = dt.datetime(2026, 11, 20, 23, 10, 1, 123000, tzinfo=dt.timezone.utc).timestamp()
    assert format_line(time_s, 3, "stderr", "warning: ...") == "2026-11-20T23:10:01.123Z 3 E warning: ..."
    assert format_line(time_s, None, "agent", "") == "2026-11-20T23:10:01.123Z - A "


@given(
    st.floats(0, 4e9),
    st.none() | st.integers(0, 100_000),
    st.sampled_from(["stdout", "stderr", "agent"]),
    TEXTS,
)
def test_what_is_formatted_is_one_line_and_is_read_back(
    time_s: float, rank: int | None, stream: str, text: str
) -> None:
    line = format_line(time_s, rank, stream, text)
    assert line.splitlines() == [line]
    parsed = parse_line(line)
    assert parsed is not None
    assert abs(parsed[0] - time_s) <= 0.0006
    assert parsed[1:3] == (rank, stream)
    if text.splitlines() in ([], [text]):
        assert parsed[3] == text


@given(
    st.integers(0, 4_000_000_000_000),
    st.none() | st.integers(0, 100_000),
    st.sampled_from(["stdout", "stderr", "agent"]),
    TEXTS,
    st.integers(0, 999),
    st.integers(1, 10**12),
)
def test_a_numbered_line_is_read_back_and_is_no_other(
    time_ms: int, rank: int | None, stream: str, text: str, node: int, number: int
) -> None:
    start = start_word(time_ms / 1000)
    line = format_line(time_ms / 1000, rank, stream, text, mark=f"{node}/1000@{start}.{number}")
    parsed = parse_numbered(line)
    assert parsed is not None
    assert parsed[:7] == (node, 1000, start, number, time_ms / 1000, rank, stream)
    if text.splitlines() in ([], [text]):
        assert parsed.text == text
    assert parse_line(line) is None
    assert parse_numbered(format_line(time_ms / 1000, rank, stream, text)) is None


def test_a_numbered_line_has_the_form_that_clients_read() -> None:
    line = "2026-11-20T23:10:01.123Z 1/4@7l0yk3g.17 3 E warning: ..."
    assert parse_numbered(line) == Numbered(1, 4, "7l0yk3g", 17, 1795216201.123, 3, "stderr", "warning: ...")
    assert parse_numbered(line.replace("1/4", "4/4")) is None
    assert parse_numbered(line.replace(".17", ".0")) is None


@given(st.floats(1e9, 5e9), st.floats(0.1, 1e8))
def test_a_later_start_is_a_greater_word(time_s: float, later_s: float) -> None:
    assert start_word(time_s) < start_word(time_s + later_s)
    assert len(start_word(time_s)) == 7


@given(TEXTS)
def test_any_other_text_is_no_line(text: str) -> None:
    parsed = parse_line(text)
    assert parsed is None or format_line(*parsed).rstrip() == text.rstrip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "2026-13-20T23:10:01.123Z 3 E month",
        "2026-11-20T25:10:01.123Z 3 E hour",
        "2026-11-20T23:10:01.123Z x E rank",
        "2026-11-20T23:10:01.123Z 3 X stream",
        "2026-11-20T23:10:01.123Z 3 Etight",
    ],
)
def test_malformed_lines_are_refused(text: str) -> None:
    assert parse_line(text) is None


def test_trailing_blanks_may_be_lost_on_the_way() -> None:
    assert parse_line("2026-11-20T23:10:01.123Z - A") == (1795216201.123, None, "agent", "")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")), max_size=8), st.data())
def test_splitting_does_not_depend_on_how_bytes_arrive(lines: list[str], data: st.DataObject) -> None:
    raw = "".join(line + "\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    splitter = Splitter()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        found += splitter.feed(raw[start:end])
    assert found + splitter.flush() == lines


def test_each_state_of_a_progress_bar_is_a_line() -> None:
    splitter = Splitter()
    assert splitter.feed(b"\r  0%|  |\r 50%|# |") == ["  0%|  |"]
    assert splitter.feed(b"\r100%|##|\n") == [" 50%|# |", "100%|##|"]
    assert splitter.feed(b"next\r\n") == ["next"]
    assert splitter.flush() == []


def test_a_windows_line_end_cut_in_two_is_one_line_end() -> None:
    splitter = Splitter()
    assert splitter.feed(b"a\r") + splitter.feed(b"\nb\r\n\r\n") == ["a", "b", ""]


def test_an_endless_line_is_cut_and_does_not_stay_in_memory() -> None:
    splitter = Splitter()
    found = []
    for _ in range(40):
        found += splitter.feed(b"x" * 10_000)
    found += splitter.feed(b"end\nshort\n")
    assert [len(line) for line in found] == [LIMIT_BYTES + len(CUT_NOTE), len("short")]
    assert found[0].endswith(CUT_NOTE)


def test_a_long_line_that_ends_in_the_same_read_is_cut_too() -> None:
    assert [len(line) for line in Splitter().feed(b"y" * 100_000 + b"\nz\n")] == [LIMIT_BYTES + len(CUT_NOTE), 1]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert Splitter().feed(b"caf\xc3\xa9 \xff\xfe\n") == ["caf\u00e9 \ufffd\ufffd"]


def test_a_last_line_without_its_end_is_kept() -> None:
    splitter = Splitter()
    assert splitter.feed(b"one\ntwo") == ["one"]
    assert splitter.flush() == ["two"]
    assert splitter.flush() == []
