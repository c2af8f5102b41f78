"""Starting the process that makes and keeps a node; see :mod:`cloudtune.rehearsal.cell` for its inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypedDict

import cloudtune
from cloudtune.rehearsal.rooms import Bind

#: The folder from which cloudtune is imported.
PACKAGES = Path(cloudtune.__file__).resolve().parents[1]
_START = (
    f"import sys; sys.path.insert(0, {str(PACKAGES)!r}); "
    "from cloudtune.rehearsal.cell import main; main(int(sys.argv[1]))"
)
#: What a Python may need to start at all.
_LOADER = ("PATH", "LD_LIBRARY_PATH")


class Way(TypedDict):
    """Which namespaces a node gets besides its mounts: of users (else only root can), and of processes."""

    user: bool
    processes: bool


class Order(TypedDict):
    """What a warden is told."""

    name: str
    way: Way
    root: str
    protect: bool
    binds: Sequence[Bind]
    visible: Collection[str]
    hidden: Collection[str]
    command: Sequence[str]
    environment: dict[str, str]
    workingDir: str
    memoryLimitBytes: int | None
    memoryEndsAll: bool


class Warden:
    """A started warden: its process, with pipes for the command's output, and the descriptor of its reports."""

    def __init__(self, order: Order) -> None:
        self._lock = threading.Lock()  # of standard input: who closes it must not meet who writes
        self.report, theirs = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, str(theirs), f"rehearsed:{order['name']}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env={name: os.environ[name] for name in _LOADER if name in os.environ},
                pass_fds=(theirs,),
                start_new_session=True,
            )
        except OSError:
            os.close(self.report)
            raise
        finally:
            os.close(theirs)
        data = json.dumps(order).encode()
        self._say(b"%08x" % len(data) + data)

    def ask_to_end(self) -> None:
        """Send the command SIGTERM."""
        self._say(b"T")

    def end(self) -> None:
        """End the node and all its processes, now."""
        assert self.process.stdin is not None
        with self._lock:
            self.process.stdin.close()

    def _say(self, words: bytes) -> None:
        assert self.process.stdin is not None
        with self._lock:
            if self.process.stdin.closed:
                return
            try:
                while words:
                    words = words[self.process.stdin.write(words) or 0 :]
            except BrokenPipeError:
                pass  # it has ended: its report says so

    def forget(self) -> None:
        """Close what is open; the process has ended, or ends by this."""
        self.end()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        os.close(self.report)
        self.process.wait()
