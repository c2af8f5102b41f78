"""What places answer whose jobs this release plans or checks, but does not submit yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from cloudtune.errors import UsageError
from cloudtune.plan import Call, FieldNote, File, Plan
from cloudtune.states import Handle

_ELSEWHERE = "the same job runs on this machine with --infrastructure local"


def refusal(limits: str) -> FieldNote:
    """Return the note that lets a dry run show the plan and ends a run; ``limits`` says what this release does."""
    return FieldNote(path="spec.infrastructure.type", status="refused", reason=f"{limits}; {_ELSEWHERE}")


class Unsubmitted:
    """The part of :class:`cloudtune.backends.Backend` that is about submitted runs, for a place that has none yet."""

    client = "cloudtune.backends.unsubmitted:NoClient"
    #: What this release does for the place and what not, in words.
    limits = ""

    def recognise(self, text: str) -> Handle | None:
        """Return None: no run of the place can be reached yet."""
        return None

    def handle(self, plan: Plan, replies: Mapping[str, Mapping[str, Any]]) -> NoReturn:
        """Say that nothing is submitted yet."""
        self._stop()

    def look(self, handle: Handle) -> NoReturn:
        """Say that nothing is submitted yet."""
        self._stop()

    def status(self, handle: Handle, reply: Mapping[str, Any]) -> NoReturn:
        """Say that nothing is submitted yet."""
        self._stop()

    def logs(self, handle: Handle, cursor: Mapping[str, Any] | None) -> NoReturn:
        """Say that nothing is submitted yet."""
        self._stop()

    def lines(self, handle: Handle, reply: Mapping[str, Any]) -> NoReturn:
        """Say that nothing is submitted yet."""
        self._stop()

    def cancel(self, handle: Handle) -> NoReturn:
        """Say that nothing is submitted yet."""
        self._stop()

    def delete(self, handle: Handle, *, outputs: bool) -> NoReturn:
        """Say that nothing is submitted yet."""
        self._stop()

    def _stop(self) -> NoReturn:
        raise UsageError(self.limits, hint=_ELSEWHERE)


class NoClient:
    """The client of such a place: it sends nothing; see :class:`cloudtune.submit.Client`."""

    def send(self, call: Call, *, token: str | None = None, files: tuple[File, ...] = ()) -> NoReturn:
        """Say that this release does not send such calls."""
        raise _not_sent(call)

    def read(self, call: Call) -> NoReturn:
        """Say that this release does not send such calls."""
        raise _not_sent(call)


def _not_sent(call: Call) -> UsageError:
    return UsageError(f"this release does not send {call.service} {call.operation} yet", hint=_ELSEWHERE)
