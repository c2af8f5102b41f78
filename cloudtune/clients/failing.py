"""How a call that a service did not carry out is told, whichever client sent it."""

from __future__ import annotations

from cloudtune.errors import ServiceError
from cloudtune.plan import Call


def failed(
    message: str, call: Call, *, definite: bool, request_id: str | None = None, hint: str | None = None
) -> ServiceError:
    """Return the error of a call; ``definite`` is whether it is known that nothing was done."""
    return ServiceError(
        message,
        service=call.service,
        operation=call.operation,
        request_id=request_id,
        definite=definite,
        hint=hint,
    )
