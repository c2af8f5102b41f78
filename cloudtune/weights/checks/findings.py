"""What a check finds: values, in the order in which they are worth reading."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

#: The gravest first. Errors: it will be refused, not load, or answer nonsense. Warnings: it may. Notes: good to know.
SEVERITIES = ("error", "warning", "note")
#: So many findings of one rule are shown; a model with a wrong config has one for every tensor.
MOST = 20


def printable(text: str) -> str:
    """Return a text with what moves a cursor escaped: names in files are anybody's."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


@attrs.frozen(kw_only=True)
class Finding:
    """One thing found: by which ``rule``, how grave, and ``hint``, what to do.

    ``where`` is a file, or a file and a tensor in it. ``source`` is the page that a place's rule was read on.
    """

    rule: str
    severity: str = attrs.field(validator=attrs.validators.in_(SEVERITIES))
    message: str = attrs.field(converter=printable)
    hint: str
    where: str = attrs.field(default="", converter=printable)
    source: str | None = None


@attrs.frozen(kw_only=True)
class Report:
    """What is known of a model, and all findings, the gravest first.

    ``target`` is the place that it was checked for, None if for none. ``dtypes``: the bytes of each type's tensors.
    """

    model: str
    target: str | None
    kind: str
    architecture: str | None
    parameters: int
    bytes: int
    dtypes: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way: there may be warnings, but no errors."""
        return not self.of("error")

    def of(self, severity: str) -> tuple[Finding, ...]:
        """Return the findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data, ``ok`` first."""
        return {"ok": self.ok, **attrs.asdict(self)}


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings, the gravest first, then by rule and place; of more than ``MOST`` of a rule only their number."""
    by_rule: dict[tuple[int, str], list[Finding]] = {}
    for finding in findings:
        by_rule.setdefault((SEVERITIES.index(finding.severity), finding.rule), []).append(finding)
    return tuple(finding for key in sorted(by_rule) for finding in _folded(by_rule[key]))


def _folded(findings: list[Finding]) -> Iterator[Finding]:
    findings = sorted(set(findings), key=lambda finding: (_natural(finding.where), finding.message))
    yield from findings[:MOST]
    if len(findings) > MOST:
        yield attrs.evolve(findings[0], message=f"and {len(findings) - MOST} more like these", where="")


def _natural(text: str) -> tuple[tuple[int, str], ...]:
    """Return a key by which layer 10 comes after layer 9."""
    return tuple((int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d{1,18})", text))
