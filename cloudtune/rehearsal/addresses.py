"""Loopback addresses for nodes, and ports for jobs: two jobs at once never share one."""

from __future__ import annotations

import random
import secrets
import socket
import threading

from cloudtune.errors import UsageError

#: Nodes in one block of addresses.
_BLOCK = 250
#: Where ports of jobs are taken from: below those that the kernel gives to whoever asks for any.
_PORTS = range(20_000, 32_000, 2)
_TRIES = 200


class Addresses:
    """Hands out addresses of ``127.0.0.0/8`` (all of which are this machine on Linux), from a block taken by chance.

    A port is bound on an address, so ``algo-1:7777`` of one job does not meet ``algo-1:7777`` of another, nor what
    the user runs on 127.0.0.1. But torch's store listens on every address of its machine, which nodes share here: the
    usual port would be one job's at a time, so each job is given one by ``CLOUDTUNE_MAIN_PORT``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: list[str] = []
        self._ports: set[int] = set()

    def take(self, count: int) -> tuple[str, ...]:
        """Return addresses that were not handed out before."""
        with self._lock:
            while len(self._left) < count:
                block = f"127.{1 + secrets.randbelow(254)}.{secrets.randbelow(256)}"
                self._left += [f"{block}.{number + 2}" for number in range(_BLOCK)]
            taken, self._left = self._left[:count], self._left[count:]
        return tuple(taken)

    def take_port(self) -> int:
        """Return a port on which nobody listens, nor on the next one (for the roll call), on any address."""
        with self._lock:
            for port in random.SystemRandom().sample(_PORTS, _TRIES):
                if self._ports.isdisjoint((port, port + 1)) and _is_free(port) and _is_free(port + 1):
                    self._ports.update((port, port + 1))
                    return port
        raise UsageError("this machine has no free ports for a rehearsed job", hint="end what listens on so many")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
