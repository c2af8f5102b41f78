"""What any backend must do. A backend's test class inherits all of it and gives a ``place``.

A difference that is meant is declared by overriding a test, never by skipping it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import attrs
import pytest

from cloudtune import jobs, runs
from cloudtune.backends import Backend
from cloudtune.errors import RunNotFound
from cloudtune.plan import Plan
from cloudtune.spec.job import JobSpec
from cloudtune.states import STATES, TERMINAL, Handle
from cloudtune.store import Store


@attrs.frozen(kw_only=True)
class Place:
    """A backend under test and its jobs.

    One ends well and says something, one fails, one is long, and one says more than fits into one reply, the most of it
    on one of two replicas.
    """

    backend: Backend
    good: JobSpec
    bad: JobSpec
    long: JobSpec
    talkative: JobSpec


def cloud_place(backend: Backend, job: Callable[[str], JobSpec], *, lines: int) -> Place:
    """Return the place of a cloud's backend; ``job`` makes a job of two nodes of a command, ``lines`` make long logs."""
    # the flood comes later: of what nodes write in one moment, a service may hide some for a while
    short = 'if [ "$CLOUDTUNE_NODE_RANK" = 1 ]; then for i in 1 2 3 4 5; do echo "short $i"; sleep 0.1; done; fi'
    long = f'if [ "$CLOUDTUNE_NODE_RANK" = 0 ]; then sleep 2; seq -f "a line of a long log: %.0f" {lines}; fi'
    return Place(
        backend=backend,
        good=job("echo one; echo two >&2"),
        bad=job('echo "about to fail"; if [ "$CLOUDTUNE_NODE_RANK" = 1 ]; then exit 3; fi; sleep 30'),
        long=job("sleep 300"),
        talkative=job(f"{short}; {long}"),
    )


def replies(backend: Backend, run: runs.Run) -> list[int]:
    """Return how many lines of a run that is over come with each reply."""
    assert run.handle is not None
    client, cursor, counts = runs.client_of(backend), None, []
    while True:
        found, cursor = backend.lines(run.handle, client.read(backend.logs(run.handle, cursor)))
        if found:
            counts.append(len(found))
        elif (cursor or {}).get("caughtUp", True):
            return counts


class BackendContract:
    """The suite."""

    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError

    def test_plan_is_pure_and_stable(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_network(*_: object, **__: object) -> None:
            raise AssertionError("a plan opens no socket")

        monkeypatch.setattr(socket, "socket", no_network)
        first, second = (place.backend.plan(place.good, "abcdefgh") for _ in range(2))
        assert first.to_json() == second.to_json()
        assert place.backend.plan(place.good, "bbbbbbbb").to_json() != first.to_json()
        json.loads(first.to_json())

    def test_plan_names_tokens_and_steps(self, place: Place) -> None:
        plan: Plan = place.backend.plan(place.good, "abcdefgh")
        assert plan.backend == place.backend.name
        assert plan.run_id == "abcdefgh"
        ids = [step.id for step in plan.steps]
        assert ids
        assert len(set(ids)) == len(ids)
        for step in plan.steps:
            assert step.token is None or "abcdefgh" in step.token
        assert any(step.token for step in plan.steps)

    def test_submit_runs_and_ends(self, place: Place) -> None:
        run = jobs.start(place.good)
        assert run.state in STATES
        status = run.wait(240)
        assert status.state == "succeeded"
        assert status.failure is None
        assert run.exit_code == 0

    def test_a_finished_run_is_known_from_the_record_alone(self, place: Place) -> None:
        run = jobs.start(place.good)
        run.wait(240)
        again = runs.get(run.id[:6])
        assert again.id == run.id
        assert again.state == "succeeded"
        assert [one.id for one in runs.runs()] == [run.id]

    def test_lines_come_in_order_and_once(self, place: Place) -> None:
        run = jobs.start(place.talkative)
        followed = [line for line in run.lines(follow=True) if line.stream != "agent"]
        assert {line.replica for line in followed} == {0, 1}
        after = [line for line in runs.get(run.id).lines() if line.stream != "agent"]
        for lines in (followed, after):
            assert [line.time for line in lines] == sorted(line.time for line in lines)
        assert sorted(map(repr, after)) == sorted(map(repr, followed))
        last = [line for line in run.logs(tail=10) if line.stream != "agent"]
        assert max(line.time for line in last) == followed[-1].time
        assert len(replies(place.backend, run)) > 1

    def test_failure_names_the_replica(self, place: Place) -> None:
        run = jobs.start(place.bad)
        status = run.wait(240)
        assert status.state == "failed"
        assert run.exit_code == 100
        assert status.failure is not None
        assert status.failure.replica is not None
        assert status.failure.exit_code not in (None, 0)
        assert status.failure.lines

    def test_cancel_ends_the_run(self, place: Place) -> None:
        run = jobs.start(place.long)
        status = run.cancel()
        assert status.state == "cancelled"
        assert run.exit_code == 103

    def test_cancel_of_a_finished_run_returns(self, place: Place) -> None:
        run = jobs.start(place.good)
        run.wait(240)
        assert run.cancel().state == "succeeded"

    def test_a_foreign_run_is_reached_by_its_own_id(self, place: Place, foreign: Callable[[Handle], str]) -> None:
        run = jobs.start(place.good)
        run.wait(240)
        assert run.handle is not None
        name = foreign(run.handle)
        Store().remove_run(run.id)
        found = runs.get(name)
        assert found.record is None
        assert found.state == "succeeded"
        assert [line for line in found.lines() if line.stream != "agent"]

    def test_an_unknown_run_is_not_found(self, place: Place) -> None:
        assert place.backend.recognise("no such thing") is None
        with pytest.raises(RunNotFound):
            runs.get("zzzzzzzz")

    def test_handles_have_one_text_form(self, place: Place) -> None:
        run = jobs.start(place.good)
        assert run.handle is not None
        assert Handle.parse(run.handle.uri) == run.handle
        assert run.wait(240).state in TERMINAL

    def test_delete_forgets_the_run(self, place: Place) -> None:
        run = jobs.start(place.good)
        run.wait(240)
        run.delete()
        with pytest.raises(RunNotFound):
            runs.get(run.id)

    def test_no_literal_secret_is_kept(self, place: Place) -> None:
        from cloudtune.spec.environment import EnvironmentVariable

        secret = "hf_" + "q" * 30
        assert place.good.runtime is not None
        env = (
            EnvironmentVariable(name="HF_TOKEN", value=secret),
            EnvironmentVariable(name="URL", value="x${HF_TOKEN}"),
        )
        job = attrs.evolve(place.good, runtime=attrs.evolve(place.good.runtime, env=env))
        assert secret not in place.backend.plan(job, "abcdefgh").to_json()
        run = jobs.start(job)
        assert run.wait(240).state == "succeeded"
        home = Store().folder
        kept = [path for path in home.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        assert kept == []
