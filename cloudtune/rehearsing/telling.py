"""What happens in a rehearsed cloud, told while it happens and counted at the end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType

import attrs

from cloudtune.rehearsal.record import Recorded
from cloudtune.rehearsal.stage import Stage
from cloudtune.rehearsal.state import Change, Gone
from cloudtune.rehearsing.clouds import StandIn

#: Seconds for which one look waits for a change.
_LOOK_S = 0.2


@attrs.frozen(kw_only=True)
class Asked:
    """How often an operation of a service was asked for, and how often it was refused."""

    service: str
    operation: str
    count: int
    refused: int


def asked(calls: Iterable[Recorded]) -> tuple[Asked, ...]:
    """Return how often each operation was asked for, in the order in which they were first."""
    counts: Counter[tuple[str, str]] = Counter()
    refused: Counter[tuple[str, str]] = Counter()
    for call in calls:
        counts[call.call] += 1
        refused[call.call] += call.status >= 400
    return tuple(
        Asked(service=service, operation=operation, count=count, refused=refused[service, operation])
        for (service, operation), count in counts.items()
    )


class States:
    """Tells the states of what the clouds have, each once, from a thread of its own; leaving the block ends it."""

    def __init__(self, stage: Stage, clouds: Iterable[StandIn], tell: Callable[[str], object]) -> None:
        self._stage, self._clouds, self._tell = stage, tuple(clouds), tell
        self._told: dict[tuple[str, str], str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="rehearsed states", daemon=True)

    def _follow(self) -> None:
        version = 0
        while True:
            over = self._over.is_set()  # asked first: what changed before is told below
            try:
                changes = self._stage.store.changes(version, timeout_s=0.0 if over else _LOOK_S)
            except Gone:
                version = self._stage.store.version
                continue
            for change in changes:
                version = change.version
                self._say(change)
            if over and not changes:
                return

    def _say(self, change: Change) -> None:
        for cloud in self._clouds:
            found = cloud.state(change)
            if found is None:
                continue
            kind, name, state = found
            known = (change.resource.kind, change.resource.id)
            if self._told.get(known) != state:
                self._told[known] = state
                self._tell(f"{cloud.name}: {kind} {name}: {state}")

    def __enter__(self) -> States:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
