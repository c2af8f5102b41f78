from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Iterator

import pytest

from cloudtune.node import attendance
from cloudtune.node.attendance import Attendance
from cloudtune.node.ranks import Place
from cloudtune.node.rollcall import Roll, call_roll
from tests.node.running import free_port
from tests.processes import eventually


def place(rank: int, nodes: int = 2) -> Place:
    return Place("local", rank, nodes, "127.0.0.2")


class Nodes:
    """Nodes that have begun; ``told`` is what they hear."""

    def __init__(self) -> None:
        self.port = free_port()
        self.told: queue.Queue[tuple[int, str]] = queue.Queue()
        self.there: list[Attendance] = []

    def begin(self, rank: int, roll: str) -> Attendance:
        def again(reason: str) -> None:
            self.told.put((rank, reason))

        self.there.append(Attendance(place(rank), "r", Roll(roll), port=self.port, again=again))
        return self.there[-1]

    def say(self, **hello: object) -> dict[str, object]:
        """Say something to node 0; return its answer, empty if there is none."""
        with socket.create_connection(("127.0.0.2", self.port), timeout=30) as peer:
            peer.sendall(json.dumps(hello).encode() + b"\n")
            text = peer.recv(4096)
        return dict(json.loads(text)) if text else {}

    def listens(self) -> bool:
        with socket.socket() as peer:
            return peer.connect_ex(("127.0.0.2", self.port)) == 0


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setattr(attendance, "_ASK_S", 0.05)
    found = Nodes()
    yield found
    for one in found.there:
        one.close()


def test_who_has_begun_with_node_0_is_left_alone(nodes: Nodes) -> None:
    nodes.begin(0, "one")
    eventually(nodes.listens)
    for _ in range(2):
        assert nodes.say(run="r", node=1, begun="one")["roll"] == "one"
    # strangers, and one that only says that it cannot start
    for hello in ({"run": "other", "node": 1}, {"run": "r", "node": 0}, {"run": "r", "node": 1, "failed": "no disk"}):
        assert nodes.say(**hello) == {}
    assert nodes.told.empty()


def test_a_newcomer_makes_all_start_again(nodes: Nodes) -> None:
    nodes.begin(0, "one")
    eventually(nodes.listens)
    assert "all nodes start again" in str(nodes.say(run="r", node=1)["again"])
    assert nodes.told.get(timeout=60) == (0, "node 1 has come again alone: all nodes start again together")
    nodes.begin(1, "one")  # it asks, and is told too
    node, reason = nodes.told.get(timeout=60)
    assert node == 1
    assert "another node has come again alone" in reason


def test_a_new_node_0_tells_those_who_have_begun_and_waits_for_them(nodes: Nodes) -> None:
    rolls: list[Roll] = []
    thread = threading.Thread(target=lambda: rolls.append(call_roll(place(0), "r", port=nodes.port, timeout_s=120)))
    thread.start()
    nodes.begin(1, "one")
    assert nodes.told.get(timeout=60) == (1, "node 0 has come again alone: all nodes start again together")
    assert thread.is_alive()
    rolls.append(call_roll(place(1), "r", port=nodes.port, timeout_s=60))
    thread.join(60)
    assert len({roll.name for roll in rolls}) == 1
    assert len(rolls) == 2


def test_a_newcomer_waits_until_node_0_has_started_again(nodes: Nodes) -> None:
    old = nodes.begin(0, "one")
    eventually(nodes.listens)
    rolls: list[Roll] = []
    thread = threading.Thread(target=lambda: rolls.append(call_roll(place(1), "r", port=nodes.port, timeout_s=120)))
    thread.start()
    assert nodes.told.get(timeout=60)[0] == 0
    old.close()
    eventually(lambda: not nodes.listens())
    assert call_roll(place(0), "r", port=nodes.port, timeout_s=120).name != "one"
    thread.join(60)
    assert [roll.name != "one" for roll in rolls] == [True]


def test_nobody_is_told_after_the_end(nodes: Nodes) -> None:
    nodes.begin(0, "one").close()
    eventually(lambda: not nodes.listens())
    assert nodes.told.empty()
