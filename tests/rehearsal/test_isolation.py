"""What is said where this machine does not let nodes have paths of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cloudtune.errors import UsageError
from cloudtune.rehearsal.isolation import advice, find_isolation
from cloudtune.rehearsal.wardens import Way

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are of the Linux kernel")


def test_the_best_way_that_works_is_taken() -> None:
    tried = []

    def attempt(way: Way) -> bool | str:
        tried.append((way["user"], way["processes"]))
        return "no" if len(tried) < 3 else False

    found = find_isolation(attempt)
    assert tried == [(True, True), (False, True), (True, False)]
    assert (found.user, found.processes, found.protected) == (True, False, False)


def test_where_no_way_works_the_first_reason_and_a_remedy_are_told() -> None:
    answers = iter(["unshare: Operation not permitted", "b", "c", "d"])
    with pytest.raises(UsageError, match="unshare: Operation not permitted") as caught:
        find_isolation(lambda _: next(answers))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("setting", "value", "word"),
    [
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_restrict_unprivileged_userns=0"),
        ("kernel/unprivileged_userns_clone", "0", "unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "max_user_namespaces="),
    ],
)
def test_the_setting_that_forbids_it_is_named(setting: str, value: str, word: str, tmp_path: Path) -> None:
    place = tmp_path / setting
    place.parent.mkdir()
    place.write_text(f"{value}\n")
    assert word in advice(kernel=tmp_path)
    place.write_text("31\n")
    assert word not in advice(kernel=tmp_path)
