"""Role, buckets, image, quota and secrets of a job on SageMaker."""

from __future__ import annotations

import secrets as random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from cloudtune import rights
from cloudtune.backends.aws_surroundings import account_of
from cloudtune.backends.sagemaker_quotas import asking, quota_name, quota_of
from cloudtune.diagnosis.aws_questions import POLICIES, AwsQuestions
from cloudtune.diagnosis.aws_wanted import Objects, Wanted
from cloudtune.diagnosis.checks import Surroundings
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.questions import Question, Refused
from cloudtune.rights.trust import trusts

#: Who takes the role of a job.
SERVICE = "sagemaker.amazonaws.com"


# --- the role


def role(wanted: Wanted, questions: AwsQuestions, _: Surroundings) -> Iterator[Finding]:
    """Look for the role: whether it exists, whom it trusts, and what it may do."""
    arn = wanted.role
    if not arn or not questions.first_time("role", arn):
        return
    question = Question(
        service="aws.iam",
        operation="get_role",
        parameters={"RoleName": arn.rpartition("/")[2], "absent": True},
        check="role",
        about=f"role {arn}",
        where=wanted.at("roleArn"),
        needed=False,
    )
    reply = questions.ask(question)
    if reply.get("absent"):
        hint = f"make it with {POLICIES}, or name one that is there: aws iam list-roles"
        yield question.finding("problem", f"{question.about} does not exist in your account", hint)
        return
    found = reply.get("Role", {})
    if found.get("Arn", arn) != arn:
        hint = f"write its ARN whole, with its path: {found['Arn']}"
        yield question.finding("problem", f"the role of that name is {found['Arn']}", hint)
        return
    if trusts(found.get("AssumeRolePolicyDocument") or {}, SERVICE):
        yield question.finding("ok", f"{question.about} exists, and SageMaker may take it")
    else:
        statement = f'{{"Effect": "Allow", "Principal": {{"Service": "{SERVICE}"}}, "Action": "sts:AssumeRole"}}'
        hint = f"its trust policy needs: {statement}"
        yield question.finding("problem", f"{question.about} exists, but SageMaker may not take it", hint, (statement,))
    yield from _rights_of(wanted, questions, arn)


def _rights_of(wanted: Wanted, questions: AwsQuestions, arn: str) -> Iterator[Finding]:
    """Look whether the role may do what nodes will; IAM works it out of all its policies."""
    features = {"training", "storage", *(["secrets"] if wanted.secrets else ())}
    features |= {"network"} if wanted.place.subnet_ids else set()
    missing: list[rights.Right] = []
    question = _may(wanted, arn, ())
    for right in rights.rights("aws").values():
        if right.who != "training" or right.feature not in features or right.condition is not None:
            continue
        question = _may(wanted, arn, right.actions, resources_of(right, wanted))
        if refused_in(questions.ask(question)):
            missing.append(right)
    if not missing:
        yield question.finding("ok", "the role may do what nodes of this job do")
        return
    statements = tuple(one.statement(wanted.facts) for one in missing)
    for right, statement in zip(missing, statements, strict=True):
        message = f"the role lacks a right of feature {right.feature}: {right.why}"
        yield question.finding("problem", message, f"its policies need ({POLICIES}): {statement}", (statement,))


def _may(wanted: Wanted, arn: str, actions: Sequence[str], resources: Sequence[str] = ()) -> Question:
    named = {"ResourceArns": list(resources)} if resources else {}
    return Question(
        service="aws.iam",
        operation="simulate_principal_policy",
        parameters={"PolicySourceArn": arn, "ActionNames": list(actions), **named},
        check="role",
        about="what the role may do",
        where=wanted.at("roleArn"),
        needed=False,
    )


def resources_of(right: rights.Right, wanted: Wanted) -> tuple[str, ...]:
    """Return the job's own resources among those of a right: none where the right is for all or not for this job."""
    if right.id.startswith("training.bucket"):
        return tuple(sorted({f"arn:aws:s3:::{one.bucket}" for one in wanted.objects}))
    if right.id.startswith("training.objects"):
        return tuple(sorted({f"arn:aws:s3:::{one.bucket}/cloudtune" for one in wanted.objects if one.written}))
    if right.feature == "secrets":
        return tuple(arn for _, arn in wanted.secrets)
    if right.id == "training.images" and wanted.image is not None:
        one = wanted.image
        return (f"arn:aws:ecr:{one.region}:{one.account}:repository/{one.repository}",)
    return ()


def refused_in(reply: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the actions that IAM's simulation does not allow."""
    rows = reply.get("EvaluationResults", ())
    return tuple(dict.fromkeys(str(row["EvalActionName"]) for row in rows if row.get("EvalDecision") != "allowed"))


# --- buckets


class Placed(Protocol):
    """What a job has on AWS wherever it runs, and the region that it must be in; None where any will do."""

    @property
    def objects(self) -> tuple[Objects, ...]:
        """The places in S3."""

    @property
    def secrets(self) -> tuple[tuple[str, str], ...]:
        """The secrets of Secrets Manager: where the job names them, and their ARNs."""

    @property
    def region(self) -> str | None:
        """The region."""


def buckets(wanted: Placed, questions: AwsQuestions, surroundings: Surroundings) -> Iterator[Finding]:
    """Look for each bucket, in the job's region; with ``write``, put an object there and remove it."""
    for place in wanted.objects:
        if not questions.first_time("bucket", place.bucket, str(place.written)):
            continue
        question = _question(place, "head_bucket", {"absent": True})
        try:
            yield _bucket(question, questions.ask(question), place, wanted.region)
            if place.written and surroundings.write:
                yield _written(place, questions)
        except Refused as refused:
            yield refused.finding


def _question(place: Objects, operation: str, parameters: Mapping[str, Any], about: str = "") -> Question:
    return Question(
        service="aws.s3",
        operation=operation,
        parameters={"Bucket": place.bucket, **parameters},
        check="storage",
        about=about or f"bucket {place.bucket}",
        where=place.where,
        facts={"bucket": place.bucket},
    )


def _bucket(question: Question, reply: Mapping[str, Any], place: Objects, region: str | None) -> Finding:
    if reply.get("absent"):
        hint = f"make it: aws s3 mb s3://{place.bucket}" + (f" --region {region}" if region else "")
        return question.finding("problem", f"{question.about} does not exist; it {place.use}", hint)
    there = reply.get("BucketRegion")
    if there and region and there != region:
        hint = f"take a bucket of {region}: SageMaker uses those of its own region alone"
        return question.finding("problem", f"{question.about} is in {there}, and the job in {region}", hint)
    return question.finding("ok", f"{question.about} exists; it {place.use}")


def _written(place: Objects, questions: AwsQuestions) -> Finding:
    """Put a small object below the job's own prefix, and remove it."""
    key = "/".join(filter(None, (place.prefix.strip("/"), f"cloudtune-doctor-{random.token_hex(8)}")))
    about = f"the right to write to bucket {place.bucket}"
    put = _question(place, "put_object", {"Key": key, "Body": b""}, about)
    questions.ask(put)
    try:
        questions.ask(_question(place, "delete_object", {"Key": key}, about))
    except Refused as refused:
        message = f"object {key} of bucket {place.bucket} was written, and cannot be removed"
        return put.finding("warning", message, refused.finding.hint, refused.finding.statements)
    return put.finding("ok", f"you may write to bucket {place.bucket}, and remove what you wrote")


def inputs(wanted: Placed, questions: AwsQuestions, _: Surroundings) -> Iterator[Finding]:
    """Look whether there is something at each input."""
    for place in wanted.objects:
        if (
            place.use != "has inputs"
            or "$" in place.prefix
            or not questions.first_time("in", place.bucket, place.prefix)
        ):
            continue
        about = f"what is at s3://{place.bucket}/{place.prefix}"
        question = _question(place, "list_objects_v2", {"Prefix": place.prefix, "MaxKeys": 1, "absent": True}, about)
        yield from questions.settled(question, _input)


def _input(question: Question, reply: Mapping[str, Any]) -> Iterator[Finding]:
    if reply.get("Contents"):
        yield question.finding("ok", f"{question.about} is there")
    else:
        yield question.finding("problem", f"{question.about}: nothing", "upload it, or check the URI")


# --- image, quota, secrets


def image(wanted: Wanted, questions: AwsQuestions, _: Surroundings) -> Iterator[Finding]:
    """Look for an image of the user's own account; those of AWS's accounts are not to be listed."""
    one = wanted.image
    if one is None or one.account != account_of(wanted.role) or not questions.first_time("image", str(one)):
        return
    named = {"imageDigest": one.digest} if one.digest else {"imageTag": one.tag or "latest"}
    text = f"{one.repository}:{one.tag or one.digest or 'latest'}"
    question = Question(
        service="aws.ecr",
        operation="describe_images",
        parameters={"repositoryName": one.repository, "imageIds": [named], "region": one.region, "absent": True},
        check="image",
        about=f"image {text}",
        where=one.where,
        facts={"repository": one.repository},
    )
    if wanted.region and one.region != wanted.region:
        hint = f"push it to {one.account}.dkr.ecr.{wanted.region}.amazonaws.com"
        yield question.finding("problem", f"{question.about} is in {one.region}, and the job in {wanted.region}", hint)
    reply = questions.ask(question)
    if reply.get("absent") or not reply.get("imageDetails"):
        hint = f"cloudtune build DIR --push {one.account}.dkr.ecr.{one.region}.amazonaws.com/{one.repository}"
        yield question.finding("problem", f"{question.about} is not in the registry", hint)
        return
    yield question.finding("ok", f"{question.about} is in the registry")


def quota(wanted: Wanted, questions: AwsQuestions, _: Surroundings) -> Iterator[Finding]:
    """Compare the job's machines with the quota of their type."""
    kind = wanted.place.instance_type
    if not kind or "<" in kind or not questions.first_time("quota", wanted.region, kind, str(wanted.place.use_spot)):
        return
    name = quota_name(kind, spot=wanted.place.use_spot is True)
    call = asking()
    question = Question(
        service=call.service,
        operation=call.operation,
        parameters=call.parameters,
        check="quota",
        about=f"quota {name!r}",
        where=wanted.at("instanceType"),
        needed=False,
    )
    there = quota_of(name, [questions.ask(question)])
    if there is None:
        message = f"{question.about} is not listed: SageMaker may not have {kind} in {wanted.region}"
        yield question.finding("warning", message, "look in the console: Service Quotas, Amazon SageMaker")
        return
    enough = there.value >= wanted.nodes
    message = f"the job takes {wanted.nodes} x {kind}, and {question.about} is {there.value:g}"
    yield question.finding("ok" if enough else "problem", message, None if enough else there.hint)


def secrets(wanted: Placed, questions: AwsQuestions, _: Surroundings) -> Iterator[Finding]:
    """Ask whether each secret exists; its value is not asked for."""
    for where, arn in wanted.secrets:
        if not questions.first_time("secret", arn):
            continue
        region = arn.split(":")[3]
        question = Question(
            service="aws.secretsmanager",
            operation="describe_secret",
            parameters={"SecretId": arn, "region": region, "absent": True},
            check="secrets",
            about=f"secret {arn.partition(':secret:')[2]}",
            where=where,
            needed=False,
        )
        yield from questions.settled(question, _secret)


def _secret(question: Question, reply: Mapping[str, Any]) -> Iterator[Finding]:
    if reply.get("absent"):
        hint = "aws secretsmanager list-secrets shows those there are; ARNs end in six letters of their own"
        yield question.finding("problem", f"{question.about} does not exist", hint)
    elif reply.get("DeletedDate"):
        hint = "aws secretsmanager restore-secret brings it back"
        yield question.finding("problem", f"{question.about} is to be deleted", hint)
    else:
        yield question.finding("ok", f"{question.about} exists")
