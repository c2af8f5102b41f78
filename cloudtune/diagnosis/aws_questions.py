"""Questions to AWS: there a refusal names the right that is missing, and what is not there is said to be so."""

from __future__ import annotations

from cloudtune import rights
from cloudtune.diagnosis.findings import Finding
from cloudtune.diagnosis.questions import Question, Questions
from cloudtune.errors import CloudtuneError, NotAllowed, ServiceError, UsageError

#: Where the rights are granted.
POLICIES = "infrastructure/sagemaker"


class AwsQuestions(Questions):
    """Asks AWS one thing after the other; see :class:`Questions`. What does not exist is ``{"absent": True}``."""

    def _meaning(self, error: CloudtuneError, question: Question) -> Finding:
        if isinstance(error, NotAllowed) and error.policy is None:
            self._over = "not asked: you are not signed in"
            return question.finding("problem", error.message, error.hint)
        if isinstance(error, NotAllowed):
            return self._missing(question)
        if isinstance(error, ServiceError) and error.passing and error.request_id is None:
            self._over = "not asked: AWS is not reached"
            hint = "check the network, the proxy, and the region's name"
            return question.finding("unknown", f"{question.about}: AWS is not reached: {error.message}", hint)
        wrong = isinstance(error, UsageError) or (isinstance(error, ServiceError) and error.definite)
        status = "problem" if wrong and question.needed else "unknown"
        return question.finding(status, f"{question.about}: {error.message}", error.hint)

    def _missing(self, question: Question) -> Finding:
        """Return the finding of a right that the user lacks: the statement that would grant it."""
        found = rights.needed_for(question.service, question.operation, who="users")
        statements = tuple(right.statement({**self._facts, **question.facts}) for right in found)
        features = " and ".join(dict.fromkeys(right.feature for right in found))
        granted = f"your administrator grants it ({POLICIES}, feature {features}): {'; '.join(statements)}"
        status = "problem" if question.needed else "unknown"
        return question.finding(status, f"you may not look at {question.about}", granted, statements)
