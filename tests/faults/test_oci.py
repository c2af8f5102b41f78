"""Whole flows on OCI's stand-in where something goes wrong at each call: nothing is doubled, lost, or left unsaid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from cloudtune import deletion, jobs, places, runs, verbs
from cloudtune.backends import farewells, oci_logs
from cloudtune.errors import CloudtuneError, NotAllowed, ServiceError, UsageError
from cloudtune.rehearsal import faults
from cloudtune.rehearsal.faults import Fault
from cloudtune.rehearsal.logs import Log
from cloudtune.runs import Run
from cloudtune.spec.infrastructure import DataScienceJob
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PyTorchDistributedRuntime
from cloudtune.store import Store
from tests.faults.flows import COMMAND, TEXTS, from_now_on, killed_anywhere, sent, watched_and_deleted, written
from tests.oci_place import OciPlace, oci_place
from tests.processes import eventually
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

pytest.importorskip("oci", reason="the oci SDK is not installed")
from cloudtune.clients import oci_endpoint
from cloudtune.rehearsal.oci.cloud import Timing
from cloudtune.rehearsal.oci.job_runs import JobRuns
from cloudtune.rehearsal.oci.run_control import NEEDS_ATTENTION

pytestmark = pytest.mark.usefixtures("namespaces")
SCIENCE, LOGGING = "oci.data_science", "oci.logging"
#: What a submission sends and asks for, in order, and what a watch asks for.
SUBMITTING = ("create_job", "get_job", "create_job_artifact", "create_job_run")
WATCHING = ("get_job_run", "get_log", "search_logs")
#: Tries after which the SDK gives up.
TRIES = 8
#: The stand-in's seconds go by fast: a machine is there at once.
SPEED = 1000.0


def job(on: OciPlace, command: str = COMMAND, *, replicas: int | None = None, logged: bool = True) -> JobSpec:
    place = DataScienceJob(
        compartment_id=on.compartment,
        project_id=on.project,
        log_group_id=on.log_group if logged else None,
        shape_name="VM.Standard2.1",
        block_storage_size=50,
    )
    runtime = PyTorchDistributedRuntime(command=command, replicas=replicas)
    return JobSpec(name="fault", infrastructure=place, runtime=runtime)


@pytest.fixture
def on(tmp_path: Path) -> Iterator[OciPlace]:
    with oci_place(tmp_path, speed=SPEED) as place:
        yield place


def service_of(operation: str) -> str:
    return LOGGING if operation in ("get_log", "search_logs") else SCIENCE


def disturb(on: OciPlace, operation: str, fault: Callable[..., Fault], *, calls: int, **details: int) -> None:
    """Let the next calls of an operation go wrong."""
    from_now_on(on.stage, service_of(operation), operation, fault, calls=calls, **details)


def states(on: OciPlace, kind: str) -> list[str]:
    return [thing.data["lifecycleState"] for thing in on.stage.store.all(kind)]


def watched_and_gone(run: Run, on: OciPlace) -> None:
    """Watch a run to its end and delete it: each line is there once, and nothing stays."""
    watched_and_deleted(run)
    eventually(lambda: set(states(on, "oci.job")) == {"DELETED"})
    assert set(states(on, "oci.job_run")) == {"DELETED"}


# --- every call once


KINDS = {
    "429": faults.refused("*", status=429, code="TooManyRequests"),
    "500": faults.refused("*", status=500, code="InternalServerError"),
    "503": faults.refused("*", status=503, code="ServiceUnavailable"),
    "late": faults.slow("*", seconds=1.0),
    "cut": faults.cut("*"),
    "lost": faults.lost("*"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_fails_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submit, watch and delete; cancel and delete: of every operation the 1st, 3rd, ... call goes wrong."""
    monkeypatch.setattr(oci_endpoint, "TIMEOUT_S", (10.0, 0.5 if kind == "late" else 60.0))
    operations = (*SUBMITTING, *WATCHING, "cancel_job_run", "delete_job")
    calls = [(service_of(one), one) for one in operations for _ in range(2)]
    with oci_place(tmp_path, speed=SPEED, faults=faults.each_once(calls, KINDS[kind])) as on:
        watched_and_gone(jobs.start(job(on)), on)
        run = jobs.start(job(on, "echo begun; sleep 300"))
        eventually(lambda: run.state == "running")
        assert run.cancel().state == "cancelled"
        run.delete()
        assert len(states(on, "oci.job")) == len(states(on, "oci.job_run")) == 2
        assert Store().runs() == ()
        assert {(fired.operation, fired.number) for fired in on.stage.faults.fired} >= {(one, 1) for one in operations}


# --- a service that is away for longer than the SDK tries


AWAY: dict[str, tuple[Callable[..., Fault], dict[str, int]]] = {
    "lost": (faults.lost, {}),
    "503": (faults.refused, {"status": 503}),
}


@pytest.mark.parametrize("kind", AWAY)
def test_a_submission_that_cannot_go_on_is_continued(kind: str, on: OciPlace) -> None:
    fault, details = AWAY[kind]
    for operation in SUBMITTING:
        disturb(on, operation, fault, calls=TRIES, **details)
        with pytest.raises(ServiceError) as caught:
            jobs.start(job(on))
        (record,) = Store().runs()
        assert f"cloudtune run --resume {record.id}" in str(caught.value)
        assert record.state == "pending"
        assert operation in (record.reason or "")
        run = runs.get(record.id)
        for waiting in (run.watch, run.wait, run.result):
            with pytest.raises(UsageError, match="not fully submitted") as waited:
                waiting()
            assert f"--resume {record.id}" in str(waited.value)
        watched_and_gone(jobs.resume(record.id), on)
    assert len(states(on, "oci.job")) == len(states(on, "oci.job_run")) == len(SUBMITTING)


def test_a_watch_waits_for_a_service_that_is_away(on: OciPlace) -> None:
    for operation in WATCHING:
        run = jobs.start(job(on))
        disturb(on, operation, faults.lost, calls=2 * TRIES)
        lines = list(run.lines(follow=True))
        assert written(lines) == TEXTS
        notes = [line.text for line in lines if line.stream == "agent" and line.replica is None]
        assert sum("trying again" in note for note in notes) == 1
        assert sum("connected again" in note for note in notes) == 1
    assert on.stage.faults.left() == ()


def test_ending_a_run_whose_service_does_not_answer(on: OciPlace) -> None:
    """The reply to a cancellation or deletion is lost for good; asked again, the service refuses what is done."""
    run = jobs.start(job(on, "sleep 300"))
    eventually(lambda: run.state == "running")
    disturb(on, "cancel_job_run", faults.lost, calls=TRIES)
    assert run.cancel().state == "cancelled"
    disturb(on, "delete_job", faults.lost, calls=TRIES)
    run.delete()
    assert Store().runs() == ()
    eventually(lambda: states(on, "oci.job") == ["DELETED"])


# --- what is refused for good


def test_a_submission_that_is_refused_leaves_nothing(on: OciPlace) -> None:
    for operation in SUBMITTING:
        disturb(on, operation, faults.refused, calls=1, status=400)
        with pytest.raises(CloudtuneError) as caught:
            jobs.start(job(on))
        assert "left behind" not in str(caught.value)
        (record,) = Store().runs()
        assert record.state == "failed"
        assert "left behind" not in (record.reason or "")
        assert deletion.delete(record.id, runs.get, outputs=False, all_versions=False).kept == ()
    eventually(lambda: set(states(on, "oci.job")) == {"DELETED"})
    assert states(on, "oci.job_run") == []


def test_what_a_refused_submission_leaves_is_said(on: OciPlace) -> None:
    disturb(on, "create_job_run", faults.refused, calls=1, status=400)
    disturb(on, "delete_job", faults.refused, calls=1, status=404)
    with pytest.raises(CloudtuneError) as caught:
        jobs.start(job(on))
    (made,) = on.stage.store.all("oci.job")
    (record,) = Store().runs()
    for told in (str(caught.value), record.reason or "", runs.runs().to_dicts()[0]["reason"]):
        assert f"job ({SCIENCE} create_job {made.id})" in told.partition("left behind: ")[2]
    deleted = deletion.delete(record.id, runs.get, outputs=False, all_versions=False)
    assert deleted.kept == (f"job {made.id}", "artifact")


# --- a submission that is killed


def test_a_submission_that_is_killed_anywhere_goes_on(on: OciPlace, tmp_path: Path) -> None:
    """SIGKILL before each thing that `cloudtune run` writes down, sends or asks for."""
    where = {
        "compartmentId": on.compartment,
        "projectId": on.project,
        "logGroupId": on.log_group,
        "shapeName": "VM.Standard2.1",
        "blockStorageSize": 50,
    }
    count = killed_anywhere(
        tmp_path,
        "dataScienceJob",
        where,
        client="cloudtune.clients.oci:OciClient",
        environ=on.environ,
        least=12,
    )
    assert len(states(on, "oci.job")) == len(states(on, "oci.job_run")) == count


def test_a_submission_that_is_killed_while_it_is_taken_back_is_finished(
    on: OciPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    write = jobs.RunJournal.write

    def killed(self: jobs.RunJournal, step: str, phase: str, reply: object = None) -> None:
        write(self, step, phase, reply)  # type: ignore[arg-type]
        if phase == "undone":
            raise Killed

    disturb(on, "create_job_run", faults.refused, calls=1, status=400)
    with monkeypatch.context() as patch:
        patch.setattr(jobs.RunJournal, "write", killed)
        with pytest.raises(Killed):
            jobs.start(job(on))
    (record,) = Store().runs()
    assert record.state == "pending"
    with pytest.raises(UsageError, match="taken back"):
        jobs.resume(record.id)
    assert runs.get(record.id).state == "failed"
    eventually(lambda: states(on, "oci.job") == ["DELETED"])


# --- a watch that is disturbed


#: A job that writes ten lines, waits for a file in its home, and writes ten more.
GATED = "seq 10; while [ ! -e ~/gate ]; do sleep 0.02; done; seq 11 20"


def go_on(on: OciPlace, run: Run) -> None:
    """Let the nodes of a gated run go on."""
    assert run.handle is not None
    folder = on.stage.folder / "runs" / run.handle.id
    for node in folder.glob("node-*"):
        home = node / "machine" / "home"
        eventually(home.is_dir)
        (home / "gate").touch()


def test_a_network_that_is_lost_for_minutes_costs_no_line(on: OciPlace) -> None:
    run, lines = jobs.start(job(on, GATED)), []
    outage = faults.lost("oci.[dl]*", numbers=())
    for line in run.lines(follow=True):
        lines.append(line)
        if line.text == "10":
            on.stage.faults.add(outage)
        if "trying again" in line.text:
            go_on(on, run)
            assert run.handle is not None
            said = on.cloud.part(JobRuns).said[run.handle.id]
            eventually(partial(_has_said, said, " 20"))
            on.stage.clock.push(300)
            on.stage.faults.remove(outage)
    assert written(lines) == TEXTS
    assert run.state == "succeeded"


def _has_said(said: Log, text: str) -> bool:
    return any(line.text.endswith(text) for line in said.read())


def test_a_session_that_expires_in_a_watch_is_renewed(tmp_path: Path) -> None:
    with oci_place(tmp_path, speed=SPEED, session=True) as on:
        run, lines = jobs.start(job(on, GATED)), []
        for line in run.lines(follow=True):
            lines.append(line)
            if line.text == "10":
                on.cloud.principals.end_sessions()
                go_on(on, run)
            if "does not know you" in line.text:
                assert "oci session authenticate" in line.text
                on.cloud.principals.sign_in()
        assert written(lines) == TEXTS
        assert run.state == "succeeded"


def test_a_session_that_nobody_renews_ends_the_watch_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "PATIENCE_S", 0.3)
    with oci_place(tmp_path, speed=SPEED, session=True) as on:
        run, lines = jobs.start(job(on, GATED)), []

        def watch() -> None:
            for line in run.lines(follow=True):
                lines.append(line)
                if line.text == "10":
                    on.cloud.principals.end_sessions()

        with pytest.raises(NotAllowed) as caught:
            watch()
        for word in ("does not know you", "oci session authenticate", f"cloudtune watch {run.id}"):
            assert word in str(caught.value)
        assert written(lines) == TEXTS[:10]
        go_on(on, run)
        on.cloud.principals.sign_in()
        assert written(list(runs.get(run.id).lines(follow=True))) == TEXTS


# --- ends of other kinds


ENDS = {
    "needs attention": faults.event(NEEDS_ATTENTION),
    "host capacity": faults.no_capacity(),
    "stopped responding": faults.node_dies(after_lines=1),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_ends_without_a_word_is_over(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci_logs, "QUIET_S", 0.5)
    monkeypatch.setattr(farewells, "PATIENCE_S", 0.5)
    with oci_place(tmp_path, speed=SPEED, faults=[ENDS[end]]) as on:
        run = jobs.start(job(on, "sleep 300"))
        shown: list[str] = []
        status = run.watch(shown.append)
        assert status.state == "failed"
        assert end in (status.reason or "")
        assert end in shown[-1]
        assert run.cancel().state == "failed"
        assert sent(on.stage, "cancel_job_run") == 0
        run.delete()
        eventually(lambda: states(on, "oci.job") == ["DELETED"])


def test_a_run_that_is_slow_to_end_does_not_hold_who_cancels_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudtune.runs.run.CANCEL_S", 0.3)
    with oci_place(tmp_path, speed=SPEED, timing=Timing(canceling_s=1e9)) as on:
        run = jobs.start(job(on, "sleep 300"))
        eventually(lambda: run.state == "running")
        for _ in range(2):
            assert run.cancel().state == "stopping"
        with pytest.raises(UsageError, match="is stopping"):
            run.delete()


def test_without_a_log_the_state_is_followed(on: OciPlace) -> None:
    run = jobs.start(job(on, GATED, logged=False))
    shown: list[str] = []

    def show(line: str) -> None:
        shown.append(line)
        if "OCI: IN_PROGRESS" in line:
            go_on(on, run)

    assert run.watch(show).state == "succeeded"
    assert any("this run has no log (its job names no logGroupId)" in line for line in shown)
    assert any("OCI: IN_PROGRESS" in line for line in shown)
    assert sent(on.stage, "search_logs") == 0


def test_a_run_that_was_removed_by_hand_is_lost_and_can_be_deleted(on: OciPlace) -> None:
    run = jobs.start(job(on, "sleep 300"))
    eventually(lambda: run.state == "running")
    assert run.cancel().state == "cancelled"
    science = on.sdk("data_science", "DataScienceClient")
    (made,) = on.stage.store.all("oci.job")
    science.delete_job(made.id, delete_related_job_runs=True)
    eventually(lambda: states(on, "oci.job") == ["DELETED"])
    assert run.look().state == "lost"
    runs.get(run.id).delete()
    assert Store().runs() == ()


def test_a_run_that_may_not_be_seen_is_not_lost(on: OciPlace) -> None:
    """As with a profile of another tenancy: of what one may not see, the service says that it does not exist."""
    run = jobs.start(job(on, "sleep 300"))
    eventually(lambda: run.state == "running")
    on.cloud.absent.add(on.compartment)
    with pytest.raises(NotAllowed, match="nor may you see where it was") as caught:
        _ = run.status
    assert "the same profile" in (caught.value.hint or "")
    assert [one["state"] for one in runs.runs().to_dicts()] == ["running"]
    with pytest.raises(NotAllowed):
        verbs.delete(run.id)
    on.cloud.absent.clear()
    assert run.cancel().state == "cancelled"
    on.cloud.absent.add(on.compartment)
    assert run.status.state == "cancelled"
    with pytest.raises(NotAllowed):
        verbs.delete(run.id)
    on.cloud.absent.clear()
    verbs.delete(run.id)
    assert (Store().runs(), states(on, "oci.job")) == ((), ["DELETED"])


def test_a_run_that_its_compartment_does_not_list_is_lost(on: OciPlace) -> None:
    run = jobs.start(job(on, "sleep 300"))
    eventually(lambda: run.state == "running")
    (made,) = on.stage.store.all("oci.job_run")
    on.sdk("data_science", "DataScienceClient").cancel_job_run(made.id)
    eventually(lambda: states(on, "oci.job_run") == ["CANCELED"])
    on.stage.store.remove("oci.job_run", made.id)  # as long after it was deleted
    assert run.status.state == "lost"
    verbs.delete(run.id)
    assert Store().runs() == ()


def test_a_run_of_two_nodes_that_somebody_else_started(on: OciPlace) -> None:
    """By its OCID alone, from another home: watch, status, cancel and delete."""
    ocids = []
    for _ in range(2):
        run = jobs.start(job(on, GATED, replicas=2))
        assert run.handle is not None
        Store().remove_run(run.id)
        ocids.append(run.handle.id)
    ending, ended = (verbs.status(ocid) for ocid in ocids)
    eventually(lambda: ending.state == ended.state == "running")
    go_on(on, ended)
    shown: list[str] = []
    assert verbs.watch(ended.id, show=shown.append).state == "succeeded"
    for node in range(2):
        assert [line.removeprefix(mark) for line in shown if line.startswith(mark := f"[{node}/{node}] ")] == TEXTS
    assert ended.to_dict()["name"].startswith("fault-")
    assert verbs.cancel(ending.id).state == "cancelled"
    for ocid in ocids:
        verbs.delete(ocid)
    assert states(on, "oci.job_run") == ["DELETED", "DELETED"]
    assert states(on, "oci.job") == ["ACTIVE", "ACTIVE"]  # they are somebody else's
