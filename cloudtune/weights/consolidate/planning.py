"""What is made of a checkpoint: a model like its base, or an adapter of PEFT, with all that goes with either."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

import attrs

from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.uri import shown
from cloudtune.weights.consolidate.checkpoint import Checkpoint
from cloudtune.weights.consolidate.fitting import Fitted, Rounding, fit_adapter, fit_model, with_precision
from cloudtune.weights.consolidate.names import is_adapted
from cloudtune.weights.files.base import base_at
from cloudtune.weights.files.companions import as_it_is, companions_of
from cloudtune.weights.files.configs import architecture_of, config_of, text_of
from cloudtune.weights.files.filenames import ADAPTER_CONFIG, ADAPTER_SINGLE, CONFIG, TRAINING
from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.modelfiles import files_of
from cloudtune.weights.files.origins import Origin, origin
from cloudtune.weights.files.records import record_text
from cloudtune.weights.files.surroundings import Surroundings
from cloudtune.weights.target.models import Model

#: Needs numpy, which nothing else here does.
_CASTING = "cloudtune.weights.consolidate.casting"
#: Precisions to round to by torch's names for them, in safetensors' words.
PRECISIONS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
#: Key of an adapter's config for the model that it was trained on.
_TRAINED_ON = "base_model_name_or_path"


@attrs.frozen(kw_only=True, eq=False)
class Planned:
    """All that is to be written, and what it is: ``place`` is the folder of what travels along."""

    kind: str
    base: Origin | None
    architecture: str | None
    fitted: Fitted
    model: Model
    place: Folder | None


def planned(
    found: Checkpoint, around: Surroundings, told: Folder | None, base: str | None, dtype: str | None
) -> Planned:
    """Return all that is to be written of a checkpoint.

    ``around`` is what lies beside it, ``told`` the folder that ``base`` names, ``dtype`` a precision to round to.

    Raises:
        UsageError: something does not fit together, or nothing says what was trained.
    """
    if found.adapter is not None or is_adapted(found.tensors):
        return _adapter(found, around, told, base, dtype)
    named, folder = (base, told) if told is not None else _trained(found, around)
    if CONFIG not in folder:
        raise UsageError(f"{folder.shown()} has no {CONFIG}", hint="name the model that was trained: --base MODEL")
    text = folder.read(CONFIG)
    config = config_of(folder)
    came_from = origin(named or folder.uri, folder)
    fitted = fit_model(found.tensors, folder, config, came_from, rounding=_rounding(dtype))
    changed = with_precision(fitted.config, fitted.tensors)
    return Planned(
        kind="model",
        base=came_from if named else None,
        architecture=architecture_of(config),
        fitted=fitted,
        model=Model(
            files=files_of(fitted.tensors, like=fitted.like),
            companions=tuple(as_it_is(folder, name) for name in companions_of(folder.files)),
            texts={CONFIG: text if changed == config else record_text(changed)},
        ),
        place=folder,
    )


def _trained(found: Checkpoint, around: Surroundings) -> tuple[str | None, Folder]:
    """Return the base that the training has noted, or else the folder beside the checkpoint that has a config."""
    named = found.base or text_of(around.json(TRAINING), "base")
    beside = around.having(CONFIG)
    if named is not None:
        try:
            return named, base_at(named, weights=False)
        except CloudtuneError:
            if beside is None:
                raise
    if beside is None:
        hint = "name the model that was trained: --base FOLDER, or its name on the Hub"
        raise UsageError("the checkpoint holds weights only, and there is no config.json beside it", hint=hint)
    return None, beside


def _adapter(
    found: Checkpoint, around: Surroundings, told: Folder | None, base: str | None, dtype: str | None
) -> Planned:
    place = told if told is not None and ADAPTER_CONFIG in told else around.having(ADAPTER_CONFIG)
    config = found.adapter or (place.json(ADAPTER_CONFIG) if place is not None else {})
    where = place.shown(ADAPTER_CONFIG) if place is not None else ADAPTER_CONFIG
    fitted = fit_adapter(found.tensors, config, where, rounding=_rounding(dtype))
    if not config:
        note = f"no {ADAPTER_CONFIG} was found: copy that of the training beside {ADAPTER_SINGLE}, or name it as --base"
        fitted = attrs.evolve(fitted, notes=(*fitted.notes, note))
    companions = companions_of(place.files, tokenizer_only=True) if place is not None else ()
    return Planned(
        kind="adapter",
        base=_base_of_adapter(config, found, told, base),
        architecture=None,
        fitted=fitted,
        model=Model(
            files=files_of(fitted.tensors, single=ADAPTER_SINGLE, like=dict.fromkeys(fitted.tensors, ADAPTER_SINGLE)),
            companions=tuple(as_it_is(place, name) for name in companions) if place is not None else (),
            texts={ADAPTER_CONFIG: record_text(_without_secrets(config))} if config else {},
        ),
        place=place,
    )


def _base_of_adapter(
    config: Mapping[str, Any], found: Checkpoint, told: Folder | None, base: str | None
) -> Origin | None:
    name = text_of(config, _TRAINED_ON) or found.base
    if name is not None:
        return origin(name)
    return origin(base, told) if base is not None and told is not None and CONFIG in told else None


def _without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return an adapter's config, which travels, without what may be a password in the URI of its base."""
    name = text_of(config, _TRAINED_ON)
    return {**config, _TRAINED_ON: shown(name)} if name is not None else dict(config)


def _rounding(dtype: str | None) -> Rounding:
    if dtype is None:
        return lambda part: part
    return partial(import_module(_CASTING).cast, dtype=PRECISIONS[dtype])
