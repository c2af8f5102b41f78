"""What the spec's ``overrides`` do to a plan: a JSON Merge Patch (RFC 7396) on the parameters of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from cloudtune.errors import Fault, SpecError
from cloudtune.plan import IfGiven, Masked, Ref, Step, leaves
from cloudtune.spec.fields import thaw
from cloudtune.spec.hiding import MASK, taken_apart

_PATH = "spec.infrastructure.spec.overrides"


def merge_patch(target: Any, patch: Any) -> Any:
    """Return the target as a JSON Merge Patch leaves it; neither of the two is changed.

    A mapping goes into a mapping key by key, null takes a key away, and anything else, lists included, stands in
    place of what was there.

    >>> merge_patch({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": None, "e": [4]}})
    {'a': 1, 'b': {'d': 3, 'e': [4]}}
    """
    if not isinstance(patch, Mapping):
        return thaw(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def patched(steps: tuple[Step, ...], overrides: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the steps with the patches of ``overrides`` on their parameters.

    A literal secret among them is masked: a text under a key like ``HF_TOKEN``, or one that holds the value of a secret
    of the plan. ``${masked:NAME}`` stands for a value that the record of a run does not keep.

    Raises:
        SpecError: a patch is for a step that the plan does not have, or is no mapping.
    """
    known = [step.id for step in steps]
    faults = [
        Fault(path=f"{_PATH}.{name}", message=f"the plan has no step {name!r}", hint=f"steps: {', '.join(known)}")
        for name in overrides
        if name not in known
    ]
    faults += [
        Fault(path=f"{_PATH}.{name}", message="a patch of a step's request is a mapping", hint="write KEY: VALUE")
        for name, patch in overrides.items()
        if name in known and not isinstance(patch, Mapping)
    ]
    if faults:
        raise SpecError(faults)
    names = {
        leaf.name: leaf.value if isinstance(leaf, Masked) else None
        for step in steps
        for leaf in leaves(step.parameters)
        if not isinstance(leaf, (Ref, IfGiven))
    }
    kept, values = taken_apart(overrides, names)
    return tuple(
        attrs.evolve(step, parameters=merge_patch(step.parameters, _masked(kept[step.id], values)))
        if step.id in kept
        else step
        for step in steps
    )


def _masked(patch: Any, values: Mapping[str, str]) -> Any:
    """Return a patch with leaves of the plan in place of ``${masked:NAME}``."""
    if isinstance(patch, Mapping):
        return {key: _masked(value, values) for key, value in patch.items()}
    if isinstance(patch, (list, tuple)):
        return [_masked(value, values) for value in patch]
    mask = MASK.fullmatch(patch) if isinstance(patch, str) else None
    return Masked(mask[1], values.get(mask[1])) if mask else patch
