"""Whole flows on a cluster's stand-in where something goes wrong: nothing is doubled, lost, or left unsaid."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtune import jobs, places, runs
from cloudtune.backends.eks import EksBackend
from cloudtune.errors import RunNotFound, ServiceError
from cloudtune.plan import Call
from cloudtune.rehearsal import faults
from cloudtune.rehearsal.kubernetes.api import HISTORY_CUT, TOKENS_END
from cloudtune.runs import Run
from cloudtune.states import LogLine
from cloudtune.store import Store
from tests.eks_place import INSTANCE, EksPlace, eks_place, job
from tests.faults.flows import (
    COMMAND,
    TEXTS,
    from_now_on,
    killed_anywhere,
    sent,
    watched_and_deleted,
    written,
)
from tests.processes import eventually
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

pytest.importorskip("kubernetes", reason="kubernetes is not installed")

pytestmark = pytest.mark.usefixtures("namespaces")
SERVICE = "kubernetes"
SUBMITTING = ("create_jobs", "create_services", "create_configmaps")
WATCHING = ("get_jobs", "list_pods", "read_log")
ENDING = ("patch_jobs", "delete_jobs")
#: Tries after which the client gives up.
TRIES = 6
#: Writes ten lines, waits for a word, and writes ten more; what is told to end or killed starts again at the beginning.
TALK = "seq 10; while [ ! -e /gate/open ]; do sleep 0.1; done; seq 11 20"


@pytest.fixture
def on(tmp_path: Path) -> Iterator[EksPlace]:
    with eks_place(tmp_path) as place:
        yield place


def made(on: EksPlace) -> list[str]:
    """Return what of cloudtune's own is in the cluster."""
    kinds = ("Job", "ConfigMap", "Service", "Secret", "Pod")
    return [f"{kind} {one['metadata']['name']}" for kind in kinds for one in on.things(kind)]


def watched_and_gone(run: Run, on: EksPlace) -> None:
    """Watch a run to its end and delete it: each line is there once, and nothing stays."""
    watched_and_deleted(run)
    eventually(lambda: made(on) == [])


class Watcher:
    """Somebody who follows a run on a thread of its own."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.lines: list[LogLine] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            for line in self.run.lines(follow=True):
                self.lines.append(line)
        except BaseException as error:  # noqa: BLE001 - shown by who waits
            self.error = error

    def has(self, text: str, *, times: int = 1) -> None:
        """Wait until a text was told so often."""
        eventually(lambda: self.error or [line.text for line in self.lines].count(text) >= times, within_s=240)
        assert self.error is None, (self.error, self.texts)

    def to_the_end(self) -> list[LogLine]:
        """Return all lines, once the run is over."""
        self._thread.join(90)
        assert not self._thread.is_alive(), self.texts
        assert self.error is None, (self.error, self.texts)
        return self.lines

    @property
    def texts(self) -> list[str]:
        return [f"{line.replica} {line.stream} {line.text}" for line in self.lines]

    @property
    def notes(self) -> list[str]:
        return [line.text for line in self.lines if line.replica is None]


KINDS = {
    "429": faults.refused("*", status=429, code="TooManyRequests"),
    "cut": faults.cut("*"),
    "lost": faults.lost("*"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_fails_once(kind: str, tmp_path: Path) -> None:
    """Submit, watch and delete; cancel and delete: of every operation the 1st, 3rd, ... call goes wrong."""
    calls = [(SERVICE, one) for one in (*SUBMITTING, *WATCHING, *ENDING) for _ in range(3)]
    with eks_place(tmp_path, faults=faults.each_once(calls, KINDS[kind])) as on:
        watched_and_gone(jobs.start(job(COMMAND, replicas=1)), on)
        run = jobs.start(job("echo begun; sleep 300", replicas=2))
        eventually(lambda: run.state == "running")
        assert run.cancel().state == "cancelled"
        run.delete()
        eventually(lambda: made(on) == [])
        fired = {(one.service, one.operation) for one in on.stage.faults.fired}
        assert fired >= {(SERVICE, one) for one in (*SUBMITTING, *WATCHING, *ENDING)}


@pytest.mark.parametrize(("operation", "tried"), [("create_jobs", 0), ("create_configmaps", 1)])
def test_a_submission_that_cannot_go_on_is_continued(on: EksPlace, operation: str, tried: int) -> None:
    """While it is only tried, and after that."""
    first = sent(on.stage, operation) + 1 + tried
    on.stage.faults.add(faults.lost(SERVICE, operation, numbers=tuple(range(first, first + TRIES))))
    with pytest.raises(ServiceError) as caught:
        jobs.start(job(COMMAND, replicas=1))
    (record,) = Store().runs()
    assert f"cloudtune run --resume {record.id}" in str(caught.value)
    watched_and_gone(jobs.resume(record.id), on)


def test_a_submission_that_is_killed_anywhere_goes_on(tmp_path: Path) -> None:
    """SIGKILL before each thing that `cloudtune run` writes down, sends or asks for."""
    # what was cut off takes a node each until it is continued
    with eks_place(tmp_path, nodes=20) as on:
        count = killed_anywhere(
            tmp_path,
            "eksJob",
            {"instanceType": INSTANCE, "image": "image:1", "namespace": "default"},
            client="cloudtune.clients.kubernetes:KubernetesClient",
            environ=on.environ,
            least=4,
        )
        assert len(on.things("Job")) == len(on.things("ConfigMap")) == count


# --- a watch that is disturbed


def test_a_watch_waits_for_a_cluster_that_is_away(on: EksPlace) -> None:
    run = jobs.start(job(COMMAND, replicas=1))
    from_now_on(on.stage, SERVICE, "list_pods", faults.lost, calls=2 * TRIES)
    lines = list(run.lines(follow=True))
    assert written(lines) == TEXTS
    notes = [line.text for line in lines if line.stream == "agent" and line.replica is None]
    assert sum("trying again" in note for note in notes) == 1, notes
    assert sum("connected again" in note for note in notes) == 1, notes


def test_streams_that_are_cut_lose_and_double_nothing(on: EksPlace) -> None:
    """Every second answer with a log, again and again, in the middle of lines."""
    on.stage.faults.add(faults.cut(SERVICE, "read_log", after_bytes=333, numbers=tuple(range(1, 1000, 2))))
    run = jobs.start(job("for i in $(seq 60); do echo $i; sleep 0.05; done"))
    lines = list(run.lines(follow=True))
    for node in (0, 1):
        own = [line for line in lines if line.replica == node]
        assert written(own) == [str(number) for number in range(1, 61)], lines
    assert len(on.stage.faults.fired) > 3


def test_a_slow_log_and_a_history_that_is_cut_change_nothing(on: EksPlace) -> None:
    on.stage.faults.add(
        faults.slow(SERVICE, "read_log", seconds=0.5, numbers=(1, 2, 3)), faults.event(HISTORY_CUT, "list_pods")
    )
    watched_and_gone(jobs.start(job(COMMAND, replicas=1)), on)
    assert {one.fault.kind for one in on.stage.faults.fired} >= {"slow"}


def test_a_token_that_ends_in_a_watch_is_renewed(tmp_path: Path) -> None:
    """By the program that the kubeconfig names, as EKS's tokens are, which last for 15 minutes."""
    with eks_place(tmp_path) as on:
        on.cluster.add_context("mine", way="program")
        run = jobs.start(job(TALK, replicas=1, context="mine"))
        watcher = Watcher(run)
        watcher.has("10")
        on.stage.faults.add(faults.event(TOKENS_END, "list_pods"))
        before = sent(on.stage, "list_pods")
        eventually(lambda: sent(on.stage, "list_pods") > before + 2)
        on.open_gate()
        assert written(watcher.to_the_end()) == TEXTS
        assert run.state == "succeeded"


def test_a_token_that_cannot_be_renewed_is_waited_for(on: EksPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_LONGEST_S", 0.5)
    run = jobs.start(job(TALK, replicas=1))
    watcher = Watcher(run)
    watcher.has("10")
    on.cluster.access.end_tokens()
    eventually(lambda: any("your token has expired" in note for note in watcher.notes))
    on.cluster.add_context(on.cluster.name, user="again")  # the user signs in again
    on.open_gate()
    lines = watcher.to_the_end()
    assert written(lines) == TEXTS
    assert run.state == "succeeded"


# --- pods and nodes that end


def disturbed(on: EksPlace, deed: Callable[[dict[str, Any]], object], *, replicas: int, **more: Any) -> Watcher:
    """Do something to the last node's pod once all nodes have written ten lines, and watch the run to its end."""
    watcher = Watcher(jobs.start(job(TALK, replicas=replicas, **more)))
    watcher.has("10", times=replicas)
    deed(on.pods()[replicas - 1])
    if replicas == 1:
        watcher.has("10", times=2)  # it comes again
    on.open_gate()
    watcher.to_the_end()
    return watcher


def test_a_pod_that_is_killed_fails_the_run_and_is_named(on: EksPlace) -> None:
    watcher = disturbed(on, lambda pod: on.control.kill_pod("default", pod["metadata"]["name"]), replicas=2)
    status = watcher.run.status
    assert status.state == "failed", (status, watcher.texts)
    assert status.failure is not None
    assert (status.failure.replica, status.failure.signal) == (1, "SIGKILL"), (status, watcher.texts)
    assert "10" in status.failure.lines
    own = [line for line in watcher.lines if line.replica == 1]
    assert written(own) == TEXTS[:10]


def test_a_pod_that_is_evicted_is_replaced_and_the_run_succeeds(on: EksPlace) -> None:
    """The lines of both starts are there, each once, the first before the second."""
    watcher = disturbed(
        on, lambda pod: on.control.evict("default", pod["metadata"]["name"]), replicas=1, max_restarts=2
    )
    status = watcher.run.status
    assert status.state == "succeeded", (status, watcher.texts)
    assert written(watcher.lines) == [*TEXTS[:10], *TEXTS], watcher.texts
    assert any("was evicted" in note for note in watcher.notes), watcher.notes


def test_a_node_that_is_lost_is_said_and_replaced(on: EksPlace) -> None:
    def lose(pod: dict[str, Any]) -> None:
        on.control.add_nodes(INSTANCE)
        on.control.lose_node(pod["spec"]["nodeName"])

    watcher = disturbed(on, lose, replicas=1, max_restarts=2)
    status = watcher.run.status
    assert status.state == "succeeded", (status, watcher.texts)
    assert written(watcher.lines) == [*TEXTS[:10], *TEXTS], watcher.texts
    assert any("lost" in note for note in watcher.notes), watcher.notes


def test_an_image_that_does_not_come_is_said(on: EksPlace) -> None:
    on.control.around.absent.add("image:1")
    run = jobs.start(job("true"))
    watcher = Watcher(run)
    eventually(lambda: any("image image:1 does not come" in note for note in watcher.notes))
    assert "image image:1 does not come" in (run.status.reason or "")
    assert run.state == "starting"
    assert run.cancel().state == "cancelled"
    watcher.to_the_end()


def test_a_pod_that_finds_no_node_says_why(tmp_path: Path) -> None:
    with eks_place(tmp_path, nodes=1) as on:
        run = jobs.start(job("true", resources={"requests": {"cpu": "3"}}))
        eventually(lambda: "Insufficient cpu" in (run.status.reason or ""))
        assert run.state == "pending"
        on.control.add_nodes(INSTANCE)
        assert run.wait(240).state == "succeeded"


# --- the other kinds of jobs


@pytest.mark.parametrize("kind", ["pyTorchJob", "trainJob", "jobSet"])
def test_runs_of_all_kinds_are_watched_and_end(on: EksPlace, kind: str) -> None:
    """One succeeds, one fails, and one is cancelled: lines, replicas and reports are those of Indexed Jobs."""
    run = jobs.start(job(COMMAND, job_kind=kind))
    lines = list(run.lines(follow=True))
    assert run.state == "succeeded", lines
    for node in (0, 1):
        assert written([line for line in lines if line.replica == node]) == TEXTS
    run.delete()
    # a trainer tries each pod again, and nobody meets the one that comes again
    nodes = 1 if kind == "trainJob" else 2
    failing = f'echo "about to fail"; if [ "$CLOUDTUNE_NODE_RANK" = {nodes - 1} ]; then exit 3; fi; sleep 5'
    run = jobs.start(job(failing, job_kind=kind, replicas=nodes))
    lines = list(run.lines(follow=True))
    assert written([line for line in lines if line.replica == nodes - 1])[0] == "about to fail"
    status = run.wait(240)
    assert status.state == "failed", (status, lines)
    if kind == "trainJob":  # its pods are gone, and nothing is left of them but what was watched
        assert any("ended with exit code 3" in line.text for line in lines), lines
    else:
        assert status.failure is not None, (status, lines)
        assert (status.failure.replica, status.failure.exit_code) == (nodes - 1, 3), status
        assert status.failure.lines[-1] == "about to fail"
    run = jobs.start(job("seq 10; sleep 300", job_kind=kind))
    eventually(lambda: sum(line.text == "10" for line in run.lines()) == 2, within_s=240)
    assert run.cancel().state == "cancelled"
    assert [written([line for line in run.lines() if line.replica == node]) for node in (0, 1)] == [TEXTS[:10]] * 2


# --- the end


def test_a_run_that_is_cancelled_keeps_its_log(on: EksPlace) -> None:
    """Its pods go, and their logs with them: what they wrote is read before that, and their last lines too."""
    run = jobs.start(job("trap 'echo saved; exit 1' TERM; seq 10; while :; do sleep 0.1; done"))
    eventually(lambda: sum(line.text == "10" for line in run.lines()) == 2)
    assert run.cancel().state == "cancelled"
    eventually(lambda: on.things("Pod") == [])
    for node in (0, 1):
        own = written([line for line in runs.get(run.id).lines() if line.replica == node])
        assert own == [*TEXTS[:10], "saved"]
    assert run.exit_code == 103
    run.delete()
    with pytest.raises(RunNotFound):
        runs.get(run.id)


def test_a_job_of_others_is_watched(on: EksPlace) -> None:
    """By its name alone, without cloudtune's agent: lines are labelled by the pods' indexes."""
    script = 'echo "here is $JOB_COMPLETION_INDEX"; sleep 1; echo bye >&2'
    container = {"name": "main", "image": "image:1", "command": ["/bin/sh", "-c", script]}
    spec = {
        "completionMode": "Indexed",
        "completions": 2,
        "parallelism": 2,
        "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
    }
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "theirs", "namespace": "default"}}
    client = places.client_of(EksBackend())
    client.send(Call(service=SERVICE, operation="create", parameters={**body, "spec": spec}))
    lines = list(runs.get("default/job/theirs").lines(follow=True))
    told = {(line.replica, line.text) for line in lines if line.stream == "stdout"}
    assert told == {(node, text) for node in (0, 1) for text in (f"here is {node}", "bye")}
    found = runs.get("default/theirs")
    assert (found.state, found.exit_code) == ("succeeded", 0)
    with pytest.raises(RunNotFound):
        runs.get("default/nobody")
    found.delete()
    eventually(lambda: on.things("Job") == [])


def test_a_job_in_a_queue_says_why_it_waits_and_is_cancelled_there(on: EksPlace) -> None:
    api = "kueue.x-k8s.io/v1beta1"
    covered = [{"name": name, "nominalQuota": quota} for name, quota in (("cpu", "4"), ("memory", "64Gi"))]
    group = {"coveredResources": ["cpu", "memory"], "flavors": [{"name": "default", "resources": covered}]}
    spec = {"namespaceSelector": {}, "resourceGroups": [group]}
    on.cluster.objects.create({"apiVersion": api, "kind": "ResourceFlavor", "metadata": {"name": "default"}})
    on.cluster.objects.create({"apiVersion": api, "kind": "ClusterQueue", "metadata": {"name": "all"}, "spec": spec})
    meta = {"name": "team", "namespace": "default"}
    on.cluster.objects.create(
        {"apiVersion": api, "kind": "LocalQueue", "metadata": meta, "spec": {"clusterQueue": "all"}}
    )
    first = jobs.start(job("sleep 300", replicas=1, queue="team"))
    eventually(lambda: first.state == "running")
    second = jobs.start(job(COMMAND, replicas=1, queue="team"))
    eventually(lambda: "waits in queue team" in (second.status.reason or ""))
    assert second.state == "pending"
    assert first.cancel().state == "cancelled"
    eventually(lambda: not [pod for pod in on.things("Pod") if first.id in pod["metadata"]["name"]])
    assert second.wait(240).state == "succeeded"  # the quota is free again
    assert first.state == "cancelled"
