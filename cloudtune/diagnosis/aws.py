"""SageMaker as a place for jobs: what a job names is looked for with the user's own rights, and must fit it.

Only questions are asked. What the nodes themselves may do, as the job's role, IAM is asked to work out where the user
may ask that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from cloudtune.clients.aws import AwsClient
from cloudtune.diagnosis import aws_network, aws_resources
from cloudtune.diagnosis.aws_questions import AwsQuestions
from cloudtune.diagnosis.aws_wanted import Wanted, wanted_by
from cloudtune.diagnosis.checks import Check, Surroundings
from cloudtune.diagnosis.document import Subject
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.questions import Question, Refused, clocks, looked_at

_LIMIT_S = 45.0
#: What is looked at, one after the other; each may be refused by itself.
Look = Callable[[Wanted, AwsQuestions, Surroundings], Iterator[Finding]]
LOOKS: tuple[Look, ...] = (
    aws_resources.role,
    aws_resources.quota,
    aws_network.network,
    aws_resources.buckets,
    aws_resources.inputs,
    aws_resources.secrets,
    aws_resources.image,
)


def checks(subjects: Sequence[Subject], surroundings: Surroundings) -> tuple[Check, ...]:
    """Return one check over all jobs that go to SageMaker: what they share is asked for once."""
    return (Check(name="sagemaker", look=partial(look, subjects, surroundings), limit_s=_LIMIT_S),)


def look(subjects: Sequence[Subject], surroundings: Surroundings) -> Iterator[Finding]:
    """Look at everything that the jobs name."""
    client = AwsClient(hasty=True)
    questions = AwsQuestions(client)
    for subject in subjects:
        wanted = wanted_by(subject, surroundings.environ)
        questions.turn_to(wanted.facts, wanted.region)
        if questions.first_time("identity"):
            yield from questions.settled(_identity(), partial(_known, wanted))
        yield from _account(wanted, questions)
        yield from looked_at(LOOKS, wanted, questions, surroundings)
    yield from clocks(client.skew_s, questions.cloud)


def _identity() -> Question:
    return Question(
        service="aws.sts", operation="get_caller_identity", parameters={}, check="sagemaker", about="who you are"
    )


def _known(wanted: Wanted, question: Question, reply: dict[str, str]) -> Iterator[Finding]:
    said = f"you ask as {reply.get('Arn')}, region {wanted.region or 'not named'}"
    yield question.finding("ok", said)


def _account(wanted: Wanted, questions: AwsQuestions) -> Iterator[Finding]:
    """Look whether the role is of the account that asks: no other's can be passed on."""
    account = wanted.facts["account"]
    if account is None or not questions.first_time("account", account):
        return
    try:
        mine = questions.ask(_identity()).get("Account")
    except Refused:
        return  # said already
    if mine != account:
        message = f"the role is of account {account}, and you are in {mine}"
        hint = "name a role of your account, or another profile: AWS_PROFILE"
        yield Finding(check="role", status="problem", message=message, hint=hint, where=wanted.at("roleArn"))
