"""Buckets of a job, and what must be in them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from cloudtune.diagnosis.checks import Surroundings
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.oci_wanted import Objects, Wanted
from cloudtune.diagnosis.questions import Question, Questions, Refused


def buckets(wanted: Wanted, questions: Questions, surroundings: Surroundings) -> Iterator[Finding]:
    """Look for each bucket; with ``write``, put an object into those that outputs go to, and remove it."""
    for place in wanted.objects:
        if not questions.first_time("bucket", place.namespace, place.bucket, place.region, str(place.written)):
            continue
        question = _question(place, "get_bucket", {}, f"bucket {place.bucket} of {place.namespace}")
        try:
            yield _bucket(question, questions.ask(question), place)
            if place.written and surroundings.write:
                yield _written(place, questions)
        except Refused as refused:
            yield refused.finding


def _question(place: Objects, operation: str, parameters: Mapping[str, Any], about: str) -> Question:
    region = {"region": place.region} if place.region else {}
    return Question(
        service="oci.object_storage",
        operation=operation,
        parameters={"namespaceName": place.namespace, "bucketName": place.bucket, **parameters, **region},
        check="storage",
        about=about,
        where=place.where,
        facts={"bucket": place.bucket},
    )


def _bucket(question: Question, reply: Mapping[str, Any], place: Objects) -> Finding:
    if place.written and reply.get("isReadOnly"):
        hint = "it is the copy of a replication: take its source"
        return question.finding("problem", f"{question.about} is read-only", hint)
    if reply.get("storageTier") == "Archive":
        hint = "objects of an archive must be restored first: take a bucket of tier Standard"
        return question.finding("problem", f"{question.about} is an archive", hint)
    return question.finding("ok", f"{question.about} exists; it {place.use}")


def _written(place: Objects, questions: Questions) -> Finding:
    """Put a small object below the job's own prefix, and remove it."""
    name = "/".join(filter(None, (place.path, f"cloudtune-doctor-{secrets.token_hex(8)}")))
    about = f"the right to write to bucket {place.bucket}"
    put = _question(place, "put_object", {"objectName": name, "putObjectBody": b""}, about)
    questions.ask(put)
    try:
        questions.ask(_question(place, "delete_object", {"objectName": name}, about))
    except Refused as refused:
        message = f"object {name} of bucket {place.bucket} was written, and cannot be removed"
        return put.finding("warning", message, refused.finding.hint, refused.finding.statements)
    return put.finding("ok", f"you may write to bucket {place.bucket}, and remove what you wrote")


def inputs(wanted: Wanted, questions: Questions, _: Surroundings) -> Iterator[Finding]:
    """Look whether there is something at each input."""
    for place in wanted.objects:
        if place.use == "has inputs" and "$" not in place.path and questions.first_time("in", place.bucket, place.path):
            uri = f"oci://{place.bucket}@{place.namespace}/{place.path}"
            parameters = {"prefix": place.path, "limit": 1}
            yield from questions.settled(_question(place, "list_objects", parameters, f"what is at {uri}"), _input)


def _input(question: Question, reply: Mapping[str, Any]) -> Iterator[Finding]:
    if reply.get("objects"):
        yield question.finding("ok", f"{question.about} is there")
    else:
        yield question.finding("problem", f"{question.about}: nothing", "upload it, or check the URI")


def conda(wanted: Wanted, questions: Questions, _: Surroundings) -> Iterator[Finding]:
    """Look for the pack of a published conda environment."""
    for place in wanted.objects:
        if place.use == "has the conda environment" and questions.first_time("conda", place.bucket, place.path):
            about = f"conda environment {place.path} in bucket {place.bucket}"
            question = _question(place, "head_object", {"objectName": place.path}, about)
            yield from questions.settled(question, _pack)


def _pack(question: Question, _: Mapping[str, Any]) -> Iterator[Finding]:
    yield question.finding("ok", f"{question.about} exists")
