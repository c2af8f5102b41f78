"""How fsspec tells the bytes that it moves."""

from __future__ import annotations

from typing import Any

from fsspec.callbacks import Callback

from cloudtune.storage import Progress, Tally


class Meter(Tally, Callback):  # type: ignore[misc]
    """Adds up the bytes of all files of a transfer."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        Callback.__init__(self)
        Tally.__init__(self, total, progress)

    def branched(self, path_1: Any, path_2: Any, **kwargs: Any) -> Callback:
        """Return the callback of one file."""
        return _Share(self)


class _Share(Callback):  # type: ignore[misc]
    """One file's part in a transfer."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.meter, self.sent = meter, 0

    def relative_update(self, inc: int = 1) -> None:
        """Note bytes that have passed."""
        self.sent += inc
        self.meter.add(inc)

    def absolute_update(self, value: int) -> None:
        """Note how many bytes have passed so far."""
        self.relative_update(value - self.sent)
