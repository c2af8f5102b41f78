"""After the roll call: a node that comes again, alone, is met, and all nodes start again with it.

A cluster makes a pod again that was evicted or failed. The others have begun, and know nothing of it: their collective
may wait for ten minutes, or they have none. So node 0 goes on answering at the port of the roll call while its command
runs, and the others ask it now and then. Each roll call has a name; whoever meets one of another name, or none, knows
that the job must start again, and ends its own command.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from cloudtune.node.errors import NodeError
from cloudtune.node.ranks import Place
from cloudtune.node.rollcall import Roll, bind, converse, hear

#: Seconds between two questions to node 0, and seconds more for each node that asks.
_ASK_S = 3.0
_ASK_S_PER_NODE = 0.05
#: Seconds for one question and its answer.
_ANSWER_S = 5.0
_LOOK_S = 0.5


class Attendance:
    """Watches on a thread of its own, until it is closed, whether the job must start again.

    ``again`` is then called once, with the reason.
    """

    def __init__(self, place: Place, run_id: str, roll: Roll, *, port: int, again: Callable[[str], None]) -> None:
        self.place = place
        self.run_id = run_id
        self.roll = roll
        self.port = port
        self._again = again
        self._told = False
        self._over = threading.Event()
        work = self._answer if place.node_rank == 0 else self._ask
        threading.Thread(target=work, name="attendance", daemon=True).start()

    def close(self) -> None:
        """Watch no longer; nobody is called any more, and the thread ends soon."""
        self._over.set()

    def _tell(self, reason: str) -> None:
        if not self._told and not self._over.is_set():
            self._told = True
            self._again(reason)

    def _answer(self) -> None:
        """Answer newcomers and those who ask, on node 0."""
        try:
            server = bind(self.place, self.port)
        except NodeError:
            return  # somebody else has taken the port; without it a newcomer waits as long as any missing node
        server.settimeout(_LOOK_S)
        with server:
            while not self._over.is_set():
                try:
                    peer, _ = server.accept()
                except OSError:
                    continue
                with peer:
                    reason = hear(peer, self.place, self.run_id, self.roll, told=self._told, timeout_s=_ANSWER_S)
                if reason is not None:
                    self._tell(reason)

    def _ask(self) -> None:
        """Ask node 0 whether it is still the one with whom this node has begun."""
        pause_s = _ASK_S + _ASK_S_PER_NODE * self.place.nodes
        while not self._told and not self._over.wait(pause_s):
            try:
                with socket.create_connection((self.place.main_addr, self.port), timeout=_ANSWER_S) as peer:
                    reason = converse(peer, self.place, self.run_id, self.roll, timeout_s=_ANSWER_S)
            except OSError:
                continue  # node 0 has ended, or has not started again yet
            if reason is not None:
                self._tell(reason)
