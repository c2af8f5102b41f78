"""Checks a model for a place: ``check("s3://bucket/model/", target="bedrock")``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module

from cloudtune.uri import shown
from cloudtune.weights.checks.adapters import check_adapter, what_it_is
from cloudtune.weights.checks.configs import check_config, check_generation, check_token_ids
from cloudtune.weights.checks.files import check_files
from cloudtune.weights.checks.findings import Finding, Report, ordered
from cloudtune.weights.checks.rules import check_facts
from cloudtune.weights.checks.subject import Subject, opened
from cloudtune.weights.checks.targets import target_named
from cloudtune.weights.checks.templates import check_template
from cloudtune.weights.checks.tensors import check_tensors
from cloudtune.weights.checks.tokenizers import check_tokenizer
from cloudtune.weights.files.assembly import Progress

#: What every model is looked at for, wherever it goes.
CHECKS: tuple[Callable[[Subject], Iterable[Finding]], ...] = (
    check_files,
    check_config,
    check_generation,
    check_token_ids,
    check_tensors,
    check_tokenizer,
    check_template,
    check_adapter,
)
#: Checks that need packages of an extra; imported when they are asked for.
_VALUES = "cloudtune.weights.checks.values"
_TRYING = "cloudtune.weights.checks.trying"


def check(
    model: str,
    *,
    target: str | None = None,
    fast: bool = False,
    load: bool = False,
    generate: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Return everything that is found in the model, or the LoRA adapter, at a URI.

    ``fast`` leaves out what reads every byte. ``load`` builds the model without memory by transformers and compares;
    ``generate`` loads it for good, on this machine's CPU, and lets it say a few words. ``progress`` is called with the
    bytes of tensors read and those in all.

    Raises:
        UsageError: there is no such model or place.
        MissingExtra: numpy is missing, or transformers where the model is to be loaded.
        ServiceError: the model cannot be reached.
    """
    place = target_named(target) if target is not None else None
    with opened(model) as subject:
        findings = [*subject.unread, *(finding for look in CHECKS for finding in look(subject))]
        findings += check_facts(subject, place) if place is not None else what_it_is(subject)
        if not fast:
            findings += import_module(_VALUES).check_values(subject, progress)
        findings += _tried(subject, load=load, generate=generate)
        return Report(
            model=shown(model),
            target=target,
            kind="adapter" if subject.adapter else "model",
            architecture=subject.architecture,
            parameters=subject.parameters,
            bytes=subject.weight_bytes,
            dtypes=subject.dtypes,
            findings=ordered(findings),
        )


def _tried(subject: Subject, *, load: bool, generate: bool) -> Iterator[Finding]:
    if load:
        yield from import_module(_TRYING).check_load(subject)
    if generate:
        yield from import_module(_TRYING).check_generate(subject)
