"""What a job takes from the notebook session that it is submitted in: looked up, as a run looks it up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cloudtune.backends.oci_surroundings import Surroundings, surroundings
from cloudtune.diagnosis.document import Subject
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.oci_wanted import filled_in
from cloudtune.diagnosis.questions import Question, Questions
from cloudtune.plan import Ref
from cloudtune.spec.oci import DataScienceJob


def at_home(
    subject: Subject, questions: Questions, environ: Mapping[str, str]
) -> tuple[DataScienceJob, tuple[Finding, ...]]:
    """Return the job's infrastructure with what a run would take from here, and what was found on the way."""
    place = filled_in(subject.job.infrastructure)
    around = surroundings(place, environ)
    reply: dict[str, Any] = {}
    findings: tuple[Finding, ...] = ()
    if around.look_up is not None:
        question = Question(
            service=around.look_up.service,
            operation=around.look_up.operation,
            parameters=around.look_up.parameters,
            check="session",
            about=f"notebook session {around.look_up.parameters['notebookSessionId']}",
            where=subject.at("infrastructure.spec"),
        )

        def read(_: Question, answer: Mapping[str, Any]) -> Iterator[Finding]:
            reply.update(answer)
            yield question.finding("ok", f"{', '.join(sorted(around.found))} as the notebook session has it")

        findings = tuple(questions.settled(question, read))
    return _with(place, around, reply), findings


def _with(place: DataScienceJob, around: Surroundings, reply: Mapping[str, Any]) -> DataScienceJob:
    named = {"compartment_id": around.compartment, "project_id": around.project, "subnet_id": around.subnet}
    found: dict[str, Any] = {}
    for name, value in named.items():
        text = _given(value, reply) if isinstance(value, Ref) else value
        found[name] = text if isinstance(text, str) else None
    return attrs.evolve(place, **found)


def _given(ref: Ref, reply: Mapping[str, Any]) -> Any:
    try:
        return ref.of(reply)
    except KeyError:
        return None
