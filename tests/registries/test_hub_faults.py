"""Filing on the Hub when connections break, processes die, or somebody else is at work there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import cloudtune
from cloudtune.errors import ServiceError
from cloudtune.registries import source
from tests.registries.filing import COMMIT, file, run, weights_of
from tests.registries.hub import CUT
from tests.registries.models import described, in_memory, merged, safetensors

# the library hands files to its HTTP client in a way that the client calls old
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def model(tmp_path):
    return described(merged(tmp_path / "merged"))


def test_a_connection_that_is_cut_is_tried_again(model, hub):
    (model / "model.safetensors").write_bytes(safetensors(bytes(200_000)))
    hub.faults["PUT /store"] = [CUT]
    said = run("register", described(model), "--to", "hub", "--name", "ann/clerk")
    assert "Retrying" in said
    assert "X-Amz-Signature" not in said
    assert hub.sent() == weights_of(model)


def test_what_was_sent_before_an_interruption_is_not_sent_again(model, hub):
    (model / "model-2.safetensors").write_bytes(safetensors(bytes(5000)))
    sums = weights_of(model)
    hub.faults[f"PUT /store/ann/clerk/{sums[0]}"] = [400]
    with pytest.raises(ServiceError):
        file(described(model))
    assert hub.repos["ann/clerk"].tags == {}
    assert set(hub.repos["ann/clerk"].files) == {".gitattributes"}
    assert set(hub.sent()) <= {sums[1]}
    assert file(model).version == "1"
    assert sorted(hub.sent()) == sorted(sums)


@pytest.mark.parametrize(("moment", "then"), [("before", CUT), ("after", None)])
def test_a_process_that_is_killed_at_its_commit_is_continued(moment, then, model, hub):
    started = subprocess.Popen([sys.executable, "-m", "cloudtune", "register", model, "--to=hub", "--name=ann/clerk"])

    def kill():
        os.kill(started.pid, signal.SIGKILL)
        return then

    hub.faults[COMMIT] = [kill]
    assert started.wait(240) == -signal.SIGKILL
    repo = hub.repos["ann/clerk"]
    assert set(repo.store) == set(hub.sent()) == set(weights_of(model))
    assert file(model).version == "1"
    assert len(hub.sent()) == 1
    assert hub.commits() == 1
    assert repo.tags == {"1": repo.head}
    assert "model.safetensors" in repo.files


def test_what_was_fetched_is_not_fetched_again(model, hub, home, monkeypatch):
    fetched, chunks = [], source.Source.chunks
    monkeypatch.setattr(
        source.Source, "chunks", lambda self, entry: (fetched.append(entry.path), chunks(self, entry))[1]
    )
    hub.faults[COMMIT] = [500]
    with in_memory(model, "bucket/again") as uri:
        with pytest.raises(ServiceError):
            file(uri)
        assert len(fetched) == 3
        assert file(uri).version == "1"
    assert len(fetched) == 3
    assert list((home / "hub" / "ann--clerk").iterdir()) == []


KILLED = """
import os, signal, sys
import cloudtune
from cloudtune.registries import source, workplace

def write(file, chunk, *, write=workplace._write, count=[]):
    count.append(1)
    if len(count) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    write(file, chunk)

source._WORKERS, workplace._write = 1, write
cloudtune.register(sys.argv[1], name="copy")
"""


def test_a_process_that_is_killed_while_it_fetches_is_continued(model, hub, home):
    filed = file(model)
    assert subprocess.run([sys.executable, "-c", KILLED, filed.uri], check=False).returncode == -signal.SIGKILL
    hub.requests.clear()
    run("register", filed.uri, "--name", "copy")
    (copy,) = cloudtune.models("copy")
    assert copy.checksums == filed.checksums
    fetched = [one.rpartition("/")[2] for one in hub.requests if "/resolve/" in one]
    assert "model.safetensors" in fetched
    assert "config.json" not in fetched
    assert [path.name for path in (home / "models" / "copy").iterdir()] == ["1"]


@pytest.mark.parametrize("path", ["model.safetensors", "config.json", "model.json"])
def test_a_file_that_the_hub_keeps_otherwise_is_noticed(path, model, hub):
    hub.spoilt = {path}
    with pytest.raises(ServiceError, match=rf"does not hold what was sent, at commit \w+: {path}"):
        file(model)
    assert hub.repos["ann/clerk"].tags == {}
    assert cloudtune.models() == ()
    hub.spoilt = set()
    filed = file(model)
    assert hub.repos["ann/clerk"].tags == {filed.version: hub.repos["ann/clerk"].head}
    assert hub.repos["ann/clerk"].files[path].data != b""


def test_a_file_that_changes_while_it_is_sent_is_refused(model, hub):
    hub.faults["/objects/batch"] = [lambda: (model / "model.safetensors").write_bytes(b"changed") and None]
    with pytest.raises(ServiceError, match="did not match"):
        file(model)
    assert hub.commits() == 0


def test_others_may_commit_in_between(model, hub):
    repo = hub.repo("ann/clerk")

    def somebody_commits():
        repo.commit({**repo.files, f"note-{len(repo.commits)}.txt": repo.files[".gitattributes"]})

    hub.faults[COMMIT] = [somebody_commits, somebody_commits]
    filed = file(model)
    assert repo.tags == {"1": filed.uri.partition("@")[2]}
    assert {"note-1.txt", "note-2.txt", "model.safetensors"} < set(repo.files)
    assert len(hub.sent()) == 1
    hub.faults[COMMIT] = [somebody_commits] * 9
    (model / "config.json").write_text("[]")
    with pytest.raises(ServiceError, match="somebody else kept changing it"):
        file(described(model))
