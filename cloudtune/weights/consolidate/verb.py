"""Sharded checkpoints into one Hugging Face model: what is where is found out first, then bytes are copied.

Each layout has a module with two functions, and a row in the table here::

    def recognise(folder: Folder) -> bool
    def read(folder: Folder, opened: ExitStack, *, config: Mapping[str, Any]) -> Checkpoint

``recognise`` goes by the names of files alone. ``read`` reads metadata, makes all checks, and describes every tensor
as pieces of files that stay open until ``opened`` ends; it raises UsageError for whatever does not fit together.
``config`` is the config.json of the base, or of the checkpoint if it has one, else empty.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any

import attrs

from cloudtune import __version__, storage
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.ranges import LooseReader
from cloudtune.uri import absolute, join, shown
from cloudtune.weights.consolidate.checkpoint import Checkpoint
from cloudtune.weights.consolidate.fitting import Fitted, Rounding, fit_adapter, fit_model, with_precision
from cloudtune.weights.consolidate.names import is_adapted
from cloudtune.weights.files.assembly import Output, Progress, Span
from cloudtune.weights.files.base import base_at
from cloudtune.weights.files.companions import companions_of
from cloudtune.weights.files.model import ADAPTER_CONFIG, ADAPTER_SINGLE, CONFIG, INDEX, Folder, folder_at
from cloudtune.weights.files.modelfiles import Files, files_of
from cloudtune.weights.files.records import RECORD, record_text
from cloudtune.weights.files.surroundings import Surroundings, surroundings
from cloudtune.weights.target import open_target

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
_CARD = "README.md"
_TRAINING = "training.json"


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
class _Model:
    """All that is written: files of tensors, small files that travel along, and the configs by name."""

    kind: str
    base: str | None
    fitted: Fitted
    files: Files
    companions: tuple[Output, ...]
    #: Where the companions lie.
    place: Folder | None
    configs: Mapping[str, bytes]


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
        model = _planned(found, around, told, base, dtype)
        training = around.json(_TRAINING)
        key = _key(absolute(folder.uri), state, found, model)
        with open_target(output, key) as target:
            outputs = (*model.files.outputs, *model.companions)
            target.expect([INDEX, *model.configs, _CARD, RECORD, *(one.name for one in outputs)])
            target.write(outputs, progress)
            if model.files.index is not None:
                target.put(INDEX, model.files.index)
            for file, text in model.configs.items():
                target.put(file, text)
            record: dict[str, Any] = {
                "kind": f"consolidated {model.kind}",
                "name": name or _name(model.base or checkpoint),
                "base": model.base,
                "checkpoint": shown(absolute(checkpoint)),
                "layout": found.layout,
                "dtype": dtype,
                "run": training.get("run"),
                "notes": [*found.notes, *model.fitted.notes],
                "versions": {"cloudtune": __version__},
            }
            target.put(_CARD, _card(record).encode())
            record["checksums"] = target.checksums() if checksums else {}
            target.put(RECORD, record_text(record))
    return ConsolidateResult(
        path=absolute(output),
        name=record["name"],
        kind=model.kind,
        checkpoint=shown(checkpoint),
        layout=found.layout,
        base=model.base,
        run=record["run"],
        tensors=len(model.fitted.tensors),
        bytes=sum(one.size for one in model.files.outputs),
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
            around = surroundings(folder, found.place, (CONFIG, ADAPTER_CONFIG, _TRAINING))
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
) -> _Model:
    """Return all that is to be written; raises UsageError for whatever does not fit together."""
    if found.adapter is not None or is_adapted(found.tensors):
        return _planned_adapter(found, around, told, base, dtype)
    named, folder = (base, told) if told is not None else _trained(found, around)
    if CONFIG not in folder:
        raise UsageError(f"{folder.shown()} has no {CONFIG}", hint="name the model that was trained: --base MODEL")
    text = folder.read(CONFIG)
    config = folder.json(CONFIG)
    if config.get("quantization_config"):
        hint = "name the model in 16 bits that it was quantized from"
        raise UsageError(f"{folder.shown()} is quantized, and the checkpoint is not", hint=hint)
    fitted = fit_model(found.tensors, folder, config, shown(named or folder.uri), rounding=_rounding(dtype))
    changed = with_precision(fitted.config, fitted.tensors)
    return _Model(
        kind="model",
        base=shown(named) if named else None,
        fitted=fitted,
        files=files_of(fitted.tensors, like=fitted.like),
        companions=_companions(folder),
        place=folder,
        configs={CONFIG: text if changed == config else record_text(dict(changed))},
    )


def _trained(found: Checkpoint, around: Surroundings) -> tuple[str | None, Folder]:
    """Return the base that the training has noted, or else the folder beside the checkpoint that has a config."""
    named = found.base or around.json(_TRAINING).get("base")
    beside = around.having(CONFIG)
    if isinstance(named, str) and named:
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
) -> _Model:
    place = told if told is not None and ADAPTER_CONFIG in told else around.having(ADAPTER_CONFIG)
    config = found.adapter or (place.json(ADAPTER_CONFIG) if place is not None else {})
    where = place.shown(ADAPTER_CONFIG) if place is not None else ADAPTER_CONFIG
    fitted = fit_adapter(found.tensors, config, where, rounding=_rounding(dtype))
    if not config:
        note = f"no {ADAPTER_CONFIG} was found: copy that of the training beside {ADAPTER_SINGLE}, or name it as --base"
        fitted = attrs.evolve(fitted, notes=(*fitted.notes, note))
    name = config.get("base_model_name_or_path") or found.base or (base if told and CONFIG in told else None)
    return _Model(
        kind="adapter",
        base=shown(name) if isinstance(name, str) else None,
        fitted=fitted,
        files=files_of(fitted.tensors, single=ADAPTER_SINGLE, like=dict.fromkeys(fitted.tensors, ADAPTER_SINGLE)),
        companions=_companions(place, tokenizer_only=True) if place is not None else (),
        place=place,
        configs={ADAPTER_CONFIG: record_text(dict(config))} if config else {},
    )


def _rounding(dtype: str | None) -> Rounding:
    if dtype is None:
        return lambda part: part
    return partial(import_module(_CASTING).cast, dtype=PRECISIONS[dtype])


def _companions(folder: Folder, *, tokenizer_only: bool = False) -> tuple[Output, ...]:
    """Return tokenizer, chat template, generation config and licence of a base as files to be written."""
    found = []
    for name in companions_of(folder.files, tokenizer_only=tokenizer_only):
        size = folder.files[name]
        # not read here: a tokenizer has up to 30 MB
        reader = LooseReader(join(folder.uri, name), size)
        found.append(Output(name=name, pieces=(Span(reader=reader, offset=0, length=size),)))
    return tuple(found)


def _key(uri: str, state: str, found: Checkpoint, model: _Model) -> str:
    """Return what names this very model: what it is made of, and how."""
    digest = hashlib.sha256(f"{uri}\0{state}\0".encode())
    for one in (*model.files.outputs, *model.companions):
        header = one.pieces[0] if one.pieces and isinstance(one.pieces[0], bytes) else b""
        digest.update(f"{one.name}\0{one.size}\n".encode() + header)
    if model.place is not None:
        digest.update(model.place.state(one.name for one in model.companions).encode())
    digest.update(json.dumps([found.layout, found.place, sorted(model.configs)]).encode())
    return digest.hexdigest()[:16]


def _name(place: str) -> str:
    return PurePosixPath(place.rstrip("/")).name or "model"


def _card(record: Mapping[str, Any]) -> str:
    """Return the README.md of a consolidated model."""
    adapter = record["kind"].endswith("adapter")
    base = record["base"]
    lines = ["---", f"library_name: {'peft' if adapter else 'transformers'}"]
    if base and "://" not in base and not base.startswith(("/", ".", "~")):
        lines.append(f"base_model: {base}")
    lines += ["tags:", "- cloudtune", *(["- lora"] if adapter else []), "---", "", f"# {record['name']}", ""]
    what = "A LoRA adapter for" if adapter else "Fine-tuned from"
    lines += [
        f"{what} `{base}`, consolidated from a {record['layout']}." if base else f"From a {record['layout']}.",
        "",
    ]
    if record["run"]:
        lines += [f"Trained in run `{record['run']}`.", ""]
    lines += [f"- {note}" for note in record["notes"]] + ([""] if record["notes"] else [])
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines += [f"Consolidated with {versions}. What it was made of is in `{RECORD}`.", ""]
    return "\n".join(lines)
