"""A clock for stand-ins that can be sped up or pushed forward: an hour of a service in a second of a test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Clock:
    """Time that runs ``speed`` times as fast as the wall's, from the same beginning."""

    def __init__(self, *, speed: float = 1.0) -> None:
        self.speed = speed
        self._change = threading.Condition()
        self._began_s, self._began = time.time(), time.monotonic()
        self._pushed_s = 0.0

    def time_s(self) -> float:
        """Return the seconds since 1970 by this clock."""
        with self._change:
            return self._time_s()

    def push(self, seconds: float) -> None:
        """Let time jump forward; whoever sleeps that long wakes up."""
        with self._change:
            self._pushed_s += seconds
            self._change.notify_all()

    def sleep(self, seconds: float, *, unless: Callable[[], bool] = lambda: False) -> bool:
        """Wait so long by this clock; False, within a moment, if it is not to be waited any more."""
        with self._change:
            until_s = self._time_s() + seconds
            while not unless():
                left_s = until_s - self._time_s()
                if left_s <= 0:
                    return True
                self._change.wait(min(left_s / self.speed, 0.1))
        return False

    def _time_s(self) -> float:
        return self._began_s + (time.monotonic() - self._began) * self.speed + self._pushed_s
