"""Models of the Hugging Face Hub that a job names: whether they are gated, and whether a token goes with the job.

What is gated is known for families that have long been so; the Hub itself is asked where its library is installed and
``HF_HUB_OFFLINE`` is not set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, util

from cloudtune.diagnosis.checks import Check
from cloudtune.diagnosis.credentials import hub_token
from cloudtune.diagnosis.document import Document, Subject
from cloudtune.diagnosis.findings import Finding
from cloudtune.errors import UsageError
from cloudtune.launch.options import settled
from cloudtune.memory.commands import model_named
from cloudtune.uri import local_path

#: Where the Hub is asked; it needs the Hub's library.
_ANSWERS = "cloudtune.diagnosis.hub_answers"
#: Families whose pages ask for consent to a licence before they hand anything out (2026-11).
GATED = re.compile(
    r"meta-llama/|google/(?:gemma|paligemma|codegemma|recurrentgemma|shieldgemma|medgemma)|bigcode/starcoder(?!2)"
    r"|cohere(?:forai|labs)/|databricks/dbrx|mistralai/(?:mistral-large|ministral|codestral|mixtral-8x22b)"
    r"|stabilityai/stablelm-2-12b|nvidia/llama-3_1-nemotron-ultra",
    re.IGNORECASE,
)
#: Variables by which the Hub's library is given a token.
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}")
#: What somebody still has to fill in.
_BLANK = re.compile(r"\s*<.*>\s*", re.DOTALL)
_LIMIT_S = 15.0


def checks(document: Document, environ: Mapping[str, str]) -> tuple[Check, ...]:
    """Return a check of each model that the jobs of a file, or verbs that run here, name."""
    wanted: dict[str, list[tuple[str, Subject | None]]] = {}
    for subject in document.subjects:
        for path, name in models_of(subject):
            wanted.setdefault(name, []).append((path, subject))
    for path, name in document.models:
        if is_hub_name(name):
            wanted.setdefault(name, []).append((path, None))
    return tuple(
        Check(name="hub", look=lambda name=name, users=users: look(name, users, environ), limit_s=_LIMIT_S)  # type: ignore[misc]
        for name, users in wanted.items()
    )


def models_of(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield (YAML path, name) of the model that a job trains, if it is one of the Hub."""
    runtime, launch = subject.job.runtime, subject.launch
    if runtime is None:
        return
    if runtime.recipe is not None:
        path, model = "recipe.args", (settled(runtime.recipe) or {}).get("model")
    elif launch is not None:
        path = "command" if hasattr(runtime, "command") else "args"
        variables = {variable.name: variable.value for variable in runtime.env if variable.value is not None}
        model = _model_in(launch.command, variables)
    else:
        return
    if isinstance(model, str) and is_hub_name(model):
        yield subject.at(f"runtime.spec.{path}"), model


def _model_in(command: str | Sequence[str], variables: Mapping[str, str]) -> str | None:
    try:
        return model_named(command, variables)
    except UsageError:
        return None  # the shell will say what is wrong with the line


def is_hub_name(text: str) -> bool:
    """Return whether a text names a model of the Hub, and nothing that lies here."""
    path = local_path(text)
    return _NAME.fullmatch(text) is not None and not (path is not None and path.exists())


def look(name: str, users: Sequence[tuple[str, Subject | None]], environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at one model: what the Hub says of it, and whether each job that needs it brings a token."""
    path = users[0][0]
    gated = GATED.match(name) is not None
    if environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        yield _unasked(name, path, "HF_HUB_OFFLINE is set")
    elif util.find_spec("huggingface_hub") is None:
        yield _unasked(name, path, "huggingface_hub is not installed")
    else:
        answer = import_module(_ANSWERS).ask(name, environ)
        gated = gated if answer.gated is None else answer.gated
        yield Finding(check="hub", status=answer.status, message=answer.message, hint=answer.hint, where=path)
    if gated:
        yield from (_token(name, where, subject, environ) for where, subject in users)


def _unasked(name: str, path: str, why: str) -> Finding:
    known = "is gated, as far as is known" if GATED.match(name) else "is not known to be gated"
    return Finding(check="hub", status="unknown", message=f"{name} {known}; the Hub is not asked: {why}", where=path)


def _token(name: str, where: str, subject: Subject | None, environ: Mapping[str, str]) -> Finding:
    """Say whether a gated model is asked for with a token."""
    runtime = subject.job.runtime if subject is not None else None
    given = next((one for one in (runtime.env if runtime is not None else ()) if one.name in TOKENS), None)
    value = given.value or environ.get(given.name) if given is not None else None
    if given is not None and (given.secret or (value and not _BLANK.fullmatch(value))):
        how = f"{given.name}" + (", a secret" if given.secret else "")
        return Finding(check="hub", status="ok", message=f"{name} is gated; the job brings {how}", where=where)
    here = subject is None or subject.job.infrastructure.type == "local"
    found = hub_token(environ) if here else None
    if found is not None:
        return Finding(check="hub", status="ok", message=f"{name} is gated; it is asked for with {found}", where=where)
    hint = "accept its licence on its page, then "
    if here:
        hint += "export HF_TOKEN=..., or hf auth login"
    else:
        hint += "give the job a token: env: [{name: HF_TOKEN, secret: REFERENCE}]"
    return Finding(
        check="hub", status="problem", message=f"{name} is gated, and no token is there", hint=hint, where=where
    )
