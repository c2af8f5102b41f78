"""From a job to a run: plan it, submit it, continue a submission that was cut off."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from cloudtune import memory
from cloudtune.backends import Backend, backend_named, backend_of, load
from cloudtune.code import gather_code
from cloudtune.errors import CloudtuneError, Fault, NotAllowed, ServiceError, SpecError, UsageError
from cloudtune.launch.sources import absent
from cloudtune.plan import Call, Notice, Plan
from cloudtune.runs import Run, client_of, run_of
from cloudtune.spec.document import checked, dumps
from cloudtune.spec.document import load as load_document
from cloudtune.spec.job import JobSpec
from cloudtune.spec.placeholders import placeholders
from cloudtune.spec.secrecy import exposed, literal_secrets, without_secrets
from cloudtune.states import TERMINAL
from cloudtune.store import Entry, Record, Store, new_run_id
from cloudtune.submit import Client, Progress, Reply, check_shell, submit

#: Called with the id of a run as soon as it is recorded, before anything is sent.
Announce = Callable[[str], None]
_ENDED = {"succeeded": "succeeded", "failed": "failed", "cancelled": "been cancelled", "lost": "been lost"}
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
        for name in literal_secrets(job)
    ]
    notices += [Notice(path=path, message=message) for path, message in exposed(job)]
    notices += unread(job)
    notices += [Notice(path=path, message=message) for path, message in memory.doubts(job, plan.launch)]
    return attrs.evolve(plan, warnings=(*plan.warnings, *notices))


def unread(job: JobSpec) -> list[Notice]:
    """Return what a recipe would look for on this machine and not find."""
    return [Notice(path=path, message=f"{message}: {hint}") for path, message, hint in absent(job)]


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
    progress: Progress | None = None,
    announce: Announce | None = None,
    run_id: str | None = None,
    of: Record | None = None,
    step: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Run:
    """Submit the job as a new run, and return it as soon as it is on its way.

    The id is recorded, and ``announce`` called with it, before anything is sent; a submission that was cut off is
    continued by :func:`resume`. ``of`` and ``step`` name the pipeline and the step that the run belongs to, ``environ``
    the variables to read from in place of this process's.

    Raises:
        SpecError: the job cannot run as written: placeholders, refused keys, code that looks like a credential.
        UsageError: a variable that should be read from the shell is not set there.
        MissingExtra: packages are not installed that the place is reached by; nothing was recorded.
        NoCapacity: the account may not have so many machines, as far as it may be asked; nothing was recorded.
        CloudtuneError: a step failed; what was made has been taken back, or the message says what is left.
    """
    store, job = store or Store(), checked(job)
    backend = backend_of(job.infrastructure.type)
    plan = backend.plan(job, run_id or new_run_id())
    faults = [
        Fault(path=path, message=f"{text!r} is a placeholder", hint="fill it in, or say allowPlaceholders: true")
        for path, text in placeholders(job)
    ]
    faults += [Fault(path=path, message=message, hint=hint) for path, message, hint in absent(job)]
    check_ready(plan, faults, environ)
    load(backend.client)  # who lacks a package is told before anything is recorded
    plan = ask_beforehand(plan, backend)
    record = Record(
        id=plan.run_id,
        name=plan.name,
        backend=backend.name,
        parent=of.id if of else None,
        step=step,
        folder=str(Path.cwd()),
        state="pending",
        created=time.time(),
        updated=time.time(),
        handle=_early_handle(backend, plan),
        spec=dumps(without_secrets(job)),
        plan=plan.to_json(),
        outputs=plan.outputs,
    )
    store.add_run(record)
    if announce is not None:
        announce(plan.run_id)
    return send(plan, backend, store, progress=progress, environ=environ)


def check_ready(plan: Plan, faults: Sequence[Fault], environ: Mapping[str, str] | None = None) -> None:
    """Raise what keeps a plan from being carried out, before anything is recorded or sent."""
    refused = [Fault(path=note.path, message=note.reason) for note in plan.refused]
    if faults or refused:
        raise SpecError([*faults, *refused])
    check_shell(plan, os.environ if environ is None else environ)


def ask_beforehand(plan: Plan, backend: Backend) -> Plan:
    """Return the plan with what its place told of it; whatever is not told is found out by submitting.

    Raises:
        CloudtuneError: the place will not take the plan.
    """
    given: Any = backend
    if not hasattr(given, "beforehand"):
        return plan
    replies: list[Reply] = []
    try:
        client = load(backend.client)(hasty=True)
        while (call := given.beforehand(plan, replies)) is not None:
            replies.append(_told(client, call))
    except CloudtuneError:
        pass  # what was answered until then still tells
    refusal: CloudtuneError | None = given.refusal(plan, replies)
    if refusal is not None:
        raise refusal
    told: Plan = given.settled(plan, replies) if hasattr(given, "settled") else plan
    return told


def _told(client: Client, call: Call) -> Reply:
    """Return the reply to a question; one that this user may not ask is answered by nothing."""
    try:
        return client.read(call)
    except NotAllowed:
        return {}


def resume(
    run_id: str,
    *,
    job: JobSpec | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
    environ: Mapping[str, str] | None = None,
) -> Run:
    """Continue a submission that was cut off; a run that is on its way is returned as it is.

    ``job`` gives again what the record does not keep: literal secrets.

    Raises:
        UsageError: the run has ended, or the job given or its code is not what the run began with.
    """
    store = store or Store()
    record = store.run(run_id)
    run = run_of(record, store)
    state = run.status.state
    if state in TERMINAL:
        raise UsageError(
            f"run {run_id} has {_ENDED[state]}: there is nothing to continue", hint="submit it as a new run"
        )
    if state != "pending" or store.run(run_id).state != "pending":  # it may wait in a queue of its place
        return run
    backend = backend_named(record.backend)
    kept = load_document(record.spec or "")
    assert isinstance(kept, JobSpec)
    if job is not None and dumps(without_secrets(checked(job))) != record.spec:
        raise UsageError(f"the job is not the one that run {run_id} began with", hint="submit it as a new run")
    with standing_in(record.folder):
        plan = backend.plan(checked(job) if job is not None else kept, run_id)
    check_same_files(record, plan, store)
    return send(plan, backend, store, progress=progress, environ=environ)


def send(
    plan: Plan,
    backend: Backend,
    store: Store,
    *,
    progress: Progress | None = None,
    environ: Mapping[str, str] | None = None,
) -> Run:
    """Carry out the plan of a recorded run, and record where it lives."""
    client = client_of(backend)
    try:
        replies = submit(plan, client, RunJournal(store, plan.run_id), progress=progress, environ=environ)
    except CloudtuneError as error:
        if not error.begun and store.journal(plan.run_id):
            pass  # nothing was tried this time: what was begun before is still to be continued
        elif isinstance(error, ServiceError) and not error.definite:
            store.update_run(plan.run_id, reason=f"not fully submitted: {error.message}")
            error.hint = f"continue with: cloudtune run --resume {plan.run_id}"
        else:
            left = f" (left behind: {', '.join(error.left)})" if error.left else ""
            store.update_run(plan.run_id, state="failed", reason=f"not submitted: {error.message}{left}")
        raise
    handle = backend.handle(plan, replies)
    if not store.settle_submission(plan.run_id, handle.uri):
        for call in backend.cancel(handle):  # somebody cancelled the run while it was being submitted
            client.send(call)
    return run_of(store.run(plan.run_id), store)


def _early_handle(backend: Backend, plan: Plan) -> str | None:
    """Return where the run will live, where that is known before anything is sent."""
    try:
        return backend.handle(plan, {}).uri
    except KeyError:
        return None


@contextmanager
def standing_in(folder: str | None) -> Iterator[None]:
    """Let relative paths start where the user stood when the run was submitted."""
    here = Path.cwd()
    if folder is not None and Path(folder).is_dir():
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


def check_same_files(record: Record, plan: Plan, store: Store) -> None:
    """Refuse to continue with other code than the run began with."""
    done = {step for step, entry in store.journal(record.id).items() if entry.phase == "done"}
    kept = {step["id"]: step.get("files") for step in json.loads(record.plan or "{}").get("steps", ())}
    now = {step["id"]: step.get("files") for step in plan.to_dict()["steps"]}
    changed = [step for step in now if step not in done and step in kept and kept[step] != now[step]]
    if changed and store.journal(record.id):
        raise UsageError(f"the code has changed since run {record.id} was planned", hint="submit it as a new run")
