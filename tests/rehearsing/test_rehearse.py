"""Whole rehearsals by the command line: what is shown, what is kept, and that nothing stays, however they end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cloudtune
from cloudtune.errors import MissingExtra
from cloudtune.node import processes
from cloudtune.rehearsal.identity import Identity
from cloudtune.rehearsal.isolation import Isolation
from cloudtune.rehearsal.stage import Stage
from cloudtune.rehearsing import clouds, ground
from tests.cli.calling import call
from tests.rehearsal.conftest import namespaces  # noqa: F401 - a fixture

pytest.importorskip("oci", reason="the oci SDK is not installed")

PLACE = """
    kind: infrastructure
    type: dataScienceJob
    spec:
      compartmentId: ocid1.compartment.oc1..xxxxxxxxxxxx
      projectId: ocid1.datascienceproject.oc1.iad.xxxxxxxxxxxx
      logGroupId: ocid1.loggroup.oc1.iad.xxxxxxxxxxxx
      shapeName: VM.Standard2.1
      blockStorageSize: 50
"""


def job(folder: Path, command: str, *, nodes: int = 1, more: str = "") -> Path:
    """Write a job file for Oracle Cloud in which nothing is filled in."""
    file = folder / "job.yaml"
    file.write_text(
        f"kind: job\nspec:\n  name: hello\n  infrastructure:{PLACE}  runtime:\n    kind: runtime\n"
        f"    type: pyTorchDistributed\n    spec:\n      replicas: {nodes}\n      processesPerNode: 1\n"
        f"      command: {json.dumps(command)}\n{more}"
    )
    return file


@pytest.fixture
def user(tmp_path: Path, home: Path) -> dict[str, str]:
    """Return the variables of a user who has credentials that nobody must see."""
    own = tmp_path / "user"
    (own / ".oci").mkdir(parents=True)
    (own / ".oci" / "config").write_text("[DEFAULT]\nuser=real\n")
    (own / "hub").mkdir()
    (own / "hub" / "model").write_text("from the Hub\n")
    return {
        **os.environ,
        "HOME": str(own),
        "HF_HUB_CACHE": str(own / "hub"),
        "AWS_SECRET_ACCESS_KEY": "real-secret-of-the-user",
        "OCI_CLI_USER": "real",
        "http_proxy": "http://127.0.0.1:9",
    }


@pytest.fixture
def started(user: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give a way to start the command; what is left of it is ended after the test."""
    begun: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _CALL, "rehearse", *words],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=user,
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


#: The command, with Ctrl-C as in a terminal also where this process ignores it.
_CALL = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "cloudtune"
from cloudtune.cli import main
main()
"""


def line_with(process: subprocess.Popen[str], text: str) -> str:
    """Return the first line of the output that has a text in it."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"it ended without {text!r}: {process.stderr.read() if process.stderr else ''}")


def rehearsed_processes(home: Path) -> list[list[str]]:
    """Return the command lines of processes that have to do with a home's rehearsals: nodes, drivers, servers."""
    found = []
    for pid in processes.table():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
            if str(home / "rehearsals") in words + Path(f"/proc/{pid}/environ").read_text(errors="replace"):
                found.append(words.split("\0"))
    return found


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.usefixtures("namespaces")
def test_a_job_runs_in_its_cloud_and_nothing_stays(
    tmp_path: Path, home: Path, user: dict[str, str], started: Callable[..., subprocess.Popen[str]]
) -> None:
    command = (
        'echo "node $CLOUDTUNE_NODE_RANK of $CLOUDTUNE_NUM_NODES at $HOME, secret ${AWS_SECRET_ACCESS_KEY:-none}"; '
        'cat input/words.txt; cat "$HF_HUB_CACHE/model"; ls -A "$HOME"; echo kept > "$CLOUDTUNE_OUTPUT_DIR/kept.txt"'
    )
    more = (
        "      inputs: {oci://<bucket>@<namespace>/given: input}\n"
        "      outputUri: oci://<bucket>@<namespace>/hello\n"
        "      env: [{name: FROM_VAULT, secret: <the ocid of a secret>}]\n"
    )
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "words.txt").write_text("given before\n")
    file = job(tmp_path, command, nodes=3, more=more)
    put = f"oci://bucket@namespace/given={tmp_path / 'given'}"
    kept = tmp_path / "kept"
    done = started("-f", str(file), "--nodes", "2", "--put", put, "-o", str(kept), "-o", "json")
    out, talk = done.communicate(timeout=120)
    assert done.returncode == 0, talk
    found = json.loads(out)
    assert found["rehearsed"]
    assert found["run"]["state"] == "succeeded"
    for node in (0, 1):
        assert talk.count(f"node {node} of 2 at /home/datascience, secret none") == 1, talk
    assert talk.count("given before") == talk.count("from the Hub") == 2
    counts = {one["operation"]: one["count"] for one in found["asked"]}
    assert (counts["create_job"], counts["create_job_run"], counts["get_secret_bundle"]) == (1, 1, 2)
    assert counts["search_logs"] > 0
    assert "oci://bucket@namespace/hello/node-1/kept.txt" in {one["uri"] for one in found["left"]}
    assert (kept / "files" / "bucket@namespace" / "hello" / "kept.txt").read_text() == "kept\n"
    (log,) = (kept / "logs").iterdir()
    assert "node 1 of 2" in log.read_text()
    calls = [json.loads(line) for line in (kept / "calls.jsonl").read_text().splitlines()]
    assert len(calls) == sum(one["count"] for one in found["asked"])
    assert list((home / "rehearsals").iterdir()) == []
    assert rehearsed_processes(home) == []
    assert cloudtune.list() == []
    assert (Path(user["HOME"]) / ".oci" / "config").read_text() == "[DEFAULT]\nuser=real\n"
    assert {path.name for path in Path(user["HOME"]).rglob("*")} == {".oci", "config", "hub", "model"}


@pytest.mark.usefixtures("namespaces")
def test_a_job_that_fails_says_who_failed_and_how_often_the_cloud_was_asked(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    file = job(tmp_path, "echo about to fail; exit 3")
    done = started("-f", str(file), "--shell", "-o", str(tmp_path / "kept"))
    # the shell is opened also then, and sees the rehearsal alone
    ours = f'"{sys.executable}" -m cloudtune'
    look = f'{ours} doctor -f "$REHEARSED" -o json'
    # what is deleted there has ended nevertheless
    delete = f"{ours} delete $({ours} list | sed -n '2s/\t.*//p')"
    out, talk = done.communicate(f"cat ~/.oci/config; {look}; {delete}\n", 120)
    assert done.returncode == 100, talk
    assert "[0/0] about to fail" in out
    assert "fingerprint=" in out
    assert "user=real" not in out
    looked = json.loads(out[out.index("{") : out.rindex("}") + 1])
    assert [one for one in looked["findings"] if one["status"] == "problem"] == []
    assert any("API key" in one["message"] for one in looked["findings"] if one["check"] == "oci")
    assert "oci.data_science: create_job 1, get_job" in out
    assert "first to fail: replica 0, rank 0, ended with exit code 3" in talk
    assert "--resume" not in talk
    assert " deleted" in talk
    assert "rehearsed: failed; all of it is taken down" in talk
    (log,) = (tmp_path / "kept" / "logs").iterdir()
    assert "about to fail" in log.read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)], ids=["INT", "HUP"])
@pytest.mark.usefixtures("namespaces")
def test_interrupted_it_takes_everything_down(
    tmp_path: Path, home: Path, started: Callable[..., subprocess.Popen[str]], number: int, code: int
) -> None:
    process = started("-f", str(job(tmp_path, "echo it runs; sleep 300")))
    line_with(process, "it runs")
    process.send_signal(number)
    _, talk = process.communicate(timeout=240)
    assert process.returncode == code, talk
    assert list((home / "rehearsals").iterdir()) == []
    assert rehearsed_processes(home) == []


@pytest.mark.usefixtures("namespaces")
def test_killed_its_nodes_end_and_the_next_one_clears_up(
    tmp_path: Path, home: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    step = "  - {name: j, job: {runtime: {type: pyTorchDistributed, spec: {command: echo it runs; sleep 300}}}}\n"
    file = tmp_path / "pipeline.yaml"
    file.write_text(f"kind: pipeline\nspec:\n  name: p\n  infrastructure:{PLACE}  steps:\n{step}")
    process = started("-f", str(file))
    line_with(process, "it runs")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # the nodes are gone with it; what drives the pipeline is this machine's, and does not know yet
    wait_until(lambda: not [words for words in rehearsed_processes(home) if "cloudtune.conductor" not in words])
    (left,) = (home / "rehearsals").iterdir()
    identity = Path((left / ground.IDENTITY).read_text())
    assert identity.is_dir()
    assert ground.clear() == (left,)
    assert list((home / "rehearsals").iterdir()) == []
    assert not identity.exists()
    assert rehearsed_processes(home) == []


def test_objects_whose_names_are_no_paths_are_told_and_not_kept(tmp_path: Path) -> None:
    from cloudtune.rehearsing import rehearse
    from cloudtune.rehearsing.clouds import Left

    names = ("a", "a/b", "c/", "../../../out", "d//e", "f/g")

    class Cloud:
        def left(self) -> Iterator[Left]:
            return (Left(uri=f"oci://b@n/{name}", bytes=1) for name in names)

        def fetch(self, _uri: str, target: Path) -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("x")

    with Stage(tmp_path / "cloud") as stage:
        scene: Any = rehearse._Scene(folder=tmp_path / "scene", stage=stage, clouds=(Cloud(),))  # type: ignore[arg-type]
        said: list[str] = []
        rehearse._keep(scene, {"r": ""}, tmp_path / "kept", said.append)
    kept = {
        path.relative_to(tmp_path / "kept" / "files").as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.is_relative_to(tmp_path / "kept" / "files")
    }
    assert kept == {"b@n/a", "b@n/f/g"}
    assert [line.partition(" ")[0] for line in said] == [f"oci://b@n/{name}" for name in names[1:5]]
    assert not list(tmp_path.rglob("out"))


def test_a_rehearsal_that_goes_on_is_left_alone(home: Path) -> None:
    with ground.ground() as mine:
        assert ground.clear() == ()
        assert mine.is_dir()
        with ground.ground() as other:
            assert other != mine
    assert list((home / "rehearsals").iterdir()) == []


def test_where_nodes_cannot_be_it_says_so_before_anything_begins(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> Isolation:
        raise cloudtune.UsageError("this machine does not let nodes be", hint="allow it")

    monkeypatch.setattr("cloudtune.rehearsing.rehearse.isolation", none)
    answer = call("rehearse", "-f", str(job(tmp_path, "true")))
    assert answer.code == 2
    assert "does not let nodes be" in answer.err
    assert not (home / "rehearsals").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--put", "nothing"), "names no place and what goes there"),
        (("--put", "nothing"), "such as s3://bucket/folder=FOLDER"),
        (("--put", "oci://b@n/x=/not/there"), "there is no /not/there"),
        (("--put", "s3://other/rows=nope.jsonl"), "--put s3://other/rows=PATH"),
        (("--put", "s3://other/rows="), "--put s3://other/rows=PATH"),
        (("-o", "."), "is there already"),
        (("-o", "."), "name a folder that is not there yet, or remove it"),
        (("job.yaml", "-f", "job.yaml"), "name one job"),
        ((), "name one job"),
    ],
)
@pytest.mark.usefixtures("namespaces")
def test_wrong_words_are_refused_before_anything_begins(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file: tuple[Any, ...] = ("-f", str(job(tmp_path, "true"))) if words and "job.yaml" not in words else ()
    answer = call("rehearse", *file, *words)
    assert answer.code == 2
    assert message in answer.err
    assert not (home / "rehearsals").exists()


@pytest.mark.parametrize(
    ("kind", "lacking", "extras"),
    [
        ("dataScienceJob", "oci", "oci,rehearse"),
        ("sageMakerTrainingJob", "moto", "aws,rehearse"),
        ("eksJob", "botocore", "aws,eks,rehearse"),
    ],
)
def test_who_lacks_a_package_is_told_all_that_a_rehearsal_needs(
    kind: str, lacking: str, extras: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, lacking, None)
    around = clouds.Surroundings(texts=(), online=False)
    with Identity() as identity, Stage(tmp_path / "cloud") as stage, pytest.raises(MissingExtra) as caught:
        clouds.stage(kind, stage, identity, around)
    assert caught.value.hint == f'pip install "cloudtune[{extras}]"'
