"""Checks of the places that jobs go to, by type of infrastructure: the dotted name is the lazy import."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module

from cloudtune.diagnosis.checks import Check, Surroundings
from cloudtune.diagnosis.document import Subject
from cloudtune.diagnosis.findings import Finding
from cloudtune.errors import MissingExtra

#: ``module:function`` by type; it is called with the jobs that go there and the surroundings, and returns checks.
PLACES: dict[str, str] = {
    "local": "cloudtune.diagnosis.local:checks",
    "dataScienceJob": "cloudtune.diagnosis.oci:checks",
    "sageMakerTrainingJob": "cloudtune.diagnosis.aws:checks",
    "eksJob": "cloudtune.diagnosis.kubernetes:checks",
}


def checks(subjects: Sequence[Subject], surroundings: Surroundings) -> tuple[Check, ...]:
    """Return the checks of every place that one of the jobs goes to."""
    by_type: dict[str, list[Subject]] = {}
    for subject in subjects:
        by_type.setdefault(subject.job.infrastructure.type, []).append(subject)
    found: list[Check] = []
    for name, theirs in by_type.items():
        dotted = PLACES.get(name)
        if dotted is None:
            found.append(_said(name, Finding(check=name, status="unknown", message=f"nothing looks at {name} yet")))
            continue
        module, _, function = dotted.partition(":")
        try:
            made = getattr(import_module(module), function)
        except MissingExtra as error:
            missing = Finding(check=name, status="problem", message=error.message, hint=error.hint or "")
            found.append(_said(name, missing))
        else:
            found += made(theirs, surroundings)
    return tuple(found)


def _said(name: str, finding: Finding) -> Check:
    return Check(name=name, look=partial(tuple, (finding,)))
