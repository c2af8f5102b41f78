from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable

import pytest

from cloudtune.node.errors import NodeError
from cloudtune.node.ranks import Place
from cloudtune.node.rollcall import Roll, call_roll, report_absence
from tests.node.running import free_port
from tests.processes import eventually


def place(rank: int, nodes: int) -> Place:
    return Place("local", rank, nodes, "127.0.0.2")


class Calls:
    """Nodes that call the roll, each in a thread of its own."""

    def __init__(self, nodes: int, timeout_s: float) -> None:
        self.nodes = nodes
        self.timeout_s = timeout_s
        self.port = free_port()
        self.outcomes: dict[int, Roll | NodeError] = {}
        self._threads: list[threading.Thread] = []

    def call(self, rank: int, run_id: str = "r") -> None:
        def answer() -> None:
            try:
                self.outcomes[rank] = call_roll(
                    place(rank, self.nodes), run_id, port=self.port, timeout_s=self.timeout_s
                )
            except NodeError as error:
                self.outcomes[rank] = error

        thread = threading.Thread(target=answer)
        thread.start()
        self._threads.append(thread)

    def wait(self) -> dict[int, Roll | NodeError]:
        for thread in self._threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
        return self.outcomes


def connected(port: int) -> socket.socket:
    """Return a connection to node 0, as soon as it listens."""

    def tried() -> socket.socket | None:
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.2", port))
        return None

    made = eventually(tried)
    assert isinstance(made, socket.socket)
    return made


@pytest.fixture
def calls() -> Callable[[int, float], Calls]:
    return Calls


def test_all_nodes_come_in_any_order(calls: Callable[[int, float], Calls]) -> None:
    roll = calls(4, 30)
    for rank in (3, 1, 0, 2):
        roll.call(rank)
    outcomes = roll.wait()
    assert sorted(outcomes) == [0, 1, 2, 3]
    for offset in outcomes.values():
        assert isinstance(offset, Roll)
        assert abs(offset.clock_offset_s) < 5  # one clock


def test_every_node_is_told_who_came_and_who_is_missing(calls: Callable[[int, float], Calls]) -> None:
    roll = calls(5, 1.0)
    for rank in (0, 1, 3):
        roll.call(rank)
    outcomes = roll.wait()
    words = "after 1 s of 5 nodes nodes 0, 1, 3 came and nodes 2, 4 are missing"
    assert {rank: words in str(error) for rank, error in outcomes.items()} == dict.fromkeys((0, 1, 3), True)
    assert {rank: error.victim for rank, error in outcomes.items() if isinstance(error, NodeError)} == {
        0: False,
        1: True,
        3: True,
    }


def test_a_missing_node_0_is_named(calls: Callable[[int, float], Calls]) -> None:
    roll = calls(2, 0.5)
    roll.call(1)
    error = roll.wait()[1]
    assert isinstance(error, NodeError)
    assert "node 0 is missing: 127.0.0.2" in str(error)


def test_a_node_that_cannot_start_ends_the_wait_of_all(calls: Callable[[int, float], Calls]) -> None:
    roll = calls(3, 60)
    roll.call(0)
    roll.call(1)
    connected(roll.port).close()
    time.sleep(0.2)
    started = time.monotonic()
    report_absence(place(2, 3), "r", "pip failed", port=roll.port)
    outcomes = roll.wait()
    assert time.monotonic() - started < 30
    assert {str(error) for error in outcomes.values()} == {"node 2 cannot start: pip failed"}


def test_strangers_are_not_counted(calls: Callable[[int, float], Calls]) -> None:
    roll = calls(2, 1.5)
    roll.call(0)
    strangers = []
    for hello in (b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 5000, json.dumps({"run": "other", "node": 1}).encode() + b"\n"):
        stranger = connected(roll.port)
        stranger.sendall(hello)
        strangers.append(stranger)
    silent = connected(roll.port)
    assert "node 1 is missing" in str(roll.wait()[0])
    for stranger in (*strangers, silent):
        stranger.close()


def test_a_node_that_came_and_left_is_missing(calls: Callable[[int, float], Calls]) -> None:
    roll = calls(3, 1.5)
    roll.call(0)
    with connected(roll.port) as short:
        short.sendall(b'{"run": "r", "node": 1}\n')
        short.recv(100)
    roll.call(2)
    assert "nodes 0, 2 came and node 1 is missing" in str(roll.wait()[0])


def test_a_taken_port_is_an_error_that_says_which() -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NodeError, match=f"port {port} for the roll call.*CLOUDTUNE_ROLL_PORT"):
            call_roll(place(0, 2), "r", port=port, timeout_s=1)
