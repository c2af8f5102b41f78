"""Looking at the process table of this machine, apart from the code under test."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def open_below(folder: Path) -> list[str]:
    """Return the files at or below a folder that this process has open, each as often as it has; none without /proc."""
    table, found = Path("/proc/self/fd"), []
    for entry in table.iterdir() if table.is_dir() else ():
        try:
            path = entry.readlink()
        except OSError:  # closed meanwhile, as the look at the table itself is
            continue
        if path.is_relative_to(folder.resolve()):
            found.append(str(path))
    return found


def running(mark: str) -> list[int]:
    """Return the processes whose command line holds the mark, zombies and this one left out."""
    listed = subprocess.run(["ps", "-ewwo", "pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    found = []
    for row in listed.splitlines():
        pid, stat, args = row.split(None, 2) if len(row.split(None, 2)) == 3 else (*row.split(None, 1), "")
        if mark in args and not stat.startswith("Z") and int(pid) != os.getpid():
            found.append(int(pid))
    return found


def eventually(true: Callable[[], object], *, within_s: float = 90.0) -> object:
    """Return the first true answer; fails when there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        answer = true()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not true within {within_s:g} s"
        time.sleep(0.05)
