"""Whether the chat template is there, can be read as Jinja, and renders an exchange.

A template is a program from elsewhere: it is rendered by jinja2's sandbox in a process of its own, whose time and
memory are limited (:mod:`cloudtune.weights.checks.rendering`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from cloudtune.weights.checks.findings import Finding
from cloudtune.weights.checks.subject import Subject
from cloudtune.weights.files.filenames import TEMPLATE, TOKENIZER_CONFIG

TIMEOUT_S = 20.0
_CHAT_FILE = "chat_template.json"
_USER, _ASSISTANT = "Is the sky blue?", "It is."
_EXCHANGE = (
    {"role": "user", "content": _USER},
    {"role": "assistant", "content": _ASSISTANT},
    {"role": "user", "content": "And at night?"},
)
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


def templates_of(subject: Subject) -> dict[str, str]:
    """Return the chat templates by the place where each stands; of named ones, the default."""
    found: dict[str, str] = {}
    for name in (TOKENIZER_CONFIG, _CHAT_FILE):
        given = subject.documents.get(name, {}).get("chat_template")
        if isinstance(given, list):
            named = {item.get("name"): item.get("template") for item in given if isinstance(item, dict)}
            given = named.get("default", next(iter(named.values()), None))
        if isinstance(given, str) and given:
            found[name] = given
    text = subject.template_text()
    if text:
        found[TEMPLATE] = text
    return found


def check_template(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong with the chat templates; that there is none is for the place to judge."""
    found = templates_of(subject)
    if len({text.strip() for text in found.values()}) > 1:
        yield Finding(
            rule="chat-template-differs",
            severity="warning",
            message=f"{' and '.join(found)} have different chat templates: it depends on the program which one is used",
            hint=f"keep the one in {TEMPLATE if TEMPLATE in found else TOKENIZER_CONFIG}",
            where=next(iter(found)),
        )
    tokens = subject.documents.get(TOKENIZER_CONFIG, {})
    special = {name: _text(tokens.get(name)) for name in _SPECIAL if tokens.get(name)}
    for where, text in found.items():
        yield from _render(text, special, where)


def _render(template: str, special: dict[str, str], where: str) -> Iterator[Finding]:
    if find_spec("jinja2") is None:
        hint = "pip install jinja2 to have it tried"
        message = "the chat template was not tried: jinja2 is not installed"
        yield Finding(rule="chat-template-untried", severity="note", message=message, hint=hint, where=where)
        return
    hint = "copy the template of the base model"
    reply, error = _in_a_process(json.dumps({"template": template, "special": special, "messages": _EXCHANGE}))
    if error:
        message = f"the chat template cannot be rendered: {error}"
        yield Finding(rule="chat-template-broken", severity="error", message=message, hint=hint, where=where)
    elif _USER not in reply or _ASSISTANT not in reply:
        message = "the chat template drops a message of an ordinary exchange of user and assistant"
        yield Finding(rule="chat-template-drops", severity="warning", message=message, hint=hint, where=where)


@lru_cache(maxsize=16)
def _in_a_process(order: str) -> tuple[str, str | None]:
    """Return what a template renders to, and what went wrong; the same order has the same answer."""
    # isolated (-I): a module beside the model, or in the folder where the user stands, must not be taken for jinja2
    argv = [sys.executable, "-I", "-m", "cloudtune.weights.checks.rendering"]
    bare = {name: value for name, value in os.environ.items() if name in {"PATH", "SYSTEMROOT", "LANG", "LC_ALL"}}
    try:
        done = subprocess.run(argv, input=order.encode(), capture_output=True, timeout=TIMEOUT_S, check=False, env=bare)
    except subprocess.TimeoutExpired:
        return "", f"it takes more than {TIMEOUT_S:.0f} seconds"
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return "", "it takes too much memory, or ends the program that renders it"
    return str(answer.get("text", "")), answer.get("error")


def _text(token: Any) -> str:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""
