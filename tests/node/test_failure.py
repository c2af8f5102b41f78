from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.node.failure import first_failure, rank_that_failed

GLOO = (
    "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] "
    "Connection closed by peer [127.0.0.3]:6137"
)
NCCL = "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely."
HTTP = [
    'File "/site-packages/urllib3/connectionpool.py", line 787, in urlopen',
    "urllib3.exceptions.ProtocolError: ('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))",
]


def rank(number: int, ended_at: float, code: int | None, *lines: str, signal: str | None = None) -> dict[str, Any]:
    return {
        "rank": number,
        "localRank": 0,
        "pid": 100 + number,
        "endedAt": ended_at,
        "exitCode": code,
        "signal": signal,
        "lines": list(lines),
        "traceback": None,
    }


def report(node: int, *ranks: dict[str, Any], code: int | None = 1, **more: Any) -> dict[str, Any]:
    return {
        "node": node,
        "exitCode": code,
        "signal": None,
        "startedAt": 0.0,
        "endedAt": 200.0,
        "reason": "",
        "ranks": list(ranks),
        "failure": None,
        **more,
    }


def named(*reports: dict[str, Any] | None) -> tuple[Any, Any]:
    failure = first_failure(reports)
    return (None, None) if failure is None else (failure["replica"], failure["rank"])


def test_nothing_failed() -> None:
    assert first_failure([]) is None
    assert first_failure([report(0, rank(0, 100.0, 0), code=0), report(1, rank(1, 100.1, 0), code=0)]) is None


def test_a_killed_rank_is_named_although_its_victims_clock_is_ahead() -> None:
    victims = report(0, rank(0, 99.2, 1, "step 5", GLOO), rank(1, 99.3, None, signal="SIGTERM"))
    killed = report(1, rank(2, 100.0, 137, "step 5", signal="SIGKILL"), rank(3, 100.1, 143, signal="SIGTERM"))
    failure = first_failure([victims, killed])
    assert failure == {
        "replica": 1,
        "rank": 2,
        "exitCode": 137,
        "signal": "SIGKILL",
        "time": 100.0,
        "lines": ["step 5"],
        "traceback": None,
    }


@pytest.mark.parametrize(
    "words",
    [
        GLOO,
        NCCL,
        "torch.distributed.DistBackendError: NCCL communicator was aborted on rank 1.",
        "[rank1]:[E1120] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)",
        "RuntimeError: [c10d] recvValue failed on SocketImpl: Failed to recv, got 0 bytes",
        "torch.distributed.DistNetworkError: The client socket has timed out after 60000ms",
        "torch.distributed.elastic.rendezvous.api.RendezvousConnectionError: The connection to the C10d store has failed",
        "ConnectionResetError: [Errno 104] Connection reset by peer",
        "BrokenPipeError: [Errno 32] Broken pipe",
    ],
)
def test_who_blames_a_lost_peer_is_a_victim(words: str) -> None:
    assert named(report(0, rank(0, 50.0, 1, words)), report(1, rank(1, 52.0, 1, "ValueError: bad"))) == (1, 1)


def test_a_download_that_broke_is_no_lost_peer() -> None:
    assert named(report(0, rank(0, 50.0, 1, *HTTP)), report(1, rank(1, 49.0, 1, GLOO))) == (0, 0)


def test_a_warning_of_a_library_does_not_hide_a_lost_peer() -> None:
    noisy = rank(0, 50.0, 1, "huggingface_hub: slow", "urllib3 warning", GLOO)
    assert named(report(0, noisy), report(1, rank(1, 51.0, 1, "ValueError"))) == (1, 1)


def test_the_earliest_of_victims_is_named_if_there_is_nobody_else() -> None:
    assert named(report(0, rank(0, 52.0, 1, GLOO)), report(1, rank(1, 51.0, 1, NCCL))) == (1, 1)


def test_victims_of_words_come_before_those_of_a_signal() -> None:
    assert named(report(0, rank(0, 52.0, 1, GLOO), rank(1, 52.5, None, signal="SIGTERM"))) == (0, 0)


def dying(*lines: str) -> dict[str, Any]:
    """Return a rank that its launcher ended 0.1 s after another had failed, with an exception among its lines."""
    raised = 'Traceback (most recent call last):\n  File "train.py", line 33, in <module>\nValueError: labels'
    words = [f"[rank1]: {line}" for line in raised.splitlines()]
    return {**rank(1, 50.1, 143, *words, *lines, signal="SIGTERM"), "traceback": raised}


def test_a_rank_that_was_dying_of_its_own_exception_when_it_was_terminated_is_no_victim() -> None:
    aborted = rank(0, 50.0, 134, GLOO, "terminate called without an active exception", signal="SIGABRT")
    assert named(report(0, aborted, dying()), report(1, rank(2, 49.0, 1, GLOO))) == (0, 1)
    warned = dying("[rank1]:[W1121 15:47:58 ProcessGroupNCCL.cpp:1480] destroy_process_group() was not called")
    assert named(report(0, aborted, warned)) == (0, 1)


def test_a_terminated_rank_that_had_gone_on_after_an_exception_is_a_victim() -> None:
    assert named(report(0, rank(0, 50.0, 1, GLOO), dying("step 6"))) == (0, 0)


def test_a_rank_that_a_stranger_terminated_is_no_victim() -> None:
    terminated = report(0, rank(0, 50.0, 143, signal="SIGTERM"), rank(1, 50.2, 143, signal="SIGTERM"))
    assert named(terminated, report(1, rank(2, 49.9, 1, GLOO))) == (0, 0)


def test_a_launchers_kill_after_its_patience_is_no_cause() -> None:
    stuck = report(0, rank(0, 50.0, 1, GLOO), rank(1, 80.0, None, signal="SIGKILL"))
    assert named(stuck) == (0, 0)


def test_who_ended_after_the_stop_of_its_node_was_asked_to() -> None:
    asked = report(0, rank(0, 48.0, 1, "KeyboardInterrupt"), stopped="SIGTERM", stoppedAt=47.0)
    assert named(asked, report(1, rank(1, 50.0, 1, "ValueError: bad"))) == (1, 1)


def test_who_failed_before_its_node_was_stopped_is_told() -> None:
    stop = {"stopped": "SIGTERM", "stoppedAt": 52.0, "code": 143}
    asked = rank(1, 52.5, 143, signal="SIGTERM")
    assert rank_that_failed(report(0, rank(0, 50.0, 1, "ValueError"), asked, **stop)) == "rank 0 failed (exit code 1)"
    assert (
        rank_that_failed(report(0, rank(0, 50.0, 139, signal="SIGSEGV"), **stop)) == "rank 0 failed (ended by SIGSEGV)"
    )
    assert rank_that_failed(report(0, rank(0, 50.0, 1, GLOO), asked, **stop)) is None
    assert rank_that_failed(report(0, asked, **stop)) is None


def test_clocks_are_compared_by_their_offsets() -> None:
    late = report(1, rank(1, 40.0, 1, "ValueError: second"), clockOffset=20.0)
    assert named(report(0, rank(0, 50.0, 1, "ValueError: first")), late) == (0, 0)
    assert named(report(0, rank(0, 70.0, 1, "ValueError: second")), late) == (1, 1)


def test_a_missing_or_empty_report_counts_for_nothing() -> None:
    assert named(None, {}, report(2, rank(5, 50.0, 1, "ValueError"))) == (2, 5)
    assert first_failure([None, {}]) is None


def test_a_time_out_is_the_nodes_own_failure() -> None:
    failure = {"replica": 1, "rank": None, "exitCode": 124, "signal": None, "time": 60.0, "lines": ["limit"]}
    ended = rank(1, 61.0, 143, signal="SIGTERM")
    limited = report(1, ended, code=124, failure=failure, stopped="time limit", stoppedAt=60.0)
    found = first_failure([report(0, rank(0, 61.0, 1, GLOO)), limited])
    assert found is not None
    assert (found["replica"], found["rank"], found["exitCode"], found["lines"]) == (1, None, 124, ["limit"])


def test_a_node_that_waited_for_another_is_its_victim() -> None:
    own = {"rank": None, "exitCode": 125, "signal": None, "lines": [], "traceback": None}
    waited = report(0, code=125, failure={**own, "replica": 0, "time": 10.0, "victim": True})
    broken = report(1, code=125, failure={**own, "replica": 1, "time": 10.1, "victim": False})
    found = first_failure([waited, broken])
    assert found is not None
    assert found["replica"] == 1
    assert "victim" not in found


def test_a_node_without_ranks_or_failure_is_known_by_its_code() -> None:
    found = first_failure([report(0, code=0), report(1, code=125)])
    assert found is not None
    assert (found["replica"], found["rank"], found["exitCode"], found["time"]) == (1, None, 125, 200.0)


def test_a_cancelled_node_without_ranks_is_no_failure() -> None:
    assert first_failure([report(0, code=143, stopped="SIGTERM", stoppedAt=10.0)]) is None


@given(
    st.integers(0, 3),
    st.integers(0, 7),
    st.lists(st.floats(-2, 3), min_size=32, max_size=32),
    st.sampled_from(["SIGKILL", "SIGSEGV", None]),
)
def test_the_cause_is_found_among_any_victims(node: int, local: int, delays: list[float], signal: str | None) -> None:
    """Victims of the other nodes end up to 2 s earlier by their clocks, those of the same node are terminated later."""
    reports = []
    for replica in range(4):
        ranks = []
        for slot in range(8):
            delay = delays[replica * 8 + slot]
            if (replica, slot) == (node, local):
                ranks.append(rank(replica * 8 + slot, 100.0, 1, "Segmentation fault", signal=signal))
            elif replica == node:
                ranks.append(rank(replica * 8 + slot, 100.01 + abs(delay), 143, signal="SIGTERM"))
            else:
                ranks.append(rank(replica * 8 + slot, 100.0 + delay, 1, GLOO))
        reports.append(report(replica, *ranks))
    assert named(*reports) == (node, node * 8 + local)
