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
from importlib import import_module
from typing import Any

import attrs

from cloudtune import __version__, storage
from cloudtune.errors import UsageError
from cloudtune.uri import absolute, shown
from cloudtune.weights.consolidate.checkpoint import Checkpoint
from cloudtune.weights.consolidate.planning import PRECISIONS, Planned, planned
from cloudtune.weights.files.assembly import Progress
from cloudtune.weights.files.base import base_at
from cloudtune.weights.files.configs import text_of
from cloudtune.weights.files.filenames import ADAPTER_CONFIG, CONFIG, TRAINING
from cloudtune.weights.files.folder import Folder, folder_at
from cloudtune.weights.files.origins import origin
from cloudtune.weights.files.records import key_of
from cloudtune.weights.files.surroundings import Surroundings, surroundings
from cloudtune.weights.target import open_target
from cloudtune.weights.target.models import write_model

#: Modules of layouts, in the order in which they are asked.
LAYOUTS = (
    "cloudtune.weights.consolidate.layouts.fsdp",
    "cloudtune.weights.consolidate.layouts.neuron",
    "cloudtune.weights.consolidate.layouts.torchstate",
)


#: How the files end that hold the tensors of a checkpoint, or say where they are.
_TENSORS = (".distcp", ".metadata", ".pt", ".pth", ".bin")


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
        UsageError: there is no checkpoint, it is not whole, hostile, or not of this base, and nothing has been written;
            or it has changed while it was read, and there is no model.
    """
    if dtype is not None and dtype not in PRECISIONS:
        raise UsageError(f"there is no precision {dtype!r} to write", hint=f"precisions: {', '.join(PRECISIONS)}")
    with ExitStack() as opened:
        folder, state = _checkpoint_at(checkpoint)
        found, around, told = _read(folder, checkpoint, base, opened)
        plan = planned(found, around, told, base, dtype)
        record = _record(found, around, plan, checkpoint, dtype=dtype, name=name)
        before = _tensors_at(checkpoint)
        with open_target(output, _key(absolute(folder.uri), state, found, plan)) as target:
            record = write_model(plan.model, target, record, checksums=checksums, progress=progress)
            if not before <= _tensors_at(checkpoint):  # others may have come
                hint = "wait until it is written, then consolidate again"
                raise UsageError(f"{shown(checkpoint)} has changed while it was read", hint=hint)
    return ConsolidateResult(
        path=shown(absolute(output)),
        name=record["name"],
        kind=plan.kind,
        checkpoint=shown(checkpoint),
        layout=found.layout,
        base=plan.base.named if plan.base is not None else None,
        run=record["run"],
        tensors=len(plan.fitted.tensors),
        bytes=sum(one.size for one in plan.model.files.outputs),
        notes=tuple(record["notes"]),
        checksums=record["checksums"],
    )


def _checkpoint_at(checkpoint: str) -> tuple[Folder, str]:
    """Return the files of a checkpoint, and what tells it from others; of one file, its folder with that file alone."""
    entries = storage.listing(checkpoint)
    if not entries:
        raise UsageError(f"there is nothing at {shown(checkpoint)}", hint="name the folder of a checkpoint")
    state = json.dumps([entry.state for entry in entries])
    if entries[0].path:
        return Folder(uri=checkpoint, files={entry.path: entry.bytes for entry in entries}), state
    uri, _, name = absolute(checkpoint).rpartition("/")
    return Folder(uri=uri, files={name: entries[0].bytes}), state


def _tensors_at(checkpoint: str) -> frozenset[tuple[object, ...]]:
    """Return what tells the files of tensors below a checkpoint from others in their places."""
    entries = storage.listing(checkpoint)
    return frozenset(entry.state for entry in entries if not entry.path or entry.path.endswith(_TENSORS))


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


def _key(uri: str, state: str, found: Checkpoint, plan: Planned) -> str:
    """Return what names this very model: what it is made of, and how."""
    facts: list[str | bytes] = [uri, state]
    for one in (*plan.model.files.outputs, *plan.model.companions):
        header = one.pieces[0] if one.pieces and isinstance(one.pieces[0], bytes) else b""
        facts += [one.name, str(one.size), header]
    if plan.place is not None:
        facts += [absolute(plan.place.uri), plan.place.state(one.name for one in plan.model.companions)]
    return key_of(*facts, found.layout, found.place, *sorted(plan.model.texts))


def _record(
    found: Checkpoint,
    around: Surroundings,
    plan: Planned,
    checkpoint: str,
    *,
    dtype: str | None,
    name: str | None,
) -> dict[str, Any]:
    """Return what is kept with the model, whoever reads it."""
    base, title = plan.base, origin(checkpoint).title
    return {
        "kind": f"consolidated {plan.kind}",
        "name": name or (base.title if base is not None else title).rpartition("/")[2].partition(":")[0],
        "base": base.title if base is not None else None,
        "base_on_hub": base.hub if base is not None else None,
        "architecture": plan.architecture,
        "checkpoint": title,
        "layout": found.layout,
        "dtype": dtype,
        "run": text_of(around.json(TRAINING), "run"),
        "notes": [*found.notes, *plan.fitted.notes],
        "versions": {"cloudtune": __version__},
    }
