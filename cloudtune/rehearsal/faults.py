"""What goes wrong in a rehearsal, at which call: values, and the plan that says when each is due.

A call is counted from 1 for each service and operation. So the same plan does the same in every rehearsal in which a
client sends the same calls, whatever the threads do.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import attrs

#: Kinds that a server carries out by itself; any other is asked for by its name, see :func:`event`.
CALL_KINDS = ("refused", "slow", "cut", "lost", "expired")


@attrs.frozen(kw_only=True)
class Fault:
    """One thing that goes wrong. Made by the functions of this module, such as :func:`refused`.

    ``service`` and ``operation`` may be patterns (``*``); ``numbers`` says which calls of each service and operation it
    meets, all for (). The rest belongs to one kind or another.
    """

    kind: str
    service: str = "*"
    operation: str = "*"
    numbers: tuple[int, ...] = (1,)
    status: int = 0
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    after_bytes: int | None = None
    after_lines: int | None = None

    def meets(self, service: str, operation: str, number: int) -> bool:
        """Whether a call is one of those that this fault is for."""
        named = fnmatchcase(service, self.service) and fnmatchcase(operation, self.operation)
        return named and (not self.numbers or number in self.numbers)


def refused(
    service: str,
    operation: str = "*",
    *,
    status: int,
    code: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    numbers: Sequence[int] = (1,),
) -> Fault:
    """Answer with an error, in the service's own words; the call is not carried out."""
    which = tuple(numbers)
    return Fault(
        kind="refused", service=service, operation=operation, numbers=which, status=status, code=code, headers=headers
    )


def slow(service: str, operation: str = "*", *, seconds: float, numbers: Sequence[int] = (1,)) -> Fault:
    """Let the call wait; it is carried out."""
    return Fault(kind="slow", service=service, operation=operation, numbers=tuple(numbers), seconds=seconds)


def cut(service: str, operation: str = "*", *, after_bytes: int | None = None, numbers: Sequence[int] = (1,)) -> Fault:
    """Close the connection in the middle of the answer's body: after so many bytes, else after half of them.

    The call is carried out. A stream whose length is not known is cut after its first piece.
    """
    return Fault(kind="cut", service=service, operation=operation, numbers=tuple(numbers), after_bytes=after_bytes)


def lost(service: str, operation: str = "*", *, numbers: Sequence[int] = (1,)) -> Fault:
    """Carry out the call, and close the connection without an answer."""
    return Fault(kind="lost", service=service, operation=operation, numbers=tuple(numbers))


def expired(service: str, operation: str = "*", *, numbers: Sequence[int] = (1,)) -> Fault:
    """Answer as to a token that has expired (401), in the service's own words."""
    return Fault(kind="expired", service=service, operation=operation, numbers=tuple(numbers), status=401)


def no_capacity(subject: str = "*", *, numbers: Sequence[int] = (1,)) -> Fault:
    """Let a stand-in have no machine for what it is asked; ``subject`` is what it names: a shape, an instance type."""
    return event("no capacity", subject, numbers=numbers)


def node_dies(
    node: str = "*", *, after_lines: int | None = None, seconds: float = 0.0, numbers: Sequence[int] = (1,)
) -> Fault:
    """Let a node vanish after so many lines of its output, else after so many seconds; its later words are lost."""
    return event("node dies", node, after_lines=after_lines, seconds=seconds, numbers=numbers)


def event(
    kind: str,
    subject: str = "*",
    *,
    after_lines: int | None = None,
    seconds: float = 0.0,
    numbers: Sequence[int] = (1,),
) -> Fault:
    """Let something happen that belongs to no call, by a name that the stand-in knows: ``evicted``, ``interrupted``.

    The stand-in asks for it with :meth:`Faults.event`, and carries it out.
    """
    which = tuple(numbers)
    return Fault(kind=kind, operation=subject, numbers=which, after_lines=after_lines, seconds=seconds)


@attrs.frozen(kw_only=True)
class Fired:
    """A fault that was carried out, and the call or subject that it met."""

    fault: Fault
    service: str
    operation: str
    number: int


class Faults:
    """The faults of a rehearsal, and which of them have been carried out. Its methods may be called by any thread."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._faults = list(faults)
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._fired: list[Fired] = []
        self._lock = threading.Lock()

    @property
    def fired(self) -> tuple[Fired, ...]:
        """What was carried out so far, in order."""
        with self._lock:
            return tuple(self._fired)

    def add(self, *faults: Fault) -> None:
        """Let more go wrong; calls have been counted from the beginning."""
        with self._lock:
            self._faults += faults

    def remove(self, *faults: Fault) -> None:
        """Let these go wrong no longer: a network that is there again."""
        with self._lock:
            self._faults = [each for each in self._faults if all(each is not gone for gone in faults)]

    def left(self) -> tuple[Fault, ...]:
        """Return the faults that have never been carried out: a test's plan missed what it was to hit."""
        with self._lock:
            seen = {id(fired.fault) for fired in self._fired}
            return tuple(fault for fault in self._faults if id(fault) not in seen)

    def call(self, service: str, operation: str) -> tuple[int, tuple[Fault, ...]]:
        """Count a call; return its number and what goes wrong with it.

        At most one fault besides slowness: the first that is listed.
        """
        with self._lock:
            self._counts["call", service, operation] += 1
            number = self._counts["call", service, operation]
            due = [each for each in self._faults if each.kind in CALL_KINDS and each.meets(service, operation, number)]
            slowness = [fault for fault in due if fault.kind == "slow"]
            chosen = (*slowness, *[fault for fault in due if fault.kind != "slow"][:1])
            self._note(chosen, service, operation, number)
        return number, chosen

    def event(self, kind: str, subject: str) -> Fault | None:
        """Count what a stand-in is about to do with a subject (a node, a shape); return the fault that it meets."""
        with self._lock:
            self._counts["event", kind, subject] += 1
            number = self._counts["event", kind, subject]
            due = [each for each in self._faults if each.kind == kind and each.meets("", subject, number)]
            self._note(due[:1], "", subject, number)
        return due[0] if due else None

    def _note(self, faults: Sequence[Fault], service: str, operation: str, number: int) -> None:
        self._fired += [Fired(fault=each, service=service, operation=operation, number=number) for each in faults]


def each_once(calls: Iterable[tuple[str, str]], fault: Fault) -> tuple[Fault, ...]:
    """Return faults that meet every one of the calls ``(service, operation)`` once, all in one rehearsal.

    Of an operation that was called k times in an undisturbed rehearsal, the calls 1, 3, ... 2k - 1 meet the fault: each
    time the next one is the client's second try, which goes well.
    """
    counts = Counter(calls)
    return tuple(
        attrs.evolve(fault, service=service, operation=operation, numbers=tuple(range(1, 2 * count, 2)))
        for (service, operation), count in counts.items()
    )


def one_at_a_time(calls: Iterable[tuple[str, str]], fault: Fault) -> tuple[Fault, ...]:
    """Return a fault for each single call ``(service, operation)``, each to be rehearsed alone."""
    counts: Counter[tuple[str, str]] = Counter()
    singles = []
    for service, operation in calls:
        counts[service, operation] += 1
        number = counts[service, operation]
        singles.append(attrs.evolve(fault, service=service, operation=operation, numbers=(number,)))
    return tuple(singles)
