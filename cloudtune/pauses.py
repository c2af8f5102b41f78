"""Following what a cloud does in its own time: looks at it with pauses between, and words for who waits."""

from __future__ import annotations

import time
from collections.abc import Callable

from cloudtune.submit import Client

#: Seconds between two looks grow up to so many times the first.
_SLOWER = 10.0
#: Is told how far something is.
Say = Callable[[str], object]


class Pauses:
    """Waits between two looks at one thing, each a little longer than the last, for so many seconds in all."""

    def __init__(self, client: Client, patience_s: float) -> None:
        self._first_s: float = getattr(client, "look_s", (1.0, 3.0))[0]
        self._next_s, self._until_s = self._first_s, time.monotonic() + patience_s

    @property
    def over(self) -> bool:
        """Whether it was waited for long enough."""
        return time.monotonic() > self._until_s

    def wait(self) -> None:
        """Wait until the next look."""
        time.sleep(self._next_s)
        self._next_s = min(self._next_s * 1.3, self._first_s * _SLOWER)
