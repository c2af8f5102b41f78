"""Rules of places about adapters: whether they are served at all, and what a server of adapters cannot do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from cloudtune.weights.checks.adapters import halves_of
from cloudtune.weights.checks.subject import Subject, natural
from cloudtune.weights.files.filenames import ADAPTER_CONFIG

Told = tuple[str, str, str]
_MERGE = "merge it: cloudtune merge BASE ADAPTER"


def _refused(_: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Whole models only."""
    yield f"this is an adapter alone: {values['message']}", _MERGE, ADAPTER_CONFIG


def _kinds(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Types of adapters that are served."""
    kind = subject.config.get("peft_type")
    if kind not in values["allowed"]:
        yield f"adapters of type {kind} are not served", "merge it with the library that made it", ADAPTER_CONFIG


def _rank(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """The most that a rank may be."""
    rank = _largest_rank(subject)
    if rank is not None and rank > values["most"]:
        yield f"the rank is {rank}, and {values['most']} is the most", _MERGE, ADAPTER_CONFIG


def _rank_option(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """The rank that is served unless an option says more, which takes certain values."""
    rank = _largest_rank(subject)
    if rank is None or rank <= values["default"]:
        return
    enough = next((value for value in values["values"] if value >= rank), None)
    if enough is not None:
        message = f"the rank is {rank}, and the server is made for {values['default']} unless it is told"
        yield message, f"serve with {values['option']} {enough}", ADAPTER_CONFIG


def _largest_rank(subject: Subject) -> int | None:
    config = subject.config
    pattern = config.get("rank_pattern")
    found = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    return max((rank for value in found if (rank := natural(value)) is not None), default=None)


def _features(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Settings of PEFT that are not served: each with what would come of it."""
    for key, what in values.items():
        value = subject.config.get(key)
        if value not in (None, False, "none", [], {}, ""):
            yield f"{key} is set: {what}", _MERGE, ADAPTER_CONFIG


def _tensors(subject: Subject, values: Mapping[str, Any]) -> Iterator[Told]:
    """Only the two matrices of each module are read."""
    halves = {name for names in halves_of(subject).values() for name in names.values()}
    for name in subject.weights:
        if name not in halves:
            yield f"{name} is neither a lora_A nor a lora_B: {values['message']}", _MERGE, subject.place_of(name)


ADAPTER_RULES: Mapping[str, Callable[[Subject, Mapping[str, Any]], Iterable[Told]]] = {
    "adapter-refused": _refused,
    "adapter-kinds": _kinds,
    "adapter-rank": _rank,
    "adapter-rank-option": _rank_option,
    "adapter-features": _features,
    "adapter-tensors": _tensors,
}
