"""A roll call before the start: every node says that it is there, or all of them learn who is missing.

Node 0 listens; the others report to it over TCP, one JSON object a line. Node 0 answers each at once with its clock
(the difference is kept for the failure report), and all of them when the last one has come, when the time is up, or
when one says that it cannot start. What has begun already, and asks whether it is still right, is told to start again.
"""

from __future__ import annotations

import json
import select
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from cloudtune.node.errors import NodeError
from cloudtune.node.ranks import Place

#: Seconds between two tries to reach node 0: short at first, when all nodes start together.
_RETRY_S = 0.05
_LATER_RETRY_S = 0.5
_EAGER_S = 10.0
#: A longer hello is no hello.
_LIMIT_BYTES = 4096
#: Seconds after which a node says for whom it waits.
_PATIENCE_S = 20.0


class Roll(NamedTuple):
    """A roll call in which all nodes came: its name, and how far this node's clock is behind node 0's, in seconds."""

    name: str
    clock_offset_s: float = 0.0


def call_roll(
    place: Place, run_id: str, *, port: int, timeout_s: float, say: Callable[[str], None] = lambda _: None
) -> Roll:
    """Wait until all nodes are there; ``say`` is told once if that takes its time.

    Raises NodeError that names those who came and those who are missing.
    """
    if place.node_rank == 0:
        return _listen(place, run_id, port=port, timeout_s=timeout_s, say=say)
    return _report(place, run_id, port=port, timeout_s=timeout_s, say=say)


def report_absence(place: Place, run_id: str, reason: str, *, port: int, timeout_s: float = 2.0) -> None:
    """Tell node 0, if it can be reached, that this node cannot start, so that nobody waits for it."""
    if place.node_rank == 0:
        return
    try:
        with socket.create_connection((place.main_addr, port), timeout=timeout_s) as peer:
            _send(peer, {"run": run_id, "node": place.node_rank, "failed": reason[:1000]})
            peer.recv(_LIMIT_BYTES)
    except OSError:
        pass


def _listen(place: Place, run_id: str, *, port: int, timeout_s: float, say: Callable[[str], None]) -> Roll:
    deadline = time.monotonic() + timeout_s
    patient_until: float | None = time.monotonic() + _PATIENCE_S
    roll = Roll(uuid.uuid4().hex)
    callers = _Callers(run_id, place.nodes)
    server = bind(place, port)
    failed: str | None = None
    try:
        while failed is None and len(callers.came) < place.nodes - 1:
            left = deadline - time.monotonic()
            if left <= 0:
                failed = _missing({0, *callers.came}, place.nodes, timeout_s)
                break
            if patient_until is not None and time.monotonic() >= patient_until:
                patient_until = None
                say(f"waits for {_names(_others({0, *callers.came}, place.nodes))}, {left:.0f} s more at most")
            # in short steps, for there is something to say after a while
            ready, _, _ = select.select([server, *callers.unknown, *callers.came.values()], [], [], min(left, 1.0))
            for one in ready:
                if one is server:
                    callers.unknown[server.accept()[0]] = b""
                else:
                    failed = callers.hear(one) or failed
        for peer in callers.came.values():
            _send(peer, {"go": True, "roll": roll.name} if failed is None else {"error": failed})
    finally:
        server.close()
        for peer in (*callers.came.values(), *callers.unknown):
            peer.close()
    if failed is not None:
        raise NodeError(failed, victim=failed.startswith("node "))
    return roll


class _Callers:
    """Those who have called node 0: ``came`` by node, ``unknown`` have not said yet who they are."""

    def __init__(self, run_id: str, nodes: int) -> None:
        self.run_id = run_id
        self.nodes = nodes
        self.came: dict[int, socket.socket] = {}
        self.unknown: dict[socket.socket, bytes] = {}

    def hear(self, peer: socket.socket) -> str | None:
        """Read what a caller says; return a sentence if it says that it cannot start."""
        text = self.unknown.pop(peer, None)
        if text is None:  # it came, and has hung up since
            self.came = {node: one for node, one in self.came.items() if one is not peer}
            peer.close()
            return None
        try:
            data = peer.recv(_LIMIT_BYTES)
        except OSError:
            data = b""
        text += data
        if data and b"\n" not in text and len(text) < _LIMIT_BYTES:
            self.unknown[peer] = text
            return None
        hello = _parse(text)
        node = hello.get("node")
        if hello.get("run") != self.run_id or not isinstance(node, int) or not 0 < node < self.nodes:
            peer.close()  # a stranger
            return None
        if hello.get("begun"):
            _send(peer, {"again": "node 0 has come again alone: all nodes start again together"})
            peer.close()  # it will come again as a newcomer
            return None
        if node in self.came:
            self.came[node].close()  # it lost its first connection
        self.came[node] = peer
        _send(peer, {"clock": time.time()})
        return f"node {node} cannot start: {hello['failed']}" if hello.get("failed") else None


def hear(peer: socket.socket, place: Place, run_id: str, roll: Roll, *, told: bool, timeout_s: float) -> str | None:
    """Answer, on node 0 that has begun, one who calls; return why all nodes must start again, None if they need not.

    ``told`` if they must already.
    """
    peer.settimeout(timeout_s)
    try:
        hello = _parse(peer.recv(_LIMIT_BYTES))
    except OSError:
        return None
    node = hello.get("node")
    if hello.get("run") != run_id or not isinstance(node, int) or not 0 < node < place.nodes or hello.get("failed"):
        return None
    if hello.get("begun") == roll.name and not told:
        _send(peer, {"clock": time.time(), "roll": roll.name})
        return None
    reason = f"node {node} has come again alone: all nodes start again together"
    _send(peer, {"again": "another node has come again alone: all nodes start again together"})
    return reason if hello.get("begun") != roll.name else None


def converse(peer: socket.socket, place: Place, run_id: str, roll: Roll, *, timeout_s: float) -> str | None:
    """Ask node 0, being one that has begun; return why all nodes must start again, None if they need not."""
    peer.settimeout(timeout_s)
    _send(peer, {"run": run_id, "node": place.node_rank, "begun": roll.name})
    again = _parse(peer.recv(_LIMIT_BYTES)).get("again")
    return str(again) if again else None


def bind(place: Place, port: int) -> socket.socket:
    """Return the socket at which node 0 listens."""
    # on one machine every run has addresses of its own; elsewhere the others may know this node by several
    host = place.main_addr if place.name == "local" else ""
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256, dualstack_ipv6=both)
    except OSError as error:
        raise NodeError(
            f"node 0 cannot listen on {host or 'any address'}, port {port} for the roll call: {error.strerror}; "
            "CLOUDTUNE_ROLL_PORT names another port"
        ) from error


def _report(place: Place, run_id: str, *, port: int, timeout_s: float, say: Callable[[str], None]) -> Roll:
    started = time.monotonic()
    # node 0 may have started later than this node, and should be the one to say who is missing
    deadline = started + timeout_s + min(5.0, timeout_s * 0.1)
    last = "it does not answer"
    patient_until: float | None = started + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            left = max(0.1, deadline - time.monotonic())
            with socket.create_connection((place.main_addr, port), timeout=left) as peer:
                return _converse(peer, place, run_id, deadline)
        except OSError as error:
            last = error.strerror or str(error)
        if patient_until is not None and time.monotonic() >= patient_until:
            patient_until = None
            say(f"waits for node 0, {deadline - time.monotonic():.0f} s more at most: {last}")
        time.sleep(_RETRY_S if time.monotonic() - started < _EAGER_S else _LATER_RETRY_S)
    raise NodeError(
        f"node 0 is missing: {place.main_addr}, port {port} could not be reached within {timeout_s:g} s ({last}); "
        f"node {place.node_rank} came. Did node 0 start, and may the nodes reach each other on all ports?"
    )


def _converse(peer: socket.socket, place: Place, run_id: str, deadline: float) -> Roll:
    sent = time.time()
    _send(peer, {"run": run_id, "node": place.node_rank, "host": socket.gethostname()})
    offset = 0.0
    text = b""
    while True:
        peer.settimeout(max(0.1, deadline - time.monotonic()))
        data = peer.recv(_LIMIT_BYTES)
        if not data:
            raise ConnectionResetError("node 0 hung up")
        text += data
        *lines, text = text.split(b"\n")
        for line in lines:
            answer = _parse(line)
            if answer.get("error"):
                raise NodeError(str(answer["error"]), victim=True)
            if "clock" in answer:
                offset = float(answer["clock"]) - (sent + time.time()) / 2
            if answer.get("again"):
                raise ConnectionResetError("it has begun without this node, and now starts again")
            if answer.get("go"):
                return Roll(str(answer.get("roll")), offset)


def _missing(came: set[int], nodes: int, timeout_s: float) -> str:
    missing = _others(came, nodes)
    return (
        f"after {timeout_s:g} s of {nodes} nodes {_names(sorted(came))} came and {_names(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing; rendezvousTimeoutInSeconds sets how long to wait"
    )


def _others(came: set[int], nodes: int) -> list[int]:
    return [node for node in range(nodes) if node not in came]


def _names(nodes: list[int]) -> str:
    return f"node{'s' if len(nodes) > 1 else ''} {', '.join(map(str, nodes))}"


def _send(peer: socket.socket, data: dict[str, Any]) -> None:
    try:
        peer.sendall(json.dumps(data).encode() + b"\n")
    except OSError:
        pass  # it will be counted as missing, or has gone already


def _parse(text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text.split(b"\n")[0])
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
