"""The record of every run, model and deployment: one SQLite file in the user's home of cloudtune.

A rollback journal (homes are often on NFS, where a write-ahead log cannot be shared), ``BEGIN IMMEDIATE`` for every
change and a busy time-out let many processes work at once. Logs and heartbeats are not kept here.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import string
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from cloudtune.errors import CloudtuneError, RunNotFound
from cloudtune.home import home
from cloudtune.html import table

VERSION = 2
#: Seconds that a process waits for others before it gives up; a hundred writers need a few.
BUSY_S = 60.0
_SCHEMA = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, backend TEXT NOT NULL, parent TEXT, step TEXT, folder TEXT,
    state TEXT NOT NULL, reason TEXT,
    created REAL NOT NULL, updated REAL NOT NULL, handle TEXT, spec TEXT, plan TEXT, failure TEXT, outputs TEXT
);
CREATE INDEX runs_by_time ON runs (created);
CREATE TABLE journal (
    run TEXT NOT NULL, step TEXT NOT NULL, phase TEXT NOT NULL, reply TEXT, at REAL NOT NULL, PRIMARY KEY (run, step)
);
CREATE TABLE models (
    name TEXT NOT NULL, version TEXT NOT NULL, uri TEXT NOT NULL, base TEXT, run TEXT, checksums TEXT, metrics TEXT,
    created REAL NOT NULL, details TEXT, PRIMARY KEY (name, version)
);
CREATE TABLE deployments (
    name TEXT PRIMARY KEY, backend TEXT NOT NULL, model TEXT NOT NULL, url TEXT, created REAL NOT NULL, details TEXT
);
"""
#: What makes a record of each earlier version one of the next.
_LATER = {1: "ALTER TABLE models ADD COLUMN details TEXT"}
_LETTERS, _ALNUM = string.ascii_lowercase, string.ascii_lowercase + string.digits


def new_run_id() -> str:
    """Return a fresh run id: eight characters, the first a letter."""
    return secrets.choice(_LETTERS) + "".join(secrets.choice(_ALNUM) for _ in range(7))


@attrs.frozen(kw_only=True)
class Record:
    """What is known of a run.

    ``created`` and ``updated`` are seconds since the epoch; ``handle`` is the URI of the place's handle; ``parent`` and
    ``step`` name the pipeline and its step; ``folder`` is where the user stood, from which relative paths start.
    """

    id: str
    name: str
    backend: str
    state: str
    created: float
    updated: float
    parent: str | None = None
    step: str | None = None
    folder: str | None = None
    reason: str | None = None
    handle: str | None = None
    spec: str | None = None
    plan: str | None = None
    failure: Mapping[str, Any] | None = None
    outputs: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Entry:
    """How far a step has come: ``intent`` (about to be sent), ``sent`` (not yet settled), ``done`` or ``undone``.

    ``at`` is since when, in seconds since the epoch.
    """

    step: str
    phase: str
    reply: Mapping[str, Any] | None
    at: float | None = None


@attrs.frozen(kw_only=True)
class Model:
    """A registered model: where it lies, which base and run it came from, its checksums (sha256) and metrics.

    ``details`` are the registry's own: whose the model is in a cloud, and the infrastructure that said so.
    """

    name: str
    version: str
    uri: str
    base: str | None = None
    run: str | None = None
    checksums: Mapping[str, str] = attrs.field(factory=dict)
    metrics: Mapping[str, Any] = attrs.field(factory=dict)
    created: float = 0.0
    details: Mapping[str, Any] = attrs.field(factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the model as ``list --models -o json`` shows it."""
        data = attrs.asdict(self)
        del data["created"], data["details"]
        return data

    def _repr_html_(self) -> str:
        return table(f"Model {self.name}:{self.version}", ("", ""), [*self.to_dict().items()])


@attrs.frozen(kw_only=True)
class Deployment:
    """A place where a model answers; ``details`` are the backend's own (process, port, endpoint name)."""

    name: str
    backend: str
    model: str
    url: str | None = None
    created: float = 0.0
    details: Mapping[str, Any] = attrs.field(factory=dict)


class Store:
    """The record in one folder; cheap to make, opened for each call, safe between processes."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = home() if folder is None else folder

    # --- runs

    def add_run(self, record: Record) -> None:
        """Keep a new run; raises CloudtuneError if the id is taken."""
        with self._change() as db:
            try:
                db.execute(
                    "INSERT INTO runs (id, name, backend, parent, step, folder, state, reason, created, updated,"
                    " handle, spec, plan, failure, outputs) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    _run_row(record),
                )
            except sqlite3.IntegrityError as error:
                raise CloudtuneError(
                    f"run {record.id} exists already", hint="submit again: a new id is drawn"
                ) from error

    def update_run(self, run_id: str, *, was: str | None = None, **changes: Any) -> bool:
        """Change columns of a run: state, reason, handle, failure, outputs, plan; return whether it was done.

        With ``was`` only if that is the run's state still: others may have changed it since it was read.
        """
        changes["updated"] = time.time()
        for name in ("failure", "outputs"):
            if name in changes:
                changes[name] = json.dumps(changes[name])
        columns = ", ".join(f"{name} = :{name}" for name in changes)
        with self._change() as db:
            done = db.execute(
                f"UPDATE runs SET {columns} WHERE id = :id AND (:was IS NULL OR state = :was)",  # noqa: S608
                {**changes, "id": run_id, "was": was},
            )
        return bool(done.rowcount)

    def settle_submission(self, run_id: str, handle: str) -> bool:
        """Record that the run is fully submitted; False if it was cancelled meanwhile (then it stays cancelled)."""
        with self._change() as db:
            db.execute("UPDATE runs SET handle = ?, updated = ? WHERE id = ?", (handle, time.time(), run_id))
            changed = db.execute(
                "UPDATE runs SET state = 'starting', reason = NULL WHERE id = ? AND state = 'pending'", (run_id,)
            ).rowcount
            kept = db.execute("SELECT state FROM runs WHERE id = ?", (run_id,)).fetchone()
        return bool(changed) or (kept is not None and kept["state"] != "cancelled")

    def run(self, run_id: str) -> Record:
        """Return the run with exactly this id."""
        with self._open() as db:
            row = db.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone()
        if row is None:
            raise RunNotFound(f"there is no run {run_id}", hint="cloudtune list shows all runs")
        return _record(row)

    def find(self, text: str) -> Record | None:
        """Return the run whose id is the text or, if there is just one, begins with it."""
        with self._open() as db:
            rows = db.execute(
                "SELECT * FROM runs WHERE id = :text OR (substr(id, 1, length(:text)) = :text AND parent IS NULL)"
                " ORDER BY id = :text DESC, created DESC LIMIT 5",
                {"text": text},
            ).fetchall()
        if not text or not rows:
            return None
        if rows[0]["id"] != text and len(rows) > 1:
            ids = ", ".join(row["id"] for row in rows)
            raise RunNotFound(f"{text} is the beginning of several runs: {ids}", hint="give more of the id")
        return _record(rows[0])

    def runs(self, *, parent: str | None = None, limit: int | None = None) -> tuple[Record, ...]:
        """Return the runs, newest first: all that have no parent, or the children of one, oldest first."""
        where, order = ("parent = ?", "ASC") if parent else ("parent IS NULL", "DESC")
        query = f"SELECT * FROM runs WHERE {where} ORDER BY created {order}, id LIMIT ?"  # noqa: S608
        values = ([parent] if parent else []) + [-1 if limit is None else limit]
        with self._open() as db:
            return tuple(_record(row) for row in db.execute(query, values))

    def remove_run(self, run_id: str) -> None:
        """Forget a run, its journal and its children."""
        with self._change() as db:
            for (child,) in db.execute("SELECT id FROM runs WHERE parent = ?", (run_id,)).fetchall():
                db.execute("DELETE FROM journal WHERE run = ?", (child,))
            db.execute("DELETE FROM journal WHERE run = ?", (run_id,))
            db.execute("DELETE FROM runs WHERE id = ? OR parent = ?", (run_id, run_id))

    # --- journal

    def journal(self, run_id: str) -> dict[str, Entry]:
        """Return the journal of a run by step."""
        with self._open() as db:
            rows = db.execute("SELECT * FROM journal WHERE run = ? ORDER BY at", (run_id,)).fetchall()
        return {
            row["step"]: Entry(
                step=row["step"],
                phase=row["phase"],
                reply=json.loads(row["reply"]) if row["reply"] else None,
                at=row["at"],
            )
            for row in rows
        }

    def write_journal(self, run_id: str, step: str, phase: str, reply: Mapping[str, Any] | None = None) -> None:
        """Record how far a step has come; on disk when the call returns."""
        with self._change() as db:
            db.execute(
                "INSERT INTO journal (run, step, phase, reply, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (run, step)"
                " DO UPDATE SET phase = excluded.phase, reply = excluded.reply",
                (run_id, step, phase, None if reply is None else json.dumps(reply), time.time()),
            )

    def forget_journal(self, run_id: str) -> None:
        """Forget how far a submission has come: it begins anew."""
        with self._change() as db:
            db.execute("DELETE FROM journal WHERE run = ?", (run_id,))

    # --- models and deployments

    def add_model(self, model: Model) -> None:
        """Keep a registered model; a second one of the same name and version replaces the first."""
        with self._change() as db:
            db.execute(
                "INSERT OR REPLACE INTO models (name, version, uri, base, run, checksums, metrics, created, details)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    model.name,
                    model.version,
                    model.uri,
                    model.base,
                    model.run,
                    json.dumps(dict(model.checksums)),
                    json.dumps(dict(model.metrics)),
                    model.created or time.time(),
                    json.dumps(dict(model.details)),
                ),
            )

    def models(self, name: str | None = None) -> tuple[Model, ...]:
        """Return the registered models, newest first."""
        with self._open() as db:
            rows = db.execute(
                "SELECT * FROM models WHERE ?1 IS NULL OR name = ?1 ORDER BY created DESC", (name,)
            ).fetchall()
        texts = ("checksums", "metrics", "details")
        return tuple(Model(**{**dict(row), **{name: json.loads(row[name] or "{}") for name in texts}}) for row in rows)

    def remove_model(self, model: Model) -> None:
        """Forget a model."""
        with self._change() as db:
            db.execute("DELETE FROM models WHERE name = ? AND version = ?", (model.name, model.version))

    def add_deployment(self, deployment: Deployment) -> None:
        """Keep a deployment; one of the same name is an error."""
        with self._change() as db:
            try:
                db.execute("INSERT INTO deployments VALUES (?, ?, ?, ?, ?, ?)", _deployment_row(deployment))
            except sqlite3.IntegrityError as error:
                hint = f"cloudtune delete {deployment.name}, or give --name"
                raise CloudtuneError(f"deployment {deployment.name} exists already", hint=hint) from error

    def replace_deployment(self, deployment: Deployment) -> None:
        """Keep what is known of a deployment now, in place of what was known."""
        with self._change() as db:
            db.execute("INSERT OR REPLACE INTO deployments VALUES (?, ?, ?, ?, ?, ?)", _deployment_row(deployment))

    def deployments(self, name: str | None = None) -> tuple[Deployment, ...]:
        """Return the deployments, newest first."""
        with self._open() as db:
            rows = db.execute(
                "SELECT * FROM deployments WHERE ?1 IS NULL OR name = ?1 ORDER BY created DESC", (name,)
            ).fetchall()
        return tuple(Deployment(**{**dict(row), "details": json.loads(row["details"])}) for row in rows)

    def remove_deployment(self, name: str) -> None:
        """Forget a deployment."""
        with self._change() as db:
            db.execute("DELETE FROM deployments WHERE name = ?", (name,))

    # --- the file

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        path = self.folder / "store.db"
        db: sqlite3.Connection | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
            db.row_factory = sqlite3.Row
            if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                self._migrate(db)
            yield db
        except sqlite3.IntegrityError:
            raise
        except (sqlite3.OperationalError, OSError) as error:
            hint = "is the disk full, the folder read-only, or another cloudtune stuck? CLOUDTUNE_HOME names another"
            raise CloudtuneError(f"the record of runs at {path} cannot be used: {error}", hint=hint) from error
        except sqlite3.DatabaseError as error:
            hint = "move the file away; runs in clouds go on and are reached by the cloud's own ids"
            raise CloudtuneError(f"{path} is no record of runs: {error}", hint=hint) from error
        finally:
            if db is not None:
                db.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # a full disk has ended it already
                    db.execute("ROLLBACK")
                raise

    def _migrate(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")  # two first users at once: the second finds the work done
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            db.execute("ROLLBACK")
            raise CloudtuneError(
                f"{self.folder / 'store.db'} was written by a newer cloudtune", hint="pip install --upgrade cloudtune"
            )
        if found == 0:
            for statement in _SCHEMA.split(";"):
                if statement.strip():
                    db.execute(statement)
        for version in range(found or VERSION, VERSION):
            db.execute(_LATER[version])
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")


def _run_row(record: Record) -> tuple[Any, ...]:
    return (
        record.id,
        record.name,
        record.backend,
        record.parent,
        record.step,
        record.folder,
        record.state,
        record.reason,
        record.created,
        record.updated,
        record.handle,
        record.spec,
        record.plan,
        json.dumps(record.failure),
        json.dumps(record.outputs),
    )


def _deployment_row(deployment: Deployment) -> tuple[Any, ...]:
    return (
        deployment.name,
        deployment.backend,
        deployment.model,
        deployment.url,
        deployment.created or time.time(),
        json.dumps(dict(deployment.details)),
    )


def _record(row: sqlite3.Row) -> Record:
    data = dict(row)
    data["failure"] = json.loads(data["failure"]) if data["failure"] else None
    data["outputs"] = tuple(json.loads(data["outputs"])) if data["outputs"] else ()
    return Record(**data)
