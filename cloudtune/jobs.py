"""From a job to a run: plan it, submit it, continue a submission that was cut off."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping

import attrs

from cloudtune.backends import Backend, backend_named, backend_of
from cloudtune.code import gather_code
from cloudtune.errors import CloudtuneError, Fault, ServiceError, SpecError, UsageError
from cloudtune.plan import SECRET_NAME, Notice, Plan
from cloudtune.runs import Run, client_of
from cloudtune.spec.document import checked, dumps
from cloudtune.spec.document import load as load_document
from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.job import JobSpec
from cloudtune.spec.placeholders import placeholders
from cloudtune.states import TERMINAL, Handle
from cloudtune.store import Entry, Record, Store, new_run_id
from cloudtune.submit import Progress, Reply, submit

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


@attrs.frozen
class RunJournal:
    """The journal of one run in the store; see :class:`cloudtune.submit.Journal`."""

    store: Store
    run_id: str

    def read(self) -> Mapping[str, Entry]:
        """Return the entries by step."""
        return self.store.journal(self.run_id)

    def write(self, step: str, phase: str, reply: Reply | None = None) -> None:
        """Record how far a step has come."""
        self.store.write_journal(self.run_id, step, phase, reply)


def plan_job(job: JobSpec, run_id: str | None = None) -> Plan:
    """Return what running the job would send; offline and without credentials.

    Without an id, one is derived from the spec and the code, so that the same input gives the same plan.
    """
    job = checked(job)
    plan = backend_of(job.infrastructure.type).plan(job, run_id or dry_run_id(job))
    notices = [Notice(path=path, message=f"{text!r} is a placeholder: fill it in") for path, text in placeholders(job)]
    notices += [
        Notice(path="spec.runtime.spec.env", message=f"{name} is a literal secret; write it as secret: instead")
        for name in _literal_secrets(job)
    ]
    return attrs.evolve(plan, warnings=(*plan.warnings, *notices))


def dry_run_id(job: JobSpec) -> str:
    """Return an id derived from the spec and the code."""
    workspace = gather_code(job)
    return id_from(dumps(job) + (workspace.digest if workspace else ""))


def id_from(text: str) -> str:
    """Return an id of the usual form derived from a text."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    letters = _ALPHABET[number % 26]
    number //= 26
    for _ in range(7):
        letters += _ALPHABET[number % 36]
        number //= 36
    return letters


def start(
    job: JobSpec,
    *,
    store: Store | None = None,
    run_id: str | None = None,
    parent: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Submit the job as a new run, and return it as soon as it is on its way.

    The id is recorded before anything is sent; a submission that was cut off is continued by :func:`resume`.

    Raises:
        SpecError: the job cannot run as written: placeholders, refused keys, code that looks like a credential.
        CloudtuneError: a step failed; what was made has been taken back, or the message says what is left.
    """
    store, job = store or Store(), checked(job)
    faults = [
        Fault(path=path, message=f"{text!r} is a placeholder", hint="fill it in") for path, text in placeholders(job)
    ]
    backend = backend_of(job.infrastructure.type)
    run_id = run_id or new_run_id()
    plan = backend.plan(job, run_id)
    faults += [Fault(path=note.path, message=note.reason) for note in plan.refused]
    if faults:
        raise SpecError(faults)
    now = time.time()
    store.add_run(
        Record(
            id=run_id,
            name=plan.name,
            backend=backend.name,
            parent=parent,
            state="pending",
            created=now,
            updated=now,
            spec=dumps(without_secrets(job)),
            plan=plan.to_json(),
            outputs=plan.outputs,
        )
    )
    return _send(backend, plan, store, progress)


def resume(
    run_id: str, *, job: JobSpec | None = None, store: Store | None = None, progress: Progress | None = None
) -> Run:
    """Continue a submission that was cut off; with nothing left to send it returns the run as it is.

    ``job`` gives again what the record does not keep: literal secrets.
    """
    store = store or Store()
    record = store.run(run_id)
    if record.handle is not None:
        return Run(handle=Handle.parse(record.handle), record=record, store=store)
    if record.state in TERMINAL:
        raise UsageError(
            f"run {run_id} is {record.state}: {record.reason}", hint="submit the job again: cloudtune run -f FILE"
        )
    backend = backend_named(record.backend)
    if job is None:
        loaded = load_document(record.spec or "")
        assert isinstance(loaded, JobSpec)
        job = loaded
    plan = backend.plan(job, run_id)
    _check_same_files(record, plan, store)
    return _send(backend, plan, store, progress)


def _send(backend: Backend, plan: Plan, store: Store, progress: Progress | None) -> Run:
    try:
        replies = submit(plan, client_of(backend), RunJournal(store, plan.run_id), progress=progress)
    except ServiceError as error:
        if not error.definite:
            store.update_run(plan.run_id, reason=f"not fully submitted: {error.message}")
            error.hint = f"continue with: cloudtune run --resume {plan.run_id}"
            raise
        store.update_run(plan.run_id, state="failed", reason=f"not submitted: {error.message}")
        raise
    except CloudtuneError as error:
        store.update_run(plan.run_id, state="failed", reason=f"not submitted: {error.message}")
        raise
    handle = backend.handle(plan, replies)
    cancelled = store.run(plan.run_id).state == "cancelled"  # by another process, while this one was submitting
    store.update_run(plan.run_id, handle=handle.uri, state="starting", reason=None)
    run = Run(handle=handle, record=store.run(plan.run_id), store=store)
    if cancelled:
        run.cancel()
    return run


def _check_same_files(record: Record, plan: Plan, store: Store) -> None:
    """Refuse to continue with other code than the run began with."""
    done = {step for step, entry in store.journal(record.id).items() if entry.phase == "done"}
    kept = {step["id"]: step.get("files") for step in json.loads(record.plan or "{}").get("steps", ())}
    now = {step["id"]: step.get("files") for step in plan.to_dict()["steps"]}
    changed = [step for step in now if step not in done and step in kept and kept[step] != now[step]]
    if changed and store.journal(record.id):
        raise UsageError(f"the code has changed since run {record.id} was planned", hint="submit it as a new run")


def without_secrets(job: JobSpec) -> JobSpec:
    """Return the job as it may be kept: a literal secret becomes a name that is read from the shell."""
    runtime = job.runtime
    if runtime is None:
        return job
    env = tuple(
        EnvironmentVariable(name=variable.name) if variable.value and SECRET_NAME.search(variable.name) else variable
        for variable in runtime.env
    )
    return attrs.evolve(job, runtime=attrs.evolve(runtime, env=env))


def _literal_secrets(job: JobSpec) -> list[str]:
    env = job.runtime.env if job.runtime else ()
    return [variable.name for variable in env if variable.value and SECRET_NAME.search(variable.name)]
