"""Renders a chat template in a process of its own: ``python -m cloudtune.weights.checks.rendering`` < order.json.

The order has ``template``, ``special`` tokens and ``messages``; the answer has ``text`` or ``error``. The template gets
what transformers gives it: trimmed blocks, loop controls, ``raise_exception``, ``strftime_now``, ``tojson`` without
escapes, and the block ``generation``.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

try:
    import resource
except ImportError:  # Windows, where only time is limited
    resource = None  # type: ignore[assignment]

_MEMORY_BYTES = 1 << 30
_MOST_TEXT = 1 << 20


class Generation(Extension):
    """``{% generation %}``, by which training marks the assistant's words; rendered as if it were not there."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own form

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what stands inside the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(template: str, special: dict[str, str], messages: list[dict[str, str]]) -> str:
    """Return the text of an exchange that the assistant is to go on with; raises whatever the template raises."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.filters["tojson"] = _to_json
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True, **special)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def main() -> None:
    """Read an order, limit this process, and print the answer."""
    order = json.load(sys.stdin)
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    try:
        answer = {"text": render(order["template"], order["special"], order["messages"])[:_MOST_TEXT]}
    except Exception as error:  # noqa: BLE001 - a template may raise anything
        answer = {"error": f"{type(error).__name__}: {error}"[:500]}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
