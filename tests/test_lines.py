"""Which lines of a log are chosen."""

from __future__ import annotations

import re

import pytest

from cloudtune.errors import UsageError
from cloudtune.lines import Choice, label, replicas_in
from cloudtune.states import LogLine


def line(number: int, replica: int | None = 0) -> LogLine:
    return LogLine(time=float(number), replica=replica, rank=replica, stream="stdout", text=f"line {number}")


LINES = [line(0, None), *(line(number, number % 2) for number in range(1, 9))]


def chosen(*, follow: bool = False, **options: object) -> list[float]:
    return [one.time for one in Choice(**options).of(lambda _: LINES, follow=follow)]  # type: ignore[arg-type]


def test_lines_are_chosen_by_time_replica_and_pattern_and_from_the_end() -> None:
    assert chosen() == [*range(9)]
    assert chosen(since=7.0) == [7, 8]
    assert chosen(replica=1, tail=2) == chosen(replica=1, tail=2, follow=True) == [5, 7]
    assert chosen(grep="[37]$", replicas=2, replica=1) == [3, 7]
    with pytest.raises(re.error):
        chosen(grep="(")


@pytest.mark.parametrize(("replicas", "words"), [(2, "replicas 0 to 1"), (1, "one replica, 0")])
def test_a_replica_that_the_run_has_not_is_refused(replicas: int, words: str) -> None:
    for replica in (-1, replicas):
        with pytest.raises(UsageError, match=words):
            chosen(replica=replica, replicas=replicas)


def test_of_a_run_that_nothing_is_known_of_the_lines_tell_the_replicas() -> None:
    with pytest.raises(UsageError, match="replica 7 has written nothing") as caught:
        chosen(replica=7)
    assert caught.value.hint == "there are lines of replica 0, 1"
    assert list(Choice(replica=7).of(lambda _: [line(0, None)], follow=False)) == []


def test_plans_tell_how_many_replicas_there_are() -> None:
    assert replicas_in('{"launch": {"nodes": 6}}') == 6
    assert replicas_in('{"launches": {"a": {"nodes": 1}, "b": {"nodes": 4}}}') == 4
    assert replicas_in("{}") is replicas_in(None) is None


def test_labels_name_step_replica_and_rank() -> None:
    assert [label(LINES[0]), label(LINES[1])] == ["[-] ", "[1/1] "]
