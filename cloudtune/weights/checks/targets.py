"""What places demand of a model: facts as data, each with its source, in a JSON file a place beside this one.

A fact that is only recalled, not read on a page or in a source, is never an error. What a fact means to a model is
said by the rule of its name, in :mod:`cloudtune.weights.checks.rules`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.weights.checks.findings import SEVERITIES

#: Places that a model can be checked for.
TARGETS = ("bedrock", "vllm", "sagemaker", "oci")
#: How a fact is known: from the place's documentation, from its source code, or by heart.
KNOWN = ("documented", "source", "recalled")


@attrs.frozen(kw_only=True)
class Fact:
    """One demand of a place: the ``rule`` that reads ``values``, how grave it is, where and when it was read."""

    rule: str
    severity: str = attrs.field(validator=attrs.validators.in_(SEVERITIES))
    known: str = attrs.field(validator=attrs.validators.in_(KNOWN))
    source: str
    read: str
    values: Mapping[str, Any] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if self.known == "recalled" and self.severity == "error":
            raise ValueError(f"{self.rule}: what is only recalled is no error")


@attrs.frozen(kw_only=True)
class Target:
    """A place that serves models."""

    name: str
    title: str
    facts: tuple[Fact, ...]


@cache
def target_named(name: str) -> Target:
    """Return a place; raises UsageError if it is not known."""
    if name not in TARGETS:
        raise UsageError(
            f"there is no place {name!r} to check for", hint=f"places of this release: {', '.join(TARGETS)}"
        )
    data = json.loads(Path(__file__).with_name(f"{name}.json").read_text(encoding="utf-8"))
    facts = []
    for item in data["facts"]:
        item = dict(item)  # noqa: PLW2901
        # places that run the same server share what is known of it
        if "as" in item:
            fact = next(one for one in target_named(item.pop("as")).facts if one.rule == item["rule"])
            item = {**attrs.asdict(fact, recurse=False), **item}  # noqa: PLW2901
        facts.append(Fact(**item))
    return Target(name=name, title=data["title"], facts=tuple(facts))
