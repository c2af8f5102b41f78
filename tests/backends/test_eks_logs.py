"""The lines of pods: merged, each once, in order; also of pods that come again, are cut off, or go."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtune.backends import eks_logs
from tests.backends.eks_service import HANDLE, Agent, Reader, Service

OUT_OF_MEMORY = {"exitCode": 137, "reason": "OOMKilled"}


def test_lines_of_two_nodes_are_merged_and_end() -> None:
    service = Service()
    agents = [Agent(service.pod(index), nodes=2, start_s=990.0) for index in (0, 1)]
    reader = Reader(service)
    for number in range(40):
        agents[number % 2].say(service.now, str(number))
        service.now += 0.5
        reader.once()
    for agent in agents:
        agent.leave(service.now)
        agent.pod.phase, agent.pod.tries[-1].end = "Succeeded", {"exitCode": 0}
    service.finish()
    reader.to_the_end()
    assert reader.written == [(number % 2, str(number)) for number in range(40)]
    assert reader.notes == ["Kubernetes: succeeded"]
    before = len(reader.lines)
    reader.once()
    assert len(reader.lines) == before


def test_what_is_there_is_shown_to_who_does_not_follow() -> None:
    service = Service()
    agent = Agent(service.pod(0), nodes=1, start_s=990.0)
    agent.say(999.0, "one")
    reader = Reader(service)
    reader.once()
    assert reader.cursor is not None
    assert reader.cursor["caughtUp"]
    assert reader.written == [(0, "one")]


def test_a_pod_that_comes_again_is_read_after_the_one_before_it() -> None:
    service = Service()
    first = Agent(service.pod(0), nodes=1, start_s=990.0)
    first.say(1000.0, "a")
    reader = Reader(service)
    reader.once()
    first.say(1000.5, "b")
    first.pod.phase, first.pod.status = "Failed", {"reason": "Evicted", "message": "The node was low on memory."}
    service.now = 1004.0
    second = Agent(service.pod(0), nodes=1, start_s=1003.0)
    second.say(1003.5, "c")
    second.leave(1003.6)
    second.pod.phase = "Succeeded"
    service.finish()
    reader.to_the_end()
    assert reader.written == [(0, "a"), (0, "b"), (0, "c")]
    assert reader.notes[0] == "pod tune-abcdefgh-0-1 was evicted: The node was low on memory"


def test_the_log_of_a_container_that_was_started_again_is_read_too() -> None:
    service = Service()
    pod = service.pod(0)
    pod.say(1000.0, "first", "first too")
    reader = Reader(service, attrs.evolve(HANDLE, kind="foreignJob"))
    reader.once()
    pod.say(1000.4, "last words")
    pod.tries[-1].end = OUT_OF_MEMORY
    pod.tries.append(type(pod.tries[0])())
    pod.say(1001.0, "again")
    service.now = 1001.5
    reader.once()
    pod.phase, pod.tries[-1].end = "Succeeded", {"exitCode": 0}
    service.finish()
    reader.to_the_end()
    assert [text for _, text in reader.written] == ["first", "first too", "last words", "again"]
    assert any("out of memory" in note and "started again (1)" in note for note in reader.notes)
    before = len(reader.calls)
    reader.once()
    assert "read_log" not in [call.operation for call in reader.calls[before:]]  # all was read to its end


def test_lines_of_one_moment_are_all_told_whatever_is_between_them() -> None:
    """A container's two outputs are stamped each by itself, so that times need not ascend."""
    service = Service()
    pod = service.pod(0)
    pod.tries[-1].lines += [(1000.5, "a"), (1000.4, "behind"), (1000.5, "b")]
    reader = Reader(service, attrs.evolve(HANDLE, kind="foreignJob"))
    reader.once()
    pod.phase, pod.tries[-1].end = "Succeeded", {"exitCode": 0}
    service.now = 1002.0
    service.finish()
    reader.to_the_end()
    assert [text for _, text in reader.written] == ["behind", "a", "b"]


def test_the_end_of_a_log_that_went_with_its_pod_is_told() -> None:
    service = Service()
    agent = Agent(service.pod(0), nodes=1, start_s=990.0)
    agent.say(1000.0, "one")
    reader = Reader(service)
    reader.once()
    agent.say(1001.0, "nobody sees this")
    service.pods.clear()
    service.now = 1003.0
    reader.once()
    assert [note for note in reader.notes if "tune-abcdefgh-0-1 is gone and the end of its log with it" in note]
    service.finish("Failed", reason="BackoffLimitExceeded", message="Job has reached the specified backoff limit")
    reader.to_the_end()
    assert reader.written == [(0, "one")]
    assert "as many failures as it may have" in reader.notes[-1]


def test_a_pod_that_said_goodbye_may_go() -> None:
    service = Service()
    agent = Agent(service.pod(0), nodes=1, start_s=990.0)
    agent.leave(1000.0)
    reader = Reader(service)
    reader.once()
    service.now = 1010.0
    reader.once()
    service.pods.clear()
    reader.once()
    assert not any("gone" in note for note in reader.notes)


def test_what_pods_wait_for_is_said_once_as_long_as_it_is_the_same() -> None:
    service = Service()
    message = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    for index in (0, 1):
        service.pod(index).status = {"phase": "Pending", "conditions": [unscheduled], "containerStatuses": []}
    reader = Reader(service)
    for _ in range(3):
        reader.once()
        service.now += 2
    assert reader.notes == [f"Kubernetes: 2 pods: it waits for a node: {message.rstrip('.')}"]
    assert not [call for call in reader.calls if call.operation == "read_log"]


def test_a_job_that_is_held_back_is_said_to_be() -> None:
    service = Service()
    assert service.job is not None
    service.job["spec"]["suspend"] = True
    reader = Reader(service)
    reader.once()
    assert reader.notes == ["Kubernetes: the job is suspended: a queue or somebody holds it back"]


def test_more_than_a_reply_holds_within_one_second_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eks_logs, "LIMIT_BYTES", 600)
    monkeypatch.setitem(eks_logs._BEGINNING, "limit", 600)
    service = Service()
    agents = [Agent(service.pod(index), nodes=2, start_s=990.0) for index in (0, 1)]
    for number in range(300):
        agents[0].say(1000.0 + number * 1e-3, f"a line of some length {number}")
    agents[1].say(1000.1, "short")
    for agent in agents:
        agent.leave(1001.0)
        agent.pod.phase, agent.pod.tries[-1].end = "Succeeded", {"exitCode": 0}
    service.now = 1010.0
    service.finish()
    reader = Reader(service)
    reader.to_the_end()
    assert sorted(text for node, text in reader.written if node == 0) == sorted(
        f"a line of some length {number}" for number in range(300)
    )
    assert [text for node, text in reader.written if node == 1] == ["short"]
    assert len(reader.calls) > 8


def test_lines_without_stamps_are_kept() -> None:
    """The kubelet answers in words of its own where it cannot read a log."""
    service = Service()
    service.pod(0)
    reader = Reader(service, attrs.evolve(HANDLE, kind="foreignJob"))
    cursor: Any = None
    for _ in range(2):
        _, cursor = eks_logs.read(reader.handle, service.read(eks_logs.next_call(reader.handle, cursor)))
    reply = {"replies": [{"text": "unable to retrieve container logs for containerd://5f"}]}
    call = eks_logs.next_call(reader.handle, cursor)
    lines, _ = eks_logs.read(reader.handle, {**reply, "cursor": call.parameters["cursor"], "readAt": 1010.0})
    assert [line.text for line in lines] == ["unable to retrieve container logs for containerd://5f"]


def test_the_logs_of_pods_that_are_gone_are_missed() -> None:
    service = Service()
    service.finish()
    reader = Reader(service)
    reader.to_the_end()
    assert "pods are gone, and their logs with them" in reader.notes[0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), nodes=st.integers(1, 4), limit=st.sampled_from([400, 3000, 1 << 20]))
def test_no_line_is_lost_or_doubled(seed: int, nodes: int, limit: int) -> None:
    """Nodes write at random; pods are killed after their last lines were there to be read, and come again."""
    draw = random.Random(seed)
    service = Service()
    agents = [Agent(service.pod(index), nodes=nodes, start_s=999.0) for index in range(nodes)]
    reader = Reader(service)
    reader.cursor = {"next": "look", "limit": limit}
    wanted: dict[int, list[str]] = {index: [] for index in range(nodes)}
    for round_ in range(draw.randrange(3, 25)):
        service.now += draw.choice([0.2, 1.0, 4.0])
        for index, agent in enumerate(agents):
            for number in range(draw.choice([0, 0, 1, 3, 20])):
                wanted[index].append(agent.say(service.now - 0.1 + number * 1e-4, f"{round_}.{number} {'x' * 20}"))
        if draw.random() < 0.2:
            index = draw.randrange(nodes)
            old = agents[index]
            if draw.random() < 0.5:
                old.leave(service.now, exitCode=1)
            old.pod.phase, old.pod.tries[-1].end = "Failed", {"exitCode": 1}
            service.now += 1.0
            agents[index] = Agent(service.pod(index), nodes=nodes, start_s=service.now)
        reader.once()
    for agent in agents:
        agent.leave(service.now)
        agent.pod.phase, agent.pod.tries[-1].end = "Succeeded", {"exitCode": 0}
    service.finish()
    reader.to_the_end()
    for index in range(nodes):
        assert [text for node, text in reader.written if node == index] == wanted[index]
    times = [line.time for line in reader.lines if line.replica is not None]
    # of a flood, what belongs to one moment is told as it comes
    assert limit < 1 << 20 or times == sorted(times)
