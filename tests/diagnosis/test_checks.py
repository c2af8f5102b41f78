"""Checks run at once, and none can end or hold up the others."""

from __future__ import annotations

import threading

from cloudtune.diagnosis.checks import Check, carried_out
from cloudtune.diagnosis.findings import Finding, Report, summary
from cloudtune.errors import UsageError


def found(name: str, status: str = "ok") -> Finding:
    return Finding(check=name, status=status, message="m")


def test_findings_come_in_the_order_of_the_checks():
    second_began = threading.Event()

    def first():
        assert second_began.wait(30)  # they run at the same time
        yield found("first")

    def second():
        second_began.set()
        yield found("second")
        yield found("second", "warning")

    checks = [Check(name="first", look=first), Check(name="second", look=second)]
    assert [one.check for one in carried_out(checks)] == ["first", "second", "second"]


def test_a_check_that_hangs_is_given_up_and_what_it_had_found_counts():
    over = threading.Event()

    def hangs():
        yield found("disk")
        over.wait(60)

    try:
        first, second, other = carried_out(
            [Check(name="disk", look=hangs, limit_s=0.05), Check(name="git", look=lambda: [found("git")])]
        )
    finally:
        over.set()
    assert (first.status, second.status, second.check) == ("ok", "unknown", "disk")
    assert "no answer within 0.05 s" in second.message
    assert other.check == "git"


def test_a_check_that_fails_says_so():
    def broken():
        raise ZeroDivisionError("oops")
        yield

    def told():
        yield found("b")
        raise UsageError("no such thing", hint="name another")

    first, second, third = carried_out([Check(name="a", look=broken), Check(name="b", look=told)])
    assert (first.status, first.hint) == ("unknown", "please report it")
    assert "ZeroDivisionError: oops" in first.message
    assert (second.check, third.message, third.hint) == ("b", "no such thing", "name another")


def test_a_report_counts_and_shows_itself():
    report = Report(findings=(found("a"), found("b", "problem"), found("c", "warning"), found("d", "warning")))
    assert not report.ok
    assert summary(report) == "1 problem, 2 warnings, 1 ok"
    assert summary(Report(findings=())) == "nothing was looked at"
    data = report.to_dict()
    assert (data["ok"], data["counts"]) == (False, {"problem": 1, "warning": 2, "unknown": 0, "ok": 1})
    assert data["findings"][0] == {
        "check": "a",
        "status": "ok",
        "message": "m",
        "hint": "",
        "where": "",
        "statements": [],
    }
    assert "<table>" in report._repr_html_()
    assert Report(findings=(found("c", "warning"), found("d", "unknown"))).ok


def test_what_others_wrote_moves_no_cursor_and_tells_no_password():
    one = Finding(check="a", status="ok", message="\x1b[2J https://me:secret@host/x", where="\x00")
    assert one.message == "\\x1b[2J https://***@host/x"
    assert one.where == "\\x00"
