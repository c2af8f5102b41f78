"""What every target does alike: the order in which files appear, and threads that stop together."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from cloudtune.weights.files.assembly import Made, Output, Progress, Span
from cloudtune.weights.files.filenames import CONFIG, INDEX, RECORD

_T = TypeVar("_T")
#: What to tell of a model that was interrupted.
GOES_ON = "the same command goes on where it stopped"
#: Without these no program takes a folder for a model; written after everything else, in this order.
LAST = (INDEX, CONFIG, RECORD)
_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
#: Threads that copy and compute on this machine.
WORKERS = min(8, _PROCESSORS)
#: Threads that mostly wait for a store; each holds some 40 MB while it sends.
UPLOADS = 4
#: What a thread of its own is worth.
_LARGE_BYTES = 64 << 20


class Meter:
    """Adds up bytes over threads, and stops all of them when one fails."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.done, self.progress = total, 0, progress
        self._lock, self._stopped = threading.Lock(), threading.Event()

    def add(self, count: int) -> None:
        """Note bytes that are done."""
        with self._lock:
            self.done += count
            if self.progress is not None:
                self.progress(self.done, self.total)

    def stop(self) -> None:
        """Let every thread end that checks."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether all threads are to end."""
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise if all threads are to end."""
        if self.stopped:
            raise _Stopped


class _Stopped(Exception):
    """Another thread has failed."""


def run_all(tasks: Iterable[Callable[[], object]], workers: int, meter: Meter) -> None:
    """Run tasks on threads; the first error, or an interruption of this thread, stops the others and is raised.

    No thread works any more when this returns, whatever happens: then what it reads may be closed.
    """
    due, taking, errors = iter(tasks), threading.Lock(), list[BaseException]()

    def work() -> None:
        while not meter.stopped:
            with taking:
                task = next(due, None)
            if task is None:
                return
            try:
                task()
            except _Stopped:
                return
            except BaseException as error:  # noqa: BLE001 - raised below
                errors.append(error)
                meter.stop()

    threads = [threading.Thread(target=work, name=f"weights-{number}") for number in range(workers)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in errors:
            raise error
    finally:
        meter.stop()
        for thread in threads:
            # one that is not alive although it was started has not looked at a task yet, and will not
            if thread.is_alive():
                thread.join()
        errors.clear()


def in_turn(series: Iterable[Sequence[_T]], count: int) -> Iterator[_T]:
    """Yield the items of several series in turn, of so many series at a time.

    Two threads that write one file wait for each other in the kernel, so each is given a file of its own.
    """
    waiting = iter(series)
    turns = deque[Iterator[_T]](map(iter, islice(waiting, count)))
    while turns:
        items = turns.popleft()
        try:
            yield next(items)
        except StopIteration:
            turns.extend(map(iter, islice(waiting, 1)))
        else:
            turns.append(items)


def workers_for(outputs: Sequence[Output]) -> int:
    """Return how many threads write files of this machine: more where they wait for a store to be read.

    Where bytes are only copied there is one for each large file, for two at one file take longer than one alone.
    """
    pieces = [piece for output in outputs for piece in output.pieces]
    if any(piece.reader.fileno() is None for piece in pieces if isinstance(piece, Span)):
        return max(WORKERS, UPLOADS)
    if any(isinstance(piece, Made) for piece in pieces):
        return WORKERS
    return min(WORKERS, max(1, sum(output.size > _LARGE_BYTES for output in outputs)))


def holds_model(names: Iterable[str]) -> bool:
    """Return whether a program would take a folder with these names for a model, or a part of one."""
    return any(name in LAST or name.endswith(".safetensors") for name in names)


def place_in_order(name: str) -> tuple[int, str]:
    """Return what sorts files by when they may appear."""
    return (LAST.index(name) + 1 if name in LAST else 0, name)


def check_name(name: str) -> None:
    """Raise ValueError for what is no name of a file in a model, or one that targets use themselves."""
    if name in {"", ".", ".."} or "/" in name or name.startswith(".cloudtune-") or name.endswith(".part"):
        raise ValueError(f"{name!r} is no name of a file in a model")
