"""Threads that write: each with a file of its own, and all of them at an end when one fails."""

from __future__ import annotations

import threading
import time

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.ranges import Reader
from cloudtune.weights.files.assembly import Made, Output, Span
from cloudtune.weights.target import writing
from cloudtune.weights.target.writing import Meter, in_turn, run_all


@given(st.lists(st.lists(st.integers(), max_size=5), max_size=6), st.integers(1, 4))
def test_items_come_in_turn_and_all_of_them(series, count):
    marked = [[(number, place) for place in range(len(items))] for number, items in enumerate(series)]
    found = list(in_turn(marked, count))
    assert sorted(found) == [item for items in marked for item in items]
    for number in range(len(series)):
        assert [place for which, place in found if which == number] == list(range(len(series[number])))
    for index in range(len(found)):
        begun = {which for which, _ in found[:index]}
        ended = {which for which in begun if all(item in found[:index] for item in marked[which])}
        assert len(begun - ended) <= count


def test_two_series_take_turns():
    assert list(in_turn(["abc", "de", "", "fghi", "j"], 2)) == list("adbecfjghi")


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_all_tasks_are_run_once(workers):
    done = []
    run_all([lambda number=number: done.append(number) for number in range(100)], workers, Meter(0, None))
    assert sorted(done) == list(range(100))


def test_the_first_error_is_raised_when_nobody_works_any_more():
    meter, working, ended = Meter(0, None), threading.Barrier(3), []

    def patient() -> None:
        working.wait()
        try:
            while True:
                time.sleep(0.001)
                meter.check()
        finally:
            ended.append(1)

    def failing() -> None:
        working.wait()
        raise ZeroDivisionError

    before = threading.active_count()
    never = [lambda: ended.append(2)] * 10
    with pytest.raises(ZeroDivisionError):
        run_all([patient, failing, patient, *never], 3, meter)
    assert ended == [1, 1]
    assert threading.active_count() == before


def test_an_error_of_the_progress_is_an_error(capsys):
    def complain(done: int, total: int) -> None:
        raise BrokenPipeError

    meter = Meter(10, complain)
    with pytest.raises(BrokenPipeError):
        run_all([lambda: meter.add(1)], 2, meter)


def test_progress_is_told_by_one_thread_at_a_time():
    said = []
    meter = Meter(1000, lambda done, total: said.append((done, total)))
    run_all([lambda: meter.add(1)] * 1000, 4, meter)
    assert said == [(done, 1000) for done in range(1, 1001)]


def test_threads_do_not_wait_for_each_other(monkeypatch, tmp_path):
    (tmp_path / "source").write_bytes(b"abc")
    monkeypatch.setattr(writing, "WORKERS", 3)
    monkeypatch.setattr(writing, "_LARGE_BYTES", 2)
    made = Made(length=3, blocks=lambda: iter([b"abc"]))
    fsspec.filesystem("memory").pipe_file("/writing/source", b"abc")
    with Reader(str(tmp_path / "source")) as here, Reader("memory://writing/source") as there:
        span, far = (Span(reader=reader, offset=0, length=3) for reader in (here, there))
        files = [Output(name=f"{number}", pieces=(span,)) for number in range(5)]
        assert writing.workers_for([*files[:2], Output(name="small", pieces=(b"a",))]) == 2
        assert writing.workers_for(files) == 3
        assert writing.workers_for([]) == 1
        assert writing.workers_for([Output(name="made", pieces=(span, made))]) == 3
        assert writing.workers_for([Output(name="far", pieces=(far,))]) == writing.UPLOADS
