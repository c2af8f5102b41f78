"""Helper processes of the agent: git, pip, venv. Their output goes to the log as the agent's words."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from cloudtune.node import processes
from cloudtune.node.errors import NodeError
from cloudtune.node.lines import Splitter
from cloudtune.node.log import Log

#: Variables that would bend a helper's Python towards the user's code.
_BENDING = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHON_EXEC", "LD_PRELOAD", "VIRTUAL_ENV")
_LAST_LINES = 15
_ERROR = re.compile(r"(?:error|fatal): ", re.IGNORECASE)


def helper_variables(*sources: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a helper process: later sources win, and what bends Python is left out."""
    return {name: value for source in sources for name, value in source.items() if name not in _BENDING}


def run_step(
    command: Sequence[str], log: Log, *, variables: Mapping[str, str], folder: Path, what: str, quiet: bool = False
) -> None:
    """Run a helper to its end; raises NodeError with what it said if it fails.

    ``what`` completes "cannot ...". A ``quiet`` helper's last lines appear only in the error; of another's, which are
    in the log, the error has those that say what is wrong.
    """
    code, lines = try_step(command, log, variables=variables, folder=folder, quiet=quiet)
    if code != 0:
        words = "\n".join(lines).strip() or "it said nothing"
        raise NodeError(
            f"cannot {what}: " + (f"{command[0]} ended with code {code}: {words}" if quiet else _cause(words))
        )


def _cause(words: str) -> str:
    """Return the lines by which pip and git say what is wrong, as one; the last line where there are none."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return "; ".join(line[found.end() :] for line in lines if (found := _ERROR.match(line))) or lines[-1]


def try_step(
    command: Sequence[str], log: Log, *, variables: Mapping[str, str], folder: Path, quiet: bool = False
) -> tuple[int, list[str]]:
    """Run a helper to its end; return its exit code (127: there is no such command) and last lines."""
    try:
        process = processes.start(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError:
        return 127, [f"{command[0]} is not installed on this node"]
    except OSError as error:
        return 126, [f"{command[0]}: {error.strerror}"]
    last: deque[str] = deque(maxlen=_LAST_LINES)
    splitter = Splitter()
    assert process.stdout is not None
    try:
        while True:
            data = os.read(process.stdout.fileno(), 65536)
            lines = splitter.feed(data) if data else splitter.flush()
            last.extend(map(log.redaction, lines))
            if not quiet:
                log.write(None, "agent", lines)
            if not data:
                return process.wait(), list(last)
    finally:
        if process.poll() is None:
            _end_group(process)
        process.stdout.close()
        processes.forget(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
