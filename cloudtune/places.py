"""The place of one run: who can say what is happening there, and who asks; a network that is lost is waited out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from cloudtune import keeping
from cloudtune.backends import Backend, load
from cloudtune.errors import CloudtuneError, NotAllowed, RunNotFound
from cloudtune.plan import Call, Ref, substitute
from cloudtune.states import SETTLED, Handle, LogLine, Status
from cloudtune.store import Record, Store
from cloudtune.submit import Client

#: Seconds between two looks at a run, at first and at most, where the client does not say how often its place is asked.
LOOK_S = (0.1, 1.0)
#: Seconds for which somebody who follows a run waits for a network or a service to come back, and for the user to sign
#: in again; and the longest pause between two tries.
PATIENCE_S = 600.0
_LONGEST_S = 30.0
#: Seconds for the lines of a run that is ended to be read so far, and for its last ones, of a place that loses them.
KEPT_FIRST_S, KEPT_LAST_S = 5.0, 30.0


def client_of(backend: Backend) -> Client:
    """Return the client that carries out a backend's calls."""
    client: Client = load(backend.client)()
    return client


@attrs.frozen(kw_only=True)
class Place:
    """Where a run lives; ``run`` is what the user calls it, ``record`` what ``store`` has of it."""

    run: str
    handle: Handle
    backend: Backend
    client: Client
    record: Record | None = None
    store: Store = attrs.field(factory=Store)

    @property
    def look_s(self) -> tuple[float, float]:
        """Seconds between two looks, at first and at most."""
        first, most = getattr(self.client, "look_s", LOOK_S)
        return float(first), float(most)

    def status(self, *, explain: bool = True) -> Status:
        """Ask how the run is; also who of it failed first, or what it waits for, where only further calls can tell.

        Raises:
            RunNotFound: the place knows nothing of the run.
        """
        reply = self.client.read(self.backend.look(self.handle))
        status = self.backend.status(self.handle, reply)
        explains = getattr(self.backend, "explains", ("failed",))
        if not explain or status.state not in explains or not hasattr(self.backend, "explain"):
            return status
        backend: Any = self.backend
        replies: list[Mapping[str, Any]] = [reply]
        last: Call | None = None
        try:
            while (call := backend.explain(self.handle, replies)) is not None:
                if last is not None and _asks_again(last, call):
                    time.sleep(self.look_s[0])
                replies.append(self.client.read(call))
                last = call
        except CloudtuneError:
            pass  # how it is is known; why, only these could tell
        explained: Status = backend.explained(self.handle, status, replies)
        return explained

    def filled(self, call: Call) -> Call:
        """Return a call with what the replies to the steps of the run's plan say in place of references to them."""
        journal = self.store.journal(self.record.id) if self.record else {}

        def value(leaf: object) -> object:
            assert isinstance(leaf, Ref)
            return (journal[leaf.step].reply or {})[leaf.field]

        return attrs.evolve(call, parameters=substitute(call.parameters, value))

    def check_gone(self, error: RunNotFound) -> None:
        """Raise NotAllowed if the run may be there all the same, and only this user may not see it."""
        backend: Any = self.backend
        if self.record is None or not self.record.plan or not hasattr(backend, "whereabouts"):
            return
        plan = json.loads(self.record.plan)
        call: Call | None = backend.whereabouts(self.handle, plan)
        if call is None:
            return
        try:
            why = backend.hides(self.handle, plan, self.client.read(self.filled(call)))
        except NotAllowed as refused:
            why = f"nor may you see where it was: {refused.message}"
        if why:
            hint = "sign in as who submitted it: the same profile, account and region"
            raise NotAllowed(f"{error.message}; {why}", hint=hint, hidden=True) from error

    def is_empty(self) -> bool:
        """Whether the run has been removed there; some places show for a while what they have removed.

        Raises:
            NotAllowed: it may be there all the same.
        """
        try:
            reply = self.client.read(self.backend.look(self.handle))
        except RunNotFound as error:
            self.check_gone(error)
            return True
        backend: Any = self.backend
        return hasattr(backend, "is_removed") and bool(backend.is_removed(self.handle, reply))

    def lines(self, *, follow: bool, finished: Callable[[], bool]) -> Iterator[LogLine]:
        """Yield the run's lines; with ``follow`` until the end, of which ``finished`` tells where the log does not.

        Raises:
            CloudtuneError: the place cannot be asked; somebody who follows has tried again for a while.
        """
        if self.record is not None and self.store.run(self.record.id).state in SETTLED:
            kept = keeping.lines_of(self.run)
            if kept is not None:
                yield from kept
                return
        first, most = self.look_s
        tells_end = getattr(self.backend, "tells_end", False)
        waiting = Patience(self.run, first_s=first) if follow else None
        cursor: Mapping[str, Any] | None = None
        pause = first
        while True:
            try:
                over = follow and not tells_end and finished()  # asked first: what was written before is read below
                call = self.backend.logs(self.handle, cursor)
                found, cursor = self.backend.lines(self.handle, self.client.read(call))
            except CloudtuneError as error:
                if waiting is None:
                    raise
                yield from waiting.after(error)
                continue
            if waiting is not None:
                yield from waiting.over()
            yield from found
            some, found = bool(found), ()  # thousands of lines are not kept while others are fetched
            state = cursor or {}
            if (state["ended"] if tells_end else over and not some) or (not follow and state.get("caughtUp", not some)):
                return  # who does not follow is not interested in what is written from now on
            more = state.get("more", some)
            if state.get("soon", more and some):
                pause = first
            if not more:
                time.sleep(pause)
                pause = min(pause * 1.5, most)

    def end(self) -> None:
        """End the run, and keep its log on this machine if it would go with the run."""
        calls = self.backend.cancel(self.handle)
        if self.record is None or not getattr(self.backend, "loses_logs", False):
            self.send(calls)
            return
        with keeping.kept(self.run) as keep:
            self._end_and_read(calls, keep)

    def _end_and_read(self, calls: tuple[Call, ...], keep: keeping.Keep) -> None:
        """Read the lines so far, end the run, and read those that come until the log is complete."""
        cursor: Mapping[str, Any] = {}
        sent, until = False, time.monotonic() + KEPT_FIRST_S
        while not (sent and (cursor.get("ended") or time.monotonic() > until)):
            try:
                call = self.backend.logs(self.handle, cursor or None)
                found, after = self.backend.lines(self.handle, self.client.read(call))
                keep(found)
                cursor = after or {}
            except CloudtuneError:
                if sent:
                    return
                cursor, until = {}, 0.0  # that the run ends is more than its log
            if not sent and (not cursor.get("more") or time.monotonic() > until):
                self.send(calls)
                sent, until = True, time.monotonic() + KEPT_LAST_S
            elif not cursor.get("more"):
                time.sleep(self.look_s[0])
        if not cursor.get("ended"):
            keep([_note("the run took long to end, and the rest of its log was not waited for")])

    def send(self, calls: tuple[Call, ...]) -> None:
        """Carry out changes."""
        for call in calls:
            self.client.send(call)


class Patience:
    """Waits while a place cannot be asked, ever longer, and says so once; at last the error is the caller's.

    ``first_s`` is the first of its pauses.
    """

    def __init__(self, run: str, *, first_s: float = 1.0) -> None:
        self.run, self.first_s = run, first_s
        self._since: float | None = None
        self._pause_s = first_s

    def after(self, error: CloudtuneError, *, until: float | None = None) -> Iterator[LogLine]:
        """Wait a little after an error that may pass; raise it if it does not, or not soon enough.

        ``until`` is a moment of time.monotonic() from which on it is too late.
        """
        left_s = float("inf") if until is None else until - time.monotonic()
        if not error.passing or left_s <= 0:
            raise error
        if self._since is None:
            self._since = time.monotonic()
            yield _note(
                f"{error.message}: trying again for {PATIENCE_S / 60:g} minutes ({error.hint or 'please wait'})"
            )
        if time.monotonic() - self._since >= PATIENCE_S:
            back = f"the run goes on; come back with: cloudtune watch {self.run}"
            error.hint = f"{error.hint}; {back}" if error.hint else back
            raise error
        time.sleep(min(self._pause_s, left_s))
        self._pause_s = min(self._pause_s * 2, _LONGEST_S)

    def over(self) -> Iterator[LogLine]:
        """Say that the place can be asked again, if it could not."""
        if self._since is not None:
            yield _note(f"connected again after {time.monotonic() - self._since:.0f} s")
        self.reset()

    def reset(self) -> None:
        """Begin anew: the place can be asked."""
        self._since, self._pause_s = None, self.first_s


def _asks_again(last: Call, call: Call) -> bool:
    """Whether a call asks the same as the last one, of a place that may know more a little later."""
    kinds = [one.parameters.get("kind") for one in (last, call)]
    return last.operation == call.operation and kinds[0] == kinds[1]


def _note(text: str) -> LogLine:
    return LogLine(time=time.time(), replica=None, rank=None, stream="agent", text=text)
