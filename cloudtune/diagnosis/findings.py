"""What ``doctor`` finds: values, in the order in which it looked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from cloudtune.html import table
from cloudtune.uri import shown

#: The gravest first. Unknown: it could not be looked at from here, or not in time.
STATUSES = ("problem", "warning", "unknown", "ok")


def _clean(text: str) -> str:
    """Return a text with what moves a cursor escaped, and without passwords in URIs: names are anybody's."""
    text = shown(text)
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


@attrs.frozen(kw_only=True)
class Finding:
    """One thing looked at: which ``check``, how it stands, and ``hint``, what to do.

    ``where`` is a place in the job's file, or a YAML path. ``statements`` are those of a policy that would grant what
    is missing.
    """

    check: str
    status: str = attrs.field(validator=attrs.validators.in_(STATUSES))
    message: str = attrs.field(converter=_clean)
    hint: str = attrs.field(default="", converter=_clean)
    where: str = attrs.field(default="", converter=_clean)
    statements: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Report:
    """All findings; in a notebook it shows itself as a table."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way: there may be warnings, and what is unknown."""
        return not self.of("problem")

    def of(self, status: str) -> tuple[Finding, ...]:
        """Return the findings of one status."""
        return tuple(finding for finding in self.findings if finding.status == status)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many findings there are of each status, the gravest first."""
        return {status: len(self.of(status)) for status in STATUSES}

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data, ``ok`` first."""
        found = [{**attrs.asdict(one), "statements": list(one.statements)} for one in self.findings]
        return {"ok": self.ok, "counts": dict(self.counts), "findings": found}

    def _repr_html_(self) -> str:
        rows = [(one.status, one.check, one.where, one.message, one.hint) for one in self.findings]
        return table("Doctor: " + summary(self), ("status", "check", "where", "finding", "what to do"), rows)


def summary(report: Report) -> str:
    """Return the report in one line: ``1 problem, 2 warnings, 14 ok``."""
    words = []
    for status, count in report.counts.items():
        plural = "s" if count != 1 and status in {"problem", "warning"} else ""
        words += [f"{count} {status}{plural}"] if count else []
    return ", ".join(words) or "nothing was looked at"
