"""What the spec's ``overrides`` do to a plan: a JSON Merge Patch (RFC 7396) on the parameters of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from cloudtune.errors import Fault, SpecError
from cloudtune.plan import Step, mask
from cloudtune.spec.fields import thaw

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

    A literal secret among them (``HF_TOKEN: ...``) is masked like one in the job's own variables.

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
    return tuple(
        attrs.evolve(step, parameters=merge_patch(step.parameters, _masked(overrides[step.id])))
        if step.id in overrides
        else step
        for step in steps
    )


def _masked(patch: Any, name: str = "") -> Any:
    if isinstance(patch, Mapping):
        return {key: _masked(value, key) for key, value in patch.items()}
    # only what is spelled as variables are: the key of a toleration or a tag is no secret
    return mask(name, patch) if isinstance(patch, str) and name.isupper() else patch
