"""What a stand-in stands on: a server, a store, a clock, controllers and nodes that begin and end together."""

from __future__ import annotations

import ssl
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from cloudtune.rehearsal.addresses import Addresses
from cloudtune.rehearsal.clock import Clock
from cloudtune.rehearsal.faults import Fault, Faults
from cloudtune.rehearsal.record import Record
from cloudtune.rehearsal.routes import Service
from cloudtune.rehearsal.runner import Nodes, Over
from cloudtune.rehearsal.server import Server
from cloudtune.rehearsal.state import Store

#: Seconds for controllers to notice that the rehearsal ends.
_JOIN_S = 10.0


class Stage:
    """The ground of one rehearsal; leaving the block ends all of it.

    ``folder`` holds what the services keep and what the nodes write. ``errors`` are tracebacks of the stand-in's own
    failures, in handlers and controllers: a rehearsal that has any proves nothing.
    """

    def __init__(self, folder: Path, *, faults: Iterable[Fault] = (), speed: float = 1.0) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.faults = Faults(faults)
        self.record = Record()
        self.clock = Clock(speed=speed)
        self.store = Store(self.clock)
        self.addresses = Addresses()
        self.server = Server(faults=self.faults, record=self.record)
        self.nodes = Nodes(faults=self.faults)
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._last: list[Callable[[], None]] = []

    @property
    def errors(self) -> tuple[str, ...]:
        """What failed in the stand-in itself."""
        return self.record.errors

    def serve(
        self, service: Service, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> str:
        """Begin to serve; return the URL."""
        return self.server.add(service, host=host, port=port, tls=tls)

    def control(self, name: str, deed: Callable[..., None], *arguments: object) -> None:
        """Run a controller on a thread of its own; it ends by itself, or soon after :attr:`stopping` is set."""

        def run() -> None:
            try:
                deed(*arguments)
            except Over:
                pass  # it was about to start a node when the rehearsal ended
            except Exception:  # noqa: BLE001 - it has no caller who could hear of it
                self.record.add_error(f"controller {name}:\n{traceback.format_exc()}")

        thread = threading.Thread(target=run, name=f"rehearsed {name}", daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def at_end(self, deed: Callable[[], None]) -> None:
        """Do something once nothing is served any more."""
        self._last.append(deed)

    def sleep(self, seconds: float) -> bool:
        """Wait by the stage's clock; False if the rehearsal ends meanwhile."""
        return self.clock.sleep(seconds, unless=self.stopping.is_set)

    def lead(self, kind: str, identity: str, field: str, *steps: tuple[str, float]) -> bool:
        """Lead a resource through states: each value, and the seconds of the clock that it stays before the next.

        False if something else changed the field in between (it was cancelled, say) or the rehearsal ends.
        """
        thing = self.store.get(kind, identity)
        last = thing.data.get(field) if thing else None
        for value, seconds in steps:
            changed = self.store.change(kind, identity, when=_is(field, last), **{field: value})
            if changed is None or not self.sleep(seconds):
                return False
            last = value
        return True

    def close(self) -> None:
        """End the nodes, the controllers and the services, in this order: each may still need the next."""
        self.stopping.set()
        self.nodes.close()
        for thread in self._threads:
            thread.join(_JOIN_S)
            if thread.is_alive():
                self.record.add_error(f"{thread.name} did not end")
        self.server.stop()
        while self._last:
            self._last.pop()()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is(field: str, value: object) -> Callable[[dict[str, Any]], bool]:
    return lambda data: bool(data.get(field) == value)
