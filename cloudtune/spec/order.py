"""The steps of a pipeline in order, and the references between them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cloudtune.errors import Fault, SpecError
from cloudtune.spec.graph import sort
from cloudtune.spec.job import PipelineSpec, PipelineStep

_REFERENCE = re.compile(r"\$\{steps\.([^}]{0,100})\}")


def order_of_steps(pipeline: PipelineSpec) -> tuple[PipelineStep, ...]:
    """Return the steps so that each stands after what it needs; otherwise in the order of the file.

    A step needs what its ``needs`` names, and every step whose outputs it mentions as ``${steps.NAME.outputs}``.

    Raises:
        SpecError: the steps need each other in a circle.
    """
    order, circle = sort(needs_of(pipeline))
    if circle:
        raise SpecError([Fault(path="spec.steps", message=circle_message(circle))])
    steps = {step.name: step for step in pipeline.steps}
    return tuple(steps[name] for name in order)


def needs_of(pipeline: PipelineSpec) -> dict[str, tuple[str, ...]]:
    """Return what each step needs, by name: what it says and what it mentions."""
    return {
        step.name: (*step.needs, *(name for _, name, rest in references(step) if rest == "outputs"))
        for step in pipeline.steps
    }


def circle_message(circle: list[str]) -> str:
    """Say which steps need each other."""
    return f"the steps need each other in a circle: {' needs '.join([*circle, circle[0]])}"


def references(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Yield (path of attributes, step, field) for every ``${steps.STEP.FIELD}`` in a spec value, keys included."""
    if isinstance(value, str):
        for match in _REFERENCE.finditer(value):
            name, _, field = match[1].rpartition(".")
            yield path, name or field, field if name else ""
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from references(key, (*path, key))
            yield from references(item, (*path, key))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from references(item, (*path, index))
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from references(getattr(value, field.name), (*path, field.name))
