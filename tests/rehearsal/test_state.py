"""What a stand-in remembers, its clock, its logs and its controllers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudtune.rehearsal.clock import Clock
from cloudtune.rehearsal.logs import Log
from cloudtune.rehearsal.nodes import Line, Node
from cloudtune.rehearsal.stage import Stage
from cloudtune.rehearsal.state import Gone, Store


def test_nobody_holds_a_piece_of_the_store() -> None:
    store, data = Store(), {"tags": ["a"]}
    added = store.add("job", "1", data)
    data["tags"].append("b")
    added.data["tags"].append("c")
    found = store.get("job", "1")
    assert found is not None
    found.data["tags"].append("d")
    store.all("job")[0].data["tags"].append("e")
    assert store.get("job", "1") == attrs_like(added, tags=["a"])
    with pytest.raises(KeyError, match="job 1 exists"):
        store.add("job", "1", {})


def attrs_like(resource: object, **data: object) -> object:
    import attrs

    return attrs.evolve(resource, data=data)


def test_resources_are_found_changed_and_removed() -> None:
    store = Store()
    for number in range(3):
        store.add("job", str(number), {"even": number % 2 == 0})
    store.add("run", "0", {})
    assert [job.id for job in store.all("job", lambda job: job.data["even"])] == ["0", "2"]
    changed = store.change("job", "1", even=True, more=1)
    assert changed is not None
    assert (changed.data, changed.version, store.version) == ({"even": True, "more": 1}, 5, 5)
    assert store.change("job", "1", when=lambda data: data["more"] == 2, even=False) is None
    assert store.change("job", "none", even=False) is None
    assert [store.remove("job", "1") is None for _ in range(2)] == [False, True]
    assert store.get("job", "1") is None


def test_changes_are_followed_by_version() -> None:
    store = Store(history=4)
    store.add("job", "1", {"state": "a"})
    store.change("job", "1", state="b")
    store.add("run", "1", {})
    store.remove("job", "1")
    assert [(each.version, each.deed, each.resource.kind) for each in store.changes(0)] == [
        (1, "added", "job"),
        (2, "changed", "job"),
        (3, "added", "run"),
        (4, "removed", "job"),
    ]
    assert [each.resource.data for each in store.changes(0, kinds={"job"})] == [
        {"state": "a"},
        {"state": "b"},
        {"state": "b"},
    ]
    assert store.changes(4) == ()
    store.add("run", "2", {})
    with pytest.raises(Gone, match="from version 1 on"):
        store.changes(0)
    assert [each.version for each in store.changes(1)] == [2, 3, 4, 5]


def test_a_change_is_waited_for() -> None:
    store = Store()
    store.add("job", "1", {"state": "CREATING"})
    timer = threading.Timer(0.1, lambda: store.change("job", "1", state="ACTIVE"))
    timer.start()
    assert store.wait_for_field("job", "1", "state", ("ACTIVE", "FAILED"), timeout_s=10) == "ACTIVE"
    assert len(store.changes(1, timeout_s=10)) == 1
    assert store.wait_for_field("job", "1", "state", ("DELETED",), timeout_s=0.01) is None
    assert store.wait_for_field("job", "2", "state", ("ACTIVE",), timeout_s=10) is None
    timer.join()


def test_two_threads_do_not_both_lead_a_state_on() -> None:
    store = Store()
    store.add("job", "1", {"state": 0})

    def step(_: int) -> bool:
        return store.change("job", "1", when=lambda data: data["state"] == 0, state=1) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(step, range(100))) == 1
        for done in pool.map(lambda _: store.update("job", "1", lambda data: {"state": data["state"] + 1}), range(100)):
            assert done
    job = store.get("job", "1")
    assert job is not None
    assert job.data["state"] == 101


def test_a_clock_runs_faster_and_jumps() -> None:
    clock = Clock(speed=1000)
    began, wall = clock.time_s(), time.monotonic()
    assert clock.sleep(100)
    assert clock.time_s() - began >= 100
    clock.push(3600)
    assert clock.time_s() - began >= 3700
    assert time.monotonic() - wall < 50
    assert not clock.sleep(1e9, unless=lambda: True)


def test_a_sleeper_wakes_when_the_clock_is_pushed() -> None:
    clock = Clock()
    threading.Timer(0.05, lambda: clock.push(7200)).start()
    assert clock.sleep(3600)


def line(text: str) -> Line:
    return Line(time_s=0.0, node="node-0", stream="stdout", text=text)


def test_a_log_is_read_and_followed() -> None:
    log = Log()
    log.append((line("a"), line("b"), line("c")))
    assert [each.text for each in log.read(1, most=1)] == ["b"]
    timer = threading.Timer(0.05, lambda: (log.append((line("d"),)), log.close()))
    timer.start()
    assert [each.text for lines in log.follow(1, alive=lambda: True) for each in lines] == ["b", "c", "d"]
    timer.join()
    assert len(log) == 4
    assert list(Log().follow(alive=lambda: False)) == []


def test_a_controller_leads_a_resource_through_states(tmp_path: Path) -> None:
    with Stage(tmp_path / "stage", speed=1000) as stage:
        stage.store.add("job", "1", {"state": "ACCEPTED"})
        led = []
        stage.control("job 1", lambda: led.append(stage.lead("job", "1", "state", ("CREATING", 60), ("ACTIVE", 0))))
        assert stage.store.wait_for_field("job", "1", "state", ("ACTIVE",), timeout_s=10) == "ACTIVE"
        assert [change.resource.data["state"] for change in stage.store.changes(0)] == [
            "ACCEPTED",
            "CREATING",
            "ACTIVE",
        ]
    assert (led, stage.errors) == ([True], ())


def test_what_was_changed_meanwhile_is_not_led_on(tmp_path: Path) -> None:
    with Stage(tmp_path / "stage") as stage:
        stage.store.add("job", "1", {"state": "ACCEPTED"})
        led = []
        stage.control("job 1", lambda: led.append(stage.lead("job", "1", "state", ("CREATING", 3600), ("ACTIVE", 0))))
        assert stage.store.wait_for_field("job", "1", "state", ("CREATING",), timeout_s=10)
        stage.store.change("job", "1", state="CANCELLED")
        stage.clock.push(3600)
        stage.store.wait_for(lambda _: led, timeout_s=0.5)
    job = stage.store.get("job", "1")
    assert job is not None
    assert (led, job.data["state"]) == ([False], "CANCELLED")


def test_a_stage_ends_its_sleepers_and_tells_what_failed(namespaces: None, tmp_path: Path) -> None:
    never = Node(name="late", folder=tmp_path / "late", command=("true",))
    with Stage(tmp_path / "stage") as stage:
        stage.control("sleeper", lambda: stage.sleep(3600) and None)
        stage.control("broken", lambda: 1 / 0 and None)
        stage.control("late", lambda: stage.sleep(3600) or (stage.nodes.start(never, Log().append) and None))
    assert len(stage.errors) == 1
    assert "controller broken" in stage.errors[0]
    assert "ZeroDivisionError" in stage.errors[0]
