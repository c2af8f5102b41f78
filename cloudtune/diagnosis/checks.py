"""Carries out checks: all at once, none longer than its limit, and none can end the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from cloudtune.diagnosis.findings import Finding
from cloudtune.errors import CloudtuneError


@attrs.frozen(kw_only=True)
class Check:
    """Something to look at. What ``look`` has yielded counts, also when the rest comes too late."""

    name: str
    look: Callable[[], Iterable[Finding]]
    limit_s: float = 15.0


@attrs.frozen(kw_only=True)
class Surroundings:
    """What checks of places are told: the variables, and whether ``write`` allows them to put something there."""

    environ: Mapping[str, str]
    write: bool = False


def carried_out(checks: Sequence[Check]) -> tuple[Finding, ...]:
    """Return what the checks find, in their order.

    Each runs in a thread of its own that nobody waits for in the end: a disk or a service may not answer at all.
    """
    under_way = [_UnderWay(check) for check in checks]
    start = time.monotonic()
    return tuple(finding for one in under_way for finding in one.findings(start))


class _UnderWay:
    """A check that has been started."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._found: list[Finding] = []
        self._ended = threading.Event()
        threading.Thread(target=self._carry_out, name=f"doctor-{check.name}", daemon=True).start()

    def findings(self, start: float) -> list[Finding]:
        """Wait as long as the check may take, and return what it has found until then."""
        left = start + self._check.limit_s - time.monotonic()
        if self._ended.wait(max(left, 0.0)):
            return self._found
        message = f"no answer within {self._check.limit_s:g} s"
        return [*self._found, Finding(check=self._check.name, status="unknown", message=message, hint="try again")]

    def _carry_out(self) -> None:
        try:
            for finding in self._check.look():
                self._found.append(finding)
        except CloudtuneError as error:
            self._note(error.message, error.hint or "")
        except Exception as error:  # noqa: BLE001 - a check that fails says so; the others go on
            self._note(f"the check itself failed: {type(error).__name__}: {error}", "please report it")
        finally:
            self._ended.set()

    def _note(self, message: str, hint: str) -> None:
        self._found.append(Finding(check=self._check.name, status="unknown", message=message, hint=hint))
