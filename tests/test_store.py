"""The record of runs: what is kept, many processes at once, damage."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtune.errors import CloudtuneError, RunNotFound
from cloudtune.store import Deployment, Model, Record, Store, new_run_id


def record(run_id: str, **more: object) -> Record:
    values: dict[str, object] = {"name": "n", "backend": "local", "state": "pending", "created": 1.0, "updated": 1.0}
    return Record(id=run_id, **{**values, **more})  # type: ignore[arg-type]


def test_a_run_comes_back_as_it_was() -> None:
    store = Store()
    kept = record("abcdefgh", spec="kind: job", failure={"replica": 1}, outputs=("file:///x",), parent="p")
    store.add_run(kept)
    assert store.run("abcdefgh") == kept
    store.update_run("abcdefgh", state="failed", failure={"rank": 3}, outputs=["a", "b"])
    changed = store.run("abcdefgh")
    assert (changed.state, changed.failure, changed.outputs) == ("failed", {"rank": 3}, ("a", "b"))
    assert changed.updated > 1.0


def test_a_run_is_changed_only_as_long_as_it_is_what_it_was() -> None:
    store = Store()
    store.add_run(record("abcdefgh", state="running"))
    assert not store.update_run("abcdefgh", was="pending", state="cancelled")
    assert store.run("abcdefgh").state == "running"
    assert store.update_run("abcdefgh", was="running", state="succeeded")
    assert store.run("abcdefgh").state == "succeeded"


def test_an_id_is_never_given_twice() -> None:
    store = Store()
    store.add_run(record("abcdefgh"))
    with pytest.raises(CloudtuneError, match="exists already"):
        store.add_run(record("abcdefgh"))


def test_a_run_is_found_by_a_unique_beginning() -> None:
    store = Store()
    store.add_run(record("abcdefgh"))
    store.add_run(record("abxyz123"))
    store.add_run(record("abcdefgh-train", parent="abcdefgh"))
    assert store.find("abcdefgh").id == "abcdefgh"  # type: ignore[union-attr]
    assert store.find("abx").id == "abxyz123"  # type: ignore[union-attr]
    assert store.find("abcdefgh-train").id == "abcdefgh-train"  # type: ignore[union-attr]
    assert store.find("q") is None
    with pytest.raises(RunNotFound, match="several runs"):
        store.find("ab")


def test_ids_fit_names_of_all_services() -> None:
    ids = {new_run_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(len(one) == 8 and one[0].isalpha() and one.islower() and one.isalnum() for one in ids)


def test_models_and_deployments_come_back() -> None:
    store = Store()
    model = Model(
        name="m", version="1", uri="/x", base="b", run="r", checksums={"a": "1"}, metrics={"loss": 1.5}, created=2.0
    )
    store.add_model(model)
    assert store.models("m") == (model,)
    store.add_deployment(Deployment(name="d", backend="local", model="m", created=3.0, details={"port": 1}))
    with pytest.raises(CloudtuneError, match="exists already"):
        store.add_deployment(Deployment(name="d", backend="local", model="m"))
    store.remove_deployment("d")
    store.remove_model(model)
    assert store.deployments() == ()
    assert store.models() == ()


def test_a_record_of_the_first_version_is_taken_over(home: Path) -> None:
    Store().add_model(Model(name="m", version="1", uri="/x", details={"compartment": "c"}, created=2.0))
    with sqlite3.connect(home / "store.db") as db:
        db.execute("ALTER TABLE models DROP COLUMN details")
        db.execute("PRAGMA user_version = 1")
    db.close()
    assert Store().models() == (Model(name="m", version="1", uri="/x", created=2.0),)
    again = Model(name="m", version="2", uri="/y", details={"compartment": "d"}, created=3.0)
    Store().add_model(again)
    assert Store().models()[0] == again


def test_forgetting_a_run_forgets_its_steps() -> None:
    store = Store()
    store.add_run(record("abcdefgh"))
    store.add_run(record("abcdefgh-a", parent="abcdefgh"))
    store.write_journal("abcdefgh-a", "run", "done", {"id": 1})
    store.remove_run("abcdefgh")
    assert store.runs() == ()
    assert store.journal("abcdefgh-a") == {}


def test_a_damaged_file_says_what_to_do(home: Path) -> None:
    home.mkdir()
    (home / "store.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(CloudtuneError, match="no record of runs"):
        Store().runs()


def test_a_newer_file_is_left_alone(home: Path) -> None:
    Store().runs()
    with sqlite3.connect(home / "store.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(CloudtuneError, match="newer cloudtune"):
        Store().runs()


WORK = """
import sys
from cloudtune.store import Record, Store, new_run_id
store = Store()
number = sys.argv[1]
for turn in range(3):
    ids = [new_run_id() for _ in range(2)]
    for run_id in ids:
        store.add_run(Record(id=run_id, name=number, backend="local", state="pending", created=1.0, updated=1.0))
        store.write_journal(run_id, "run", "intent")
        store.write_journal(run_id, "run", "done", {"runId": run_id})
        store.update_run(run_id, state="succeeded")
    assert {run_id for run_id in ids} <= {one.id for one in store.runs()}
    store.remove_run(ids[0])
    assert ids[1] in {one.id for one in store.runs()}
print("kept", 3)
"""


def test_a_hundred_processes_at_once() -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, str(number)],
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for number in range(100)
    ]
    for worker in workers:
        said, _ = worker.communicate(timeout=240)
        assert worker.returncode == 0, said.decode()
    store = Store()
    runs = store.runs()
    assert len(runs) == 300
    assert {one.state for one in runs} == {"succeeded"}
    assert all(store.journal(one.id)["run"].phase == "done" for one in runs[:20])
    for one in runs[:10]:
        store.remove_run(one.id)
    assert len(store.runs()) == 290
