"""Questions to Oracle Cloud: there the same refusal says that something is missing, and that it is not shown."""

from __future__ import annotations

from typing import ClassVar

from cloudtune.diagnosis.questions import Questions


class OciQuestions(Questions):
    """Asks Oracle Cloud one thing after the other; see :class:`Questions`."""

    cloud: ClassVar[str] = "OCI"
    policies: ClassVar[str] = "infrastructure/oci"
    hides: ClassVar[bool] = True
