"""A run that exists: look, watch, wait, cancel, delete, from any process, at any time; and runs in a row."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from cloudtune import keeping
from cloudtune.backends import backend_named
from cloudtune.errors import CloudtuneError, NotAllowed, RunFailed, RunNotFound, ServiceError, UsageError
from cloudtune.html import table
from cloudtune.lines import Choice, label, replicas_in
from cloudtune.places import LOOK_S, Patience, Place, client_of
from cloudtune.states import EXIT_CODES, NOT_FINISHED, SETTLED, Failure, Handle, LogLine, Status
from cloudtune.store import Record, Store

#: Seconds that cancel waits for the end of the run before it says that the place is slow.
CANCEL_S = 30.0


@attrs.frozen(kw_only=True, repr=False)
class Run:
    """A run that exists: submitted by cloudtune, or found by the place's own id (then ``record`` is None)."""

    handle: Handle | None
    record: Record | None
    store: Store = attrs.field(factory=Store)

    @property
    def id(self) -> str:
        """The run's id; the place's own for a run that cloudtune did not start."""
        if self.record is not None:
            return self.record.id
        assert self.handle is not None
        return self.handle.id

    @property
    def name(self) -> str:
        """The job's name."""
        return self.record.name if self.record else self.id

    @property
    def is_pipeline(self) -> bool:
        """Whether this run is a pipeline: its steps are runs of their own."""
        return self.handle is not None and self.handle.kind == "pipeline"

    @property
    def steps(self) -> tuple[Run, ...]:
        """The runs of a pipeline's steps so far, oldest first."""
        records = self.store.runs(parent=self.id) if self.is_pipeline else ()
        return tuple(run_of(record, self.store) for record in records)

    @property
    def status(self) -> Status:
        """The run's state now: as recorded once it has ended, else asked of its place and recorded."""
        record = self.store.run(self.record.id) if self.record else None
        if record is not None and (record.state in SETTLED or record.handle is None):
            return _recorded(record)
        return self.look()

    def look(self) -> Status:
        """Ask the run's place, whatever is recorded, and return what it says, events and links included."""
        return self._looked(self._place())

    def _looked(self, place: Place) -> Status:
        record = self.store.run(self.record.id) if self.record else None
        try:
            status = place.status()
        except RunNotFound as error:
            if record is None:
                raise
            if record.state in SETTLED or record.state == "pending":
                return _recorded(record)
            place.check_gone(error)
            status = Status(state="lost", reason="its place knows nothing of it (was it removed by hand?)")
        if self.is_pipeline and status.failure is None and status.state == "failed":
            failures = [step.status.failure for step in self.steps]
            status = attrs.evolve(status, failure=next((one for one in reversed(failures) if one), None))
        if record is not None:
            status = attrs.evolve(status, outputs=status.outputs or record.outputs)
            # a record that is pending is of a submission that is not complete: a place that says it means its queue
            new = status.state not in (record.state, "pending") and record.state not in SETTLED
            if new or (status.failure is not None and status.failure.lines and not record.failure):
                self._record(status, record.state)
        return status

    def _record(self, status: Status, was: str) -> None:
        changes = {"state": status.state, "reason": status.reason}
        failure = status.failure.to_dict() if status.failure else None
        outputs = {"outputs": list(status.outputs)} if status.outputs else {}
        try:
            # who has looked since, or ended the run, knows better
            self.store.update_run(self.id, was=was, **changes, failure=failure, **outputs)
        except CloudtuneError:
            pass  # a full disk must not hide what the place has just said

    @property
    def state(self) -> str:
        """One of pending, starting, running, stopping, succeeded, failed, cancelled, lost."""
        return self.status.state

    @property
    def last_state(self) -> str:
        """The state now, or what was last known where the place cannot be asked."""
        try:
            return self.state
        except CloudtuneError:
            return self.record.state if self.record else "unknown"

    @property
    def look_s(self) -> tuple[float, float]:
        """Seconds between two looks at the run's place, at first and at most; as for this machine before it has one."""
        return LOOK_S if self._submitted() is None else self._place().look_s

    @property
    def failure(self) -> Failure | None:
        """Which replica and rank failed first, and how; None unless the run failed."""
        return self.status.failure

    @property
    def exit_code(self) -> int:
        """What the command line ends with for this run: 0, 100, 101 (not finished yet) or 103."""
        return EXIT_CODES.get(self.state, NOT_FINISHED)

    def lines(self, *, follow: bool = False) -> Iterator[LogLine]:
        """Yield the log lines of all replicas, merged; with ``follow`` until the run has ended."""
        if self.is_pipeline:
            yield from self._lines_of_steps(follow=follow)
            return
        if self._submitted() is not None:
            yield from self._place().lines(follow=follow, finished=lambda: self.status.finished)

    def _lines_of_steps(self, *, follow: bool) -> Iterator[LogLine]:
        told: set[str] = set()
        while True:
            finished = not follow or self.status.finished
            # a step that is still being submitted has no place to read from yet
            steps = [step for step in self.steps if step.id not in told and step.handle is not None]
            for step in steps:
                told.add(step.id)
                label = step.record.step if step.record else None
                for line in step.lines(follow=follow):
                    yield attrs.evolve(line, step=label)
            if finished and not steps:
                return
            if not steps:
                time.sleep(LOOK_S[0])

    def logs(
        self,
        *,
        since: float | None = None,
        tail: int | None = None,
        replica: int | None = None,
        grep: str | None = None,
        follow: bool = False,
    ) -> Iterator[LogLine]:
        """Yield log lines: after ``since`` (seconds since the epoch), the last ``tail``, of one replica, matching.

        Raises:
            UsageError: the run has no such replica, or cannot be followed, because it is not fully submitted.
        """
        if follow:
            self._check_submitted(self.status)
        replicas = replicas_in(self.record.plan) if self.record else None
        choice = Choice(since=since, tail=tail, replica=replica, grep=grep, replicas=replicas)
        yield from choice.of(lambda following: self.lines(follow=following), follow=follow)

    def watch(self, show: Callable[[str], object] = print) -> Status:
        """Show every line of every replica until the run has ended, and return how it ended.

        Raises:
            UsageError: the run is not fully submitted; the hint says how to continue it.
        """
        for line in self.logs(follow=True):
            show(label(line) + line.text)
        status = self.status
        show(
            f"run {self.id} {status.state}"
            + (f": {status.failure or status.reason}" if status.failure or status.reason else "")
        )
        return status

    def wait(self, timeout_s: float | None = None) -> Status:
        """Return the status once the run has ended; raises TimeoutError after ``timeout_s`` seconds.

        Raises:
            UsageError: the run is not fully submitted, so there is no end to wait for.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        place, patience = None, Patience(self.id)
        pause = 0.0
        while True:
            try:
                if place is None and self._submitted() is not None:
                    place = self._place()
                    patience = Patience(self.id, first_s=place.look_s[0])
                status = self._recorded_or(place)
            except CloudtuneError as error:
                for _ in patience.after(error, until=deadline):
                    pass
                continue
            patience.reset()
            if status.finished:
                return status
            self._check_submitted(status)
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"run {self.id} is still {status.state} after {timeout_s:g} s")
            first, most = LOOK_S if place is None else place.look_s
            pause = min(max(first, pause * 1.5), most)
            time.sleep(pause if deadline is None else max(0.0, min(pause, deadline - time.monotonic())))

    def _recorded_or(self, place: Place | None) -> Status:
        """Return the status as recorded once the run has ended, else that which its place tells."""
        record = self.store.run(self.record.id) if self.record else None
        if record is not None and (record.state in SETTLED or place is None):
            return _recorded(record)
        assert place is not None
        return self._looked(place)

    def _check_submitted(self, status: Status) -> None:
        """Raise UsageError where only continuing the submission can make something of the run."""
        record = self.store.run(self.record.id) if self.record else None
        if record is not None and status.state == record.state == "pending":
            raise UsageError(f"run {self.id} is not fully submitted", hint=self.to_continue)

    @property
    def to_continue(self) -> str:
        """What to do about the run as long as it is not fully submitted."""
        whole = self.record.parent if self.record is not None and self.record.parent else self.id
        return f"unless that is still going on: cloudtune run --resume {whole}"

    def result(self) -> Status:
        """Wait for the end; return the status of a run that succeeded, raise RunFailed for any other end."""
        status = self.wait()
        if status.state != "succeeded":
            why = status.failure or status.reason or ""
            raise RunFailed(self.id, f"{status.state}: {why}", failure=status.failure, hint=f"cloudtune logs {self.id}")
        return status

    def cancel(self, *, wait: bool = True) -> Status:
        """End the run: every process of every node. A run that has ended already is left as it is.

        Raises:
            UsageError: the submission was cut off, and only continuing it can tell whether something runs.
        """
        status = self.status
        if status.state in SETTLED:
            for step in self.steps:
                if not step.status.finished:  # whoever led the pipeline could not reach its place any more
                    step.cancel(wait=wait)
            return status
        pending = self.record is not None and self.store.run(self.record.id).state == "pending"
        if self._submitted() is None:
            if self.store.journal(self.id):
                raise UsageError(
                    f"run {self.id} was cut off while it was submitted; something of it may be running",
                    hint=f"continue it, then end it: cloudtune run --resume {self.id} -d; cloudtune cancel {self.id}",
                )
        else:
            place = self._place()
            try:
                place.end()
            except ServiceError:
                # it may have ended a moment before, or be ending: asked once more after a lost reply, services refuse
                status = self._looked(place)
                if status.finished:
                    return status
                if status.state != "stopping":
                    raise
        # whoever is submitting it finds this, and ends what it has begun; unless that is all done by now
        reason = "cancelled while it was submitted"
        if pending and not self.store.update_run(self.id, was="pending", state="cancelled", reason=reason):
            return self.cancel(wait=wait)
        if wait:
            self._end_seen(CANCEL_S)
        for step in self.steps:
            step.cancel(wait=wait)  # a dead conductor ends none of them
        return self.status

    def _end_seen(self, seconds: float) -> bool:
        try:
            self.wait(seconds)
        except TimeoutError:
            return False
        return True

    def outputs(self) -> tuple[str, ...]:
        """Return the URIs where the run's outputs are."""
        if self.is_pipeline:
            return tuple(uri for step in self.steps for uri in step.outputs())
        return self.status.outputs

    def left(self) -> tuple[str, ...]:
        """Return the steps of a submission that failed which were made and not taken back, with what they made."""
        if self.record is None or self._submitted() is not None:
            return ()
        journal = self.store.journal(self.record.id).values()
        return tuple(
            f"{one.step} {(one.reply or {}).get('id', '')}".strip() for one in journal if one.phase != "undone"
        )

    def delete(self, *, outputs: bool = False) -> None:
        """Forget the run and its logs; its outputs stay unless asked for.

        Raises:
            UsageError: the run, or a step of it, has not ended; nothing was removed.
        """
        for run in (self, *self.steps):
            if not run.status.finished:
                hint = f"end it first: cloudtune cancel {self.id}"
                raise UsageError(f"run {run.id} is {run.status.state}", hint=hint)
        if self._submitted() is not None:
            for step in self.steps:
                step.delete(outputs=outputs)
            self._remove(self._place(), outputs=outputs)
        if self.record is not None:
            self.store.remove_run(self.record.id)
            keeping.forget(self.record.id)

    def _remove(self, place: Place, *, outputs: bool) -> None:
        """Remove the run in its place; what was removed there by hand is no reason not to forget it."""
        try:
            for call in place.backend.delete(place.handle, outputs=outputs):
                place.client.send(place.filled(call))
        except RunNotFound as error:
            place.check_gone(error)
        except (NotAllowed, ServiceError):
            # what is gone cannot be removed once more: services say so in many ways
            if not place.is_empty():
                raise
        backend: Any = place.backend
        if hasattr(backend, "delete_uploads") and self.record is not None and self.record.plan:
            place.send(backend.delete_uploads(json.loads(self.record.plan)))

    def to_dict(self, *, fresh: bool = False) -> dict[str, Any]:
        """Return the run as ``status -o json`` shows it; with ``fresh`` its place is asked also after the end."""
        try:
            status = self.look() if fresh and self._submitted() is not None else self.status
        except (RunNotFound, ServiceError):
            status = self.status
        return self.as_told(status)

    def as_told(self, status: Status) -> dict[str, Any]:
        """Return the run with a status that is known already, as ``status -o json`` shows it."""
        steps = RunList(self.steps).to_dicts()
        return {
            "id": self.id,
            "name": self.name if self.record else status.name or self.id,
            "backend": self.record.backend if self.record else (self.handle.backend if self.handle else None),
            "state": status.state,
            "reason": status.reason,
            "failure": status.failure.to_dict() if status.failure else None,
            "events": [attrs.asdict(event) for event in status.events],
            "links": dict(status.links),
            "outputs": [uri for step in steps for uri in step["outputs"]] if self.is_pipeline else [*status.outputs],
            "created": self.record.created if self.record else None,
            **({"steps": steps} if self.is_pipeline else {}),
        }

    def _submitted(self) -> Handle | None:
        """Return where the run lives; another process may have submitted it since this value was made."""
        if self.handle is not None or self.record is None:
            return self.handle
        uri = self.store.run(self.record.id).handle
        return Handle.parse(uri) if uri else None

    def _place(self) -> Place:
        handle = self._submitted()
        if handle is None:
            raise CloudtuneError(
                f"run {self.id} was never fully submitted", hint=f"continue it: cloudtune run --resume {self.id}"
            )
        backend = backend_named(handle.backend)
        client = client_of(backend)
        return Place(run=self.id, handle=handle, backend=backend, client=client, record=self.record, store=self.store)

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.name!r}: {self.last_state}>"

    def _repr_html_(self) -> str:
        return RunList([self])._repr_html_()


class RunList(list[Run]):
    """Runs, which show themselves as a table in a notebook."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the runs as ``list -o json`` shows them; one whose record was deleted meanwhile is left out."""
        found = []
        for run in self:
            try:
                found.append(run.to_dict())
            except RunNotFound:
                continue
            except CloudtuneError:  # a place that cannot be asked is no reason to hide the others
                found.append(run.as_told(_recorded(run.record) if run.record else Status(state="unknown")))
        return found

    def _repr_html_(self) -> str:
        rows = [(run.id, run.name, run.handle.backend if run.handle else "", run.last_state, age(run)) for run in self]
        return table("Runs", ("id", "name", "backend", "state", "age"), rows)


def age(run: Run) -> str:
    """Return how long ago the run was submitted, e.g. ``3m``."""
    if run.record is None:
        return ""
    seconds = max(0, int(time.time() - run.record.created))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _recorded(record: Record) -> Status:
    failure = Failure.from_dict(record.failure) if record.failure else None
    return Status(state=record.state, reason=record.reason, failure=failure, outputs=record.outputs)


def run_of(record: Record, store: Store) -> Run:
    """Return the run of a record."""
    return Run(handle=Handle.parse(record.handle) if record.handle else None, record=record, store=store)
