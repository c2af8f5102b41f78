"""Which branch of a nested dict that was saved is the model, and what its tensors are called. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from cloudtune.errors import UsageError
from cloudtune.weights.consolidate.names import is_flat, unwrapped

#: The keys by which a tensor is reached, outermost first.
Path = tuple[str, ...]
_Value = TypeVar("_Value")

#: Parts of names of what training keeps beside the model.
TRAINING_STATE = re.compile(r"optim|scheduler|rng_state|random_states|dataloader", re.IGNORECASE)
#: Keys under which models are saved.
_MODELS = frozenset({"model", "module", "state_dict", "model_state", "model_state_dict", "app"})


def model_in(saved: Mapping[Path, _Value], shapes: Mapping[Path, tuple[int, ...]], shown: str) -> dict[str, _Value]:
    """Return the tensors of the model by name, of all tensors that were saved, by path; wrappers are taken off.

    Raises:
        UsageError: there is no model, or several, or its parameters are flat.
    """
    chosen = _chosen(saved, shown)
    found: dict[str, _Value] = {}
    for path, value in saved.items():
        if path[:-1] != chosen:
            continue
        try:
            name = unwrapped(path[-1])
        except ValueError as error:
            raise _flat(shown, str(error)) from error
        if is_flat(name, shapes[path]):
            raise _flat(shown, f"{name} has one dimension: it is a flat parameter of FSDP1")
        if name in found:
            raise UsageError(f"{shown} has {name} twice", hint="save one model in a checkpoint")
        found[name] = value
    return found


def left_out(saved: Mapping[Path, object], model: int) -> tuple[str, ...]:
    """Return a note on the tensors that are not among the ``model`` tensors taken."""
    rest = len(saved) - model
    return (f"{rest} tensors that are not the model's were left out",) if rest else ()


def _chosen(saved: Iterable[Path], shown: str) -> Path:
    """Return the path of the branch that is the model; empty for what was saved without a key."""
    branches = {path[:-1] for path in saved}
    states = sorted(branch for branch in branches if not any(map(TRAINING_STATE.search, branch)))
    if not states:
        raise UsageError(f"{shown} holds no model", hint="name the checkpoint of the model, not of the optimizer")
    if len(states) == 1:
        return states[0]
    models = [branch for branch in states if branch and branch[-1].lower() in _MODELS]
    if len(models) == 1:
        return models[0]
    if () in states and not models:
        return ()
    names = ", ".join(".".join(branch) or "(no key)" for branch in (models or states)[:6])
    raise UsageError(f"{shown} holds several state dicts: {names}", hint="save the one that is wanted as 'model'")


def _flat(shown: str, reason: str) -> UsageError:
    hint = "save with SHARDED_STATE_DICT or FULL_STATE_DICT: a local state dict cannot be put together"
    return UsageError(f"{shown}: {reason}", hint=hint)
