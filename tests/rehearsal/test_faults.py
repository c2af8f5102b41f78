"""Plans of faults, without a server."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from cloudtune.rehearsal import faults
from cloudtune.rehearsal.faults import Faults, each_once, one_at_a_time


def test_a_call_is_counted_for_its_service_and_operation() -> None:
    plan = Faults(
        [faults.refused("jobs", "create*", status=500, numbers=(2, 3)), faults.lost("*", "get_run", numbers=())]
    )
    calls = [
        ("jobs", "create_job"),
        ("jobs", "create_job"),
        ("jobs", "create_run"),
        ("logs", "get_run"),
        ("jobs", "create_job"),
    ]
    met = [(number, [fault.kind for fault in due]) for number, due in (plan.call(*call) for call in calls)]
    assert met == [(1, []), (2, ["refused"]), (1, []), (1, ["lost"]), (3, ["refused"])]


def test_events_are_counted_apart_from_calls() -> None:
    plan = Faults([faults.no_capacity("BM.GPU*", numbers=(1, 2)), faults.node_dies("node-1", seconds=2)])
    assert plan.call("", "node-1") == (1, ())
    assert [bool(plan.event("no capacity", "BM.GPU4.8")) for _ in range(3)] == [True, True, False]
    assert plan.event("no capacity", "VM.Standard") is None
    death = plan.event("node dies", "node-1")
    assert death is not None
    assert death.seconds == 2
    assert plan.event("node dies", "node-1") is None
    plan.add(faults.event("evicted", "pod-*", seconds=1, numbers=()))
    assert all(plan.event("evicted", f"pod-{number}") for number in range(3))
    assert plan.left() == ()
    assert [fired.fault.kind for fired in plan.fired][:4] == ["no capacity", "no capacity", "node dies", "evicted"]


def test_faults_can_be_added_while_calls_are_counted() -> None:
    plan = Faults()
    plan.call("jobs", "get")
    plan.add(faults.expired("jobs", numbers=(2,)), faults.expired("jobs", numbers=(9,)))
    assert [fault.status for fault in plan.call("jobs", "get")[1]] == [401]
    assert [fault.numbers for fault in plan.left()] == [(9,)]


def test_every_call_of_a_record_meets_a_fault_once() -> None:
    calls = [("jobs", "create"), ("jobs", "get"), ("jobs", "get"), ("logs", "search")]
    plan = Faults(each_once(calls, faults.lost("")))
    for service, operation in calls:  # a client that tries each again
        tries = 0
        while plan.call(service, operation)[1]:
            tries += 1
        assert tries == 1
    assert plan.left() == ()


def test_one_fault_at_a_time() -> None:
    singles = one_at_a_time([("jobs", "get"), ("logs", "search"), ("jobs", "get")], faults.refused("", status=500))
    assert [(each.service, each.operation, each.numbers, each.status) for each in singles] == [
        ("jobs", "get", (1,), 500),
        ("logs", "search", (1,), 500),
        ("jobs", "get", (2,), 500),
    ]


def test_threads_share_a_plan() -> None:
    plan = Faults([faults.lost("jobs", numbers=(1, 50, 100))])
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: plan.call("jobs", "get"), range(100)))
    assert sorted(number for number, _ in answers) == list(range(1, 101))
    assert Counter(len(due) for _, due in answers) == {0: 97, 1: 3}
    assert sorted(fired.number for fired in plan.fired) == [1, 50, 100]
