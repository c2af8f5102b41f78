"""The log of a run that is kept on this machine: whole, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cloudtune import keeping
from cloudtune.states import LogLine

LINES = [LogLine(time=float(at), replica=0, rank=None, stream="stdout", text=f"line {at}") for at in range(200)]
FULL = """
import resource
from cloudtune import keeping, places
from tests.test_keeping import LINES

with keeping.kept("run1") as keep:
    keep(LINES[:10])
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    keep(LINES[10:190])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    keep(LINES[190:])
"""


@pytest.mark.usefixtures("home")
def test_lines_are_kept_once_all_are_there(home: Path) -> None:
    with keeping.kept("run1") as keep:
        assert (home / "runs" / "run1").stat().st_mode & 0o077 == 0
        keep(LINES[:150])
        keep(LINES[150:])
        assert keeping.lines_of("run1") is None
    assert list(keeping.lines_of("run1") or ()) == LINES
    keeping.forget("run1")
    assert keeping.lines_of("run1") is None


def test_a_disk_that_was_full_for_a_while_leaves_no_log_that_lies(home: Path) -> None:
    subprocess.run([sys.executable, "-c", FULL], check=True, cwd=Path(__file__).parents[1])
    assert keeping.lines_of("run1") is None
    assert list((home / "runs" / "run1").iterdir()) == []


@pytest.mark.usefixtures("home")
def test_two_who_end_a_run_at_once_keep_all_its_lines() -> None:
    with keeping.kept("run1") as first:
        first(LINES[:100])
        with keeping.kept("run1") as second:
            second(LINES[:50])
        first(LINES[100:])
    assert list(keeping.lines_of("run1") or ()) == LINES


def test_who_ends_a_run_once_more_leaves_the_longer_log(home: Path) -> None:
    with keeping.kept("run1") as first:
        first(LINES)
    with keeping.kept("run1") as second:
        second([])  # its place has no lines any more
    assert list(keeping.lines_of("run1") or ()) == LINES
    (home / "runs" / "run1" / "log.jsonl.0a1b2c3d.part").touch()
    keeping.forget("run1")
    assert not (home / "runs" / "run1").exists()
