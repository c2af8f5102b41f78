"""Every error that cloudtune raises on purpose, sorted by who can mend it.

    CloudtuneError                    exit 1
    ├── SpecError                     exit 2     you: the job as written; all its faults at once
    ├── UsageError                    exit 2     you: the command line or a call's arguments
    ├── RunNotFound                   exit 102   you: no run, model or deployment of that name
    ├── MissingExtra (ImportError)    exit 1     you: an extra is not installed
    ├── NotAllowed                    exit 1     your administrator: a right is missing
    ├── NoCapacity                    exit 1     nobody at once: the service has no machine, or your quota is used up
    ├── ServiceError                  exit 1     the service, or the way to it
    └── RunFailed                     exit 100   your job: it ran and failed, or was lost

A message is one sentence and one hint; the facts are attributes.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs


@attrs.frozen(kw_only=True)
class Fault:
    """One thing wrong in a spec: where it stands, what is wrong, and the nearest right word.

    ``line`` and ``column`` count from 1; both are None for a value that was built in Python.
    """

    message: str
    path: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = self.file or ""
        if self.line is not None:
            place += f"{':' if place else 'line '}{self.line}" + (f":{self.column}" if self.column else "")
        parts = [part for part in (place, self.path) if part]
        text = ": ".join([*parts, self.message])
        return f"{text} ({self.hint})" if self.hint else text


class CloudtuneError(Exception):
    """The root of all errors of cloudtune.

    ``hint`` says what to do next; ``exit_code`` is what the command line ends with; ``passing`` is True of what may be
    over a little later: a network that is down, a service that is overloaded, a session that the user can renew.
    ``left`` names what was made before and could not be taken back. ``begun`` is False if nothing of a submission was
    tried before the error.
    """

    exit_code = 1
    passing = False
    left: tuple[str, ...] = ()
    begun = True

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class SpecError(CloudtuneError):
    """The job as written cannot be run; ``faults`` holds everything that is wrong with it."""

    exit_code = 2

    def __init__(self, faults: Iterable[Fault] | str, *, hint: str | None = None) -> None:
        self.faults = (Fault(message=faults, hint=hint),) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class UsageError(CloudtuneError):
    """A call or a command line that cannot be carried out as given."""

    exit_code = 2


class RunNotFound(CloudtuneError):
    """No run, model or deployment goes by that name."""

    exit_code = 102


class MissingExtra(CloudtuneError, ImportError):
    """A verb needs packages that the base install leaves out; ``extra`` names the extra that has them."""

    def __init__(self, extra: str, needed_for: str) -> None:
        self.extra = extra
        super().__init__(
            f"{needed_for} needs packages that are not installed", hint=f'pip install "cloudtune[{extra}]"'
        )


class NotAllowed(CloudtuneError):
    """The service refused for want of a right; ``policy`` names the file under infrastructure/ that grants it.

    ``hidden`` is True where the service says the same of what does not exist.
    """

    def __init__(
        self, message: str, *, policy: str | None = None, hint: str | None = None, hidden: bool = False
    ) -> None:
        self.policy = policy
        self.hidden = hidden
        super().__init__(message, hint=hint or (f"ask your administrator to apply {policy}" if policy else None))


class NoCapacity(CloudtuneError):
    """The service has no such machine free, or the quota for it is used up."""


class ServiceError(CloudtuneError):
    """A service, or the way to it, failed.

    ``service`` and ``operation`` use the words of a plan; ``request_id`` is the service's own, for its support.
    ``definite`` is False when the request may have been carried out although no reply came.
    """

    def __init__(
        self,
        message: str,
        *,
        service: str,
        operation: str,
        request_id: str | None = None,
        definite: bool = True,
        hint: str | None = None,
    ) -> None:
        self.service = service
        self.operation = operation
        self.request_id = request_id
        self.definite = definite
        self.passing = not definite
        where = f"{service}.{operation}" + (f" (request {request_id})" if request_id else "")
        super().__init__(f"{where}: {message}", hint=hint)


class RunFailed(CloudtuneError):
    """The job ran and failed, or was lost.

    ``failure`` names the replica and rank that failed first, with its exit code or signal and last lines.
    """

    exit_code = 100

    def __init__(self, run_id: str, message: str, *, failure: object = None, hint: str | None = None) -> None:
        self.run_id = run_id
        self.failure = failure
        super().__init__(f"run {run_id} {message}", hint=hint)
