"""Questions to AWS: there a refusal names the right that is missing, and what is not there is said to be so."""

from __future__ import annotations

from typing import ClassVar

from cloudtune.diagnosis.questions import Questions
from cloudtune.errors import ServiceError

#: Where the rights are granted.
POLICIES = "infrastructure/sagemaker"


class AwsQuestions(Questions):
    """Asks AWS one thing after the other; see :class:`Questions`. What does not exist is ``{"absent": True}``."""

    cloud: ClassVar[str] = "AWS"
    policies: ClassVar[str] = POLICIES

    def _is_unreached(self, error: ServiceError) -> bool:
        return error.passing and error.request_id is None
