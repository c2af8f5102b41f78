"""Sharded checkpoints into one Hugging Face model: what is where is found out first, then bytes are copied.

Each layout has a module with two functions, and a row in the table here::

    def recognise(folder: Folder) -> bool
    def read(folder: Folder, opened: ExitStack, *, config: Mapping[str, Any]) -> Checkpoint

``recognise`` goes by the names of files alone. ``read`` reads metadata, makes all checks, and describes every tensor
as pieces of files that stay open until ``opened`` ends; it raises UsageError for whatever does not fit together.
``config`` is the config.json of the base, or of the checkpoint if it has one, else empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from typing import Any

import attrs

from cloudtune import __version__, storage
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.uri import absolute, shown
from cloudtune.weights.consolidate.checkpoint import Checkpoint
from cloudtune.weights.consolidate.fitting import Fitted, Rounding, fit_adapter, fit_model, with_precision
from cloudtune.weights.consolidate.names import is_adapted
from cloudtune.weights.files.assembly import Progress
from cloudtune.weights.files.base import base_at
from cloudtune.weights.files.companions import as_it_is, companions_of
from cloudtune.weights.files.configs import architecture_of, config_of, text_of
from cloudtune.weights.files.filenames import ADAPTER_CONFIG, ADAPTER_SINGLE, CONFIG, TRAINING
from cloudtune.weights.files.folder import Folder, folder_at
from cloudtune.weights.files.modelfiles import files_of
from cloudtune.weights.files.origins import Origin, origin
from cloudtune.weights.files.records import key_of, record_text
from cloudtune.weights.files.surroundings import Surroundings, surroundings
from cloudtune.weights.target import open_target
from cloudtune.weights.target.models import Model, write_model

#: Modules of layouts, in the order in which they are asked.
LAYOUTS = (
    "cloudtune.weights.consolidate.layouts.fsdp",
    "cloudtune.weights.consolidate.layouts.neuron",
    "cloudtune.weights.consolidate.layouts.torchstate",
)
#: Needs numpy, which nothing else here does.
_CASTING = "cloudtune.weights.consolidate.casting"
#: Precisions to round to by torch's names for them, in safetensors' words.
PRECISIONS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
#: Key of an adapter's config for the model that it was trained on.
_TRAINED_ON = "base_model_name_or_path"


@attrs.frozen(kw_only=True)
class ConsolidateResult:
    """A consolidated model: where it is, what it was made of, and if asked for what its files must hash to (sha256).

    ``kind`` is ``model`` or ``adapter``; ``notes`` say what was left out or looks odd.
    """

    path: str
    name: str
    kind: str
    checkpoint: str
    layout: str
    base: str | None = None
    run: str | None = None
    tensors: int = 0
    bytes: int = 0
    notes: tuple[str, ...] = ()
    checksums: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True, eq=False)
class _Planned:
    """All that is to be written, and what it is: ``place`` is the folder of what travels along."""

    kind: str
    base: Origin | None
    architecture: str | None
    fitted: Fitted
    model: Model
    place: Folder | None


def consolidate(
    checkpoint: str,
    output: str,
    *,
    base: str | None = None,
    dtype: str | None = None,
    name: str | None = None,
    checksums: bool = False,
    progress: Progress | None = None,
) -> ConsolidateResult:
    """Write the model or the LoRA adapter in a sharded checkpoint as Hugging Face and PEFT have it.

    ``checkpoint`` is a folder or a URI, also of one file of ``torch.save``. ``base`` is the model that was trained, a
    folder, a URI or a name on the Hub: its config, tokenizer and licence are taken along, and names and shapes are
    compared with its weights; without it they are looked for beside the checkpoint. ``dtype`` is a precision to round
    to. ``checksums`` records what the files hash to, which takes longer than all the rest. The output is there whole or
    not at all, and goes on where it was interrupted.

    Raises:
        UsageError: there is no checkpoint, it is not whole, hostile, or not of this base; nothing has been written.
    """
    if dtype is not None and dtype not in PRECISIONS:
        raise UsageError(f"there is no precision {dtype!r} to write", hint=f"precisions: {', '.join(PRECISIONS)}")
    with ExitStack() as opened:
        folder, state = _checkpoint_at(checkpoint)
        found, around, told = _read(folder, checkpoint, base, opened)
        planned = _planned(found, around, told, base, dtype)
        record = _record(found, around, planned, checkpoint, dtype=dtype, name=name)
        with open_target(output, _key(absolute(folder.uri), state, found, planned)) as target:
            record = write_model(planned.model, target, record, checksums=checksums, progress=progress)
    return ConsolidateResult(
        path=shown(absolute(output)),
        name=record["name"],
        kind=planned.kind,
        checkpoint=shown(checkpoint),
        layout=found.layout,
        base=planned.base.named if planned.base is not None else None,
        run=record["run"],
        tensors=len(planned.fitted.tensors),
        bytes=sum(one.size for one in planned.model.files.outputs),
        notes=tuple(record["notes"]),
        checksums=record["checksums"],
    )


def _checkpoint_at(checkpoint: str) -> tuple[Folder, str]:
    """Return the files of a checkpoint, and what tells it from others; of one file, its folder with that file alone."""
    entries = storage.listing(checkpoint)
    if not entries:
        raise UsageError(f"there is nothing at {shown(checkpoint)}", hint="name the folder of a checkpoint")
    state = json.dumps([(entry.path, entry.bytes, entry.modified) for entry in entries])
    if entries[0].path:
        return Folder(uri=checkpoint, files={entry.path: entry.bytes for entry in entries}), state
    uri, _, name = absolute(checkpoint).rpartition("/")
    return Folder(uri=uri, files={name: entries[0].bytes}), state


def _read(
    folder: Folder, checkpoint: str, base: str | None, opened: ExitStack
) -> tuple[Checkpoint, Surroundings, Folder | None]:
    """Return what is in a checkpoint, what lies beside it, and the folder of the base that was told."""
    told = _base_folder(base) if base is not None else None
    near = told or surroundings(folder, "", (CONFIG,)).having(CONFIG)
    config = near.json(CONFIG) if near is not None and CONFIG in near else {}
    for dotted in LAYOUTS:
        layout = import_module(dotted)
        if layout.recognise(folder):
            found: Checkpoint = layout.read(folder, opened, config=config)
            around = surroundings(folder, found.place, (CONFIG, ADAPTER_CONFIG, TRAINING))
            return found, around, told
    hint = "name the folder that training left: with .distcp files, with shards/, or a state dict of torch.save"
    if any(name.endswith(".safetensors") for name in folder.files):
        hint = "its weights are in safetensors already: there is nothing to consolidate"
    if ADAPTER_CONFIG in folder:
        hint = f"it is an adapter: cloudtune merge BASE {shown(checkpoint)} -o MODEL"
    raise UsageError(f"{shown(checkpoint)} is no checkpoint that is known", hint=hint)


def _base_folder(base: str) -> Folder:
    """Return the folder of a base, or of an adapter whose config is wanted."""
    folder = folder_at(base)
    return folder if ADAPTER_CONFIG in folder and CONFIG not in folder else base_at(base, weights=False)


def _planned(
    found: Checkpoint, around: Surroundings, told: Folder | None, base: str | None, dtype: str | None
) -> _Planned:
    """Return all that is to be written; raises UsageError for whatever does not fit together."""
    if found.adapter is not None or is_adapted(found.tensors):
        return _planned_adapter(found, around, told, base, dtype)
    named, folder = (base, told) if told is not None else _trained(found, around)
    if CONFIG not in folder:
        raise UsageError(f"{folder.shown()} has no {CONFIG}", hint="name the model that was trained: --base MODEL")
    text = folder.read(CONFIG)
    config = config_of(folder)
    came_from = origin(named or folder.uri, folder)
    fitted = fit_model(found.tensors, folder, config, came_from, rounding=_rounding(dtype))
    changed = with_precision(fitted.config, fitted.tensors)
    return _Planned(
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


def _planned_adapter(
    found: Checkpoint, around: Surroundings, told: Folder | None, base: str | None, dtype: str | None
) -> _Planned:
    place = told if told is not None and ADAPTER_CONFIG in told else around.having(ADAPTER_CONFIG)
    config = found.adapter or (place.json(ADAPTER_CONFIG) if place is not None else {})
    where = place.shown(ADAPTER_CONFIG) if place is not None else ADAPTER_CONFIG
    fitted = fit_adapter(found.tensors, config, where, rounding=_rounding(dtype))
    if not config:
        note = f"no {ADAPTER_CONFIG} was found: copy that of the training beside {ADAPTER_SINGLE}, or name it as --base"
        fitted = attrs.evolve(fitted, notes=(*fitted.notes, note))
    companions = companions_of(place.files, tokenizer_only=True) if place is not None else ()
    return _Planned(
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


def _key(uri: str, state: str, found: Checkpoint, planned: _Planned) -> str:
    """Return what names this very model: what it is made of, and how."""
    facts: list[str | bytes] = [uri, state]
    for one in (*planned.model.files.outputs, *planned.model.companions):
        header = one.pieces[0] if one.pieces and isinstance(one.pieces[0], bytes) else b""
        facts += [one.name, str(one.size), header]
    if planned.place is not None:
        facts += [absolute(planned.place.uri), planned.place.state(one.name for one in planned.model.companions)]
    return key_of(*facts, found.layout, found.place, *sorted(planned.model.texts))


def _record(
    found: Checkpoint,
    around: Surroundings,
    planned: _Planned,
    checkpoint: str,
    *,
    dtype: str | None,
    name: str | None,
) -> dict[str, Any]:
    """Return what is kept with the model, whoever reads it."""
    base, title = planned.base, origin(checkpoint).title
    return {
        "kind": f"consolidated {planned.kind}",
        "name": name or (base.title if base is not None else title).rpartition("/")[2],
        "base": base.title if base is not None else None,
        "base_on_hub": base.hub if base is not None else None,
        "architecture": planned.architecture,
        "checkpoint": title,
        "layout": found.layout,
        "dtype": dtype,
        "run": text_of(around.json(TRAINING), "run"),
        "notes": [*found.notes, *planned.fitted.notes],
        "versions": {"cloudtune": __version__},
    }
