"""What a model is asked, in the form of OpenAI's chat completions, and what is said where nothing answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudtune.errors import UsageError


def check_question(prompt: str | None, body: Mapping[str, Any] | None) -> None:
    """Raise UsageError unless there is a prompt or a whole body, one of the two."""
    if (prompt is None) == (body is None):
        raise UsageError("give a prompt or a whole request body, one of the two")


def body_of(prompt: str | None, body: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the body of a request: a prompt's, or the one that was given.

    Raises:
        UsageError: there are both, or none.
    """
    check_question(prompt, body)
    return {"messages": [{"role": "user", "content": prompt}]} if body is None else dict(body)


def silence(name: str, state: str) -> UsageError:
    """Return what is to be said of a deployment that does not answer because of its state."""
    hint = f"cloudtune delete {name}" if state == "lost" else "cloudtune list --deployments"
    return UsageError(f"deployment {name} does not answer: it is {state}", hint=hint)
