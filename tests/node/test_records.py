from __future__ import annotations

import pytest

from cloudtune.node.records import LAST_LINES, Record, last_traceback

TRACEBACK = """\
Traceback (most recent call last):
  File "train.py", line 12, in <module>
    raise ValueError("bad data")
ValueError: bad data"""


def test_the_last_traceback_ends_with_its_exception() -> None:
    first = TRACEBACK.replace("bad data", "older")
    lines = ["noise", *first.splitlines(), "", "During handling ...", "", *TRACEBACK.splitlines(), "after", "wards"]
    assert last_traceback(lines) == TRACEBACK


def test_torchs_prefix_is_taken_off_and_long_messages_are_kept_whole() -> None:
    lines = [f"[rank3]: {line}" for line in (*TRACEBACK.splitlines(), "CUDA kernel errors might be late")]
    assert last_traceback(["x", *lines, "W1120 unrelated"]).splitlines()[:5] == [  # type: ignore[union-attr]
        *TRACEBACK.splitlines(),
        "CUDA kernel errors might be late",
    ]


@pytest.mark.parametrize(
    "after", ["terminate called without an active exception", "[rank3]:[W1121 15:47:58.1 Utils.cpp:9] Warning: late"]
)
def test_what_is_said_behind_an_exception_with_torchs_prefix_is_none_of_it(after: str) -> None:
    lines = [*(f"[rank3]: {line}" for line in TRACEBACK.splitlines()), after]
    assert last_traceback(lines) == TRACEBACK.rstrip()


def test_no_traceback_and_one_cut_short() -> None:
    assert last_traceback(["just", "lines"]) is None
    assert last_traceback(TRACEBACK.splitlines()[:2]) == "\n".join(TRACEBACK.splitlines()[:2])


def test_a_record_keeps_the_last_lines_of_both_streams() -> None:
    record = Record(rank=1, local_rank=0, pid=7)
    record.hear("stdout", [f"line {number}" for number in range(100)])
    record.hear("stderr", TRACEBACK.splitlines())
    record.hear("stdout", ["x" * 5000])
    assert len(record.lines) == LAST_LINES
    assert record.lines[-2] == "ValueError: bad data"
    assert len(record.lines[-1]) < 5000
    assert record.traceback == TRACEBACK


def test_the_first_word_on_the_end_counts() -> None:
    record = Record(rank=0, local_rank=0, pid=7)
    record.end(10.0, None)
    record.end(12.0, -9)
    record.end(13.0, 1)
    assert (record.ended_at, record.exit_code, record.signal) == (10.0, 137, "SIGKILL")
