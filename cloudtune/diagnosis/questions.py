"""Questions to a cloud with the user's own rights: what an answer, and what a refusal, means for a job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import attrs

from cloudtune import rights
from cloudtune.diagnosis.findings import Finding
from cloudtune.errors import CloudtuneError, NotAllowed, ServiceError, UsageError
from cloudtune.plan import Call

Facts = Mapping[str, str | None]
#: Seconds by which clocks may differ before requests are refused, and before that is near.
_REFUSED_S, _NEAR_S = 300, 60


@attrs.frozen(kw_only=True)
class Question:
    """A read, and what it is about: ``project ocid1...``, which the job's file names at ``where``.

    Where it is not ``needed`` that the user may ask, a refusal leaves the thing unknown. ``facts`` go into the
    statement of a policy that would allow it.
    """

    service: str
    operation: str
    parameters: Mapping[str, Any]
    check: str
    about: str
    where: str = ""
    needed: bool = True
    facts: Facts = attrs.field(factory=dict)

    def finding(self, status: str, message: str, hint: str | None = None, statements: tuple[str, ...] = ()) -> Finding:
        """Return what was found about it."""
        return Finding(
            check=self.check,
            status=status,
            message=message,
            hint=hint or "",
            where=self.where,
            statements=statements,
        )


class Reader(Protocol):
    """A client that carries out reads; see :class:`cloudtune.submit.Client`."""

    def read(self, call: Call) -> Mapping[str, Any]:
        """Carry out a read."""


class Refused(Exception):
    """A question that was not answered as hoped, which is no error of anybody's; ``finding`` is what that means."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


class Questions:
    """Asks a cloud one thing after the other; once nobody answers, or knows the user, nothing more is asked.

    A cloud's own say how it is called, where its rights are granted, and what it hides.
    """

    cloud: ClassVar[str]
    #: Where the rights are granted.
    policies: ClassVar[str]
    #: What an address that is not reached may have wrong.
    unreached: ClassVar[str] = "check the network, the proxy, and the region's name"
    #: Whether a refusal may mean that there is no such thing.
    hides: ClassVar[bool] = False

    def __init__(self, client: Reader) -> None:
        self._client = client
        self._facts: Facts = {}
        self._region: str | None = None
        self._over: str | None = None
        self._done: set[tuple[str | None, ...]] = set()

    def turn_to(self, facts: Facts, region: str | None) -> None:
        """Go on with another job, whose facts and region these are."""
        self._facts, self._region = facts, region

    def first_time(self, *what: str | None) -> bool:
        """Return whether this has not been looked at yet: jobs of a pipeline share most of what they need."""
        new = what not in self._done
        self._done.add(what)
        return new

    def ask(self, question: Question) -> Mapping[str, Any]:
        """Return the service's answer; raises Refused if there is none, or none that helps."""
        if self._over is not None:
            raise Refused(question.finding("unknown", f"{question.about}: {self._over}"))
        try:
            return self._client.read(self._call(question))
        except CloudtuneError as error:
            raise Refused(self._meaning(error, question)) from error

    def settled(
        self, question: Question, read: Callable[[Question, Mapping[str, Any]], Iterator[Finding]]
    ) -> Iterator[Finding]:
        """Yield what an answer means, or the finding of a refusal: one of several does not end the others."""
        try:
            yield from read(question, self.ask(question))
        except Refused as refused:
            yield refused.finding

    def needed(self, question: Question) -> tuple[rights.Right, ...]:
        """Return the rights that a question needs."""
        return rights.needed_for(question.service, question.operation, who="users")

    def _call(self, question: Question) -> Call:
        region = {"region": self._region} if self._region is not None else {}
        parameters = {**region, **question.parameters}
        return Call(service=question.service, operation=question.operation, parameters=parameters)

    def _meaning(self, error: CloudtuneError, question: Question) -> Finding:
        if isinstance(error, NotAllowed) and error.policy is None:
            # it is not this one thing: nobody there knows who asks
            self._over = "not asked: you are not signed in"
            return question.finding("problem", error.message, error.hint)
        if isinstance(error, NotAllowed):
            return self._missing(question)
        if isinstance(error, ServiceError) and self._is_unreached(error):
            self._over = f"not asked: {self.cloud} is not reached"
            message = f"{question.about}: {self.cloud} is not reached: {error.message}"
            return question.finding("unknown", message, self.unreached)
        wrong = isinstance(error, UsageError) or (isinstance(error, ServiceError) and error.definite)
        status = "problem" if wrong and question.needed else "unknown"
        return question.finding(status, f"{question.about}: {error.message}", error.hint)

    def _is_unreached(self, error: ServiceError) -> bool:
        return error.request_id is None

    def _missing(self, question: Question) -> Finding:
        """Return the finding of a right that the user lacks: the statement that would grant it."""
        found = self.needed(question)
        statements = tuple(right.statement({**self._facts, **question.facts}) for right in found)
        features = " and ".join(dict.fromkeys(right.feature for right in found))
        granted = f"your administrator grants it ({self.policies}, feature {features}): {'; '.join(statements)}"
        if not (self.hides and question.needed):
            status = "problem" if question.needed else "unknown"
            verb = "see" if self.hides else "look at"
            return question.finding(status, f"you may not {verb} {question.about}", granted, statements)
        message = f"{question.about} does not exist, or you may not see it"
        return question.finding("problem", message, f"check its name; if it exists, {granted}", statements)


def looked_at(looks: Iterable[Callable[..., Iterator[Finding]]], *given: object) -> Iterator[Finding]:
    """Look at one thing after the other; each may be refused by itself."""
    for look in looks:
        try:
            yield from look(*given)
        except Refused as refused:
            yield refused.finding


def clocks(skew_s: float | None, cloud: str) -> Iterator[Finding]:
    """Look whether this machine's clock is near that of a cloud, which is ``skew_s`` behind it."""
    if skew_s is None or abs(skew_s) < _NEAR_S:
        return
    message = f"this machine's clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} {cloud}'s"
    status = "problem" if abs(skew_s) >= _REFUSED_S else "warning"
    hint = f"set the clock (NTP): {cloud} refuses requests that are {_REFUSED_S} s off"
    yield Finding(check="clock", status=status, message=message, hint=hint)
