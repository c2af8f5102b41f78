"""Loopback addresses for nodes: each has its own, and two jobs at once never share one."""

from __future__ import annotations

import secrets
import threading

#: Nodes in one block of addresses.
_BLOCK = 250


class Addresses:
    """Hands out addresses of ``127.0.0.0/8`` (all of which are this machine on Linux), from a block taken by chance.

    A port is bound on an address, so ``algo-1:7777`` of one job does not meet ``algo-1:7777`` of another, nor what
    the user runs on 127.0.0.1.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: list[str] = []

    def take(self, count: int) -> tuple[str, ...]:
        """Return addresses that were not handed out before."""
        with self._lock:
            while len(self._left) < count:
                block = f"127.{1 + secrets.randbelow(254)}.{secrets.randbelow(256)}"
                self._left += [f"{block}.{number + 2}" for number in range(_BLOCK)]
            taken, self._left = self._left[:count], self._left[count:]
        return tuple(taken)
