"""LoRA adapters into their base model: one Hugging Face model out, tensor by tensor, from wherever to wherever.

``accurate`` computes in 32 bits and rounds once, to the precision of the base, bit for bit what PEFT's
``PeftModel.from_pretrained(base, adapter).merge_and_unload()`` gives; ``peft`` does what ``AutoPeftModelForCausalLM``
does with the base's dtype and ``low_cpu_mem_usage``, as many guides load it: the adapter is rounded to that precision
first.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from cloudtune.errors import MissingExtra, UsageError
from cloudtune.uri import absolute, shown
from cloudtune.weights.files.assembly import Progress
from cloudtune.weights.files.base import base_at
from cloudtune.weights.files.configs import config_of
from cloudtune.weights.files.expected import lacking
from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.model import open_weights
from cloudtune.weights.files.modelfiles import files_of
from cloudtune.weights.files.origins import origin
from cloudtune.weights.merge import factors
from cloudtune.weights.merge.adapters import Adapter, adapter_at, tensors_of
from cloudtune.weights.merge.around import beside
from cloudtune.weights.merge.dialects import PLACES
from cloudtune.weights.merge.gathering import Given
from cloudtune.weights.merge.merged import merged
from cloudtune.weights.merge.modules import Base
from cloudtune.weights.merge.record import key_of_merge, record_of
from cloudtune.weights.merge.soundness import notes_of
from cloudtune.weights.target import open_target
from cloudtune.weights.target.models import Model, write_model

try:
    from threadpoolctl import threadpool_limits
except ImportError as error:
    raise MissingExtra("weights", "merging") from error

MODES = ("accurate", "peft")


@attrs.frozen(kw_only=True)
class MergeResult:
    """A merged model: where it is, what it was made of, and what each of its files must hash to (sha256).

    ``notes`` say what should be known of it.
    """

    path: str
    name: str
    base: str
    adapters: tuple[str, ...]
    mode: str
    weights: tuple[float, ...] = ()
    run: str | None = None
    metrics: Mapping[str, Any] = attrs.field(factory=dict)
    notes: tuple[str, ...] = ()
    checksums: Mapping[str, str] = attrs.field(factory=dict)


def merge(
    base: str,
    adapters: Sequence[str],
    output: str,
    *,
    mode: str = "accurate",
    name: str | None = None,
    weights: Sequence[float] = (),
    target: str | None = None,
    checksums: bool = True,
    progress: Progress | None = None,
) -> MergeResult:
    """Merge adapters into their base and write the model with all that belongs to it.

    ``base`` is a folder, a URI or a name on the Hub; adapters and output are folders or URIs. Of several adapters the
    sum is added, each multiplied by its weight (1 if no ``weights`` are given), and rounded once. The output is there
    whole or not at all, and goes on where it was interrupted; ``cloudtune.json`` in it says what it was made of.
    ``target`` is the place that it is to go to, for which configs are written in an older form. ``checksums`` says
    whether every file's SHA-256 is computed for the record.

    Raises:
        UsageError: there is no adapter, or it does not fit the base, and nothing has been written; or one of them has
            changed while it was read, and there is no model.
    """
    given = _weights(mode, adapters, weights)
    if target is not None and target not in PLACES:
        raise UsageError(f"there is no place {target!r} to write a model for", hint=f"places: {', '.join(PLACES)}")
    with ExitStack() as opened:
        found = [adapter_at(uri) for uri in adapters]
        folder = base_at(base)
        came_from = origin(base, folder)
        config = config_of(folder)
        model = Base(weights=opened.enter_context(open_weights(folder)), config=config, source=came_from.named)
        _check_whole(model)
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="cloudtune-merge-")))
        opened.callback(factors.forget)
        parts = [
            Given(
                adapter=adapter,
                tensors=tensors_of(adapter, opened, scratch / str(number)),
                weight=weight,
                rounded=mode == "peft",
            )
            for number, (adapter, weight) in enumerate(zip(found, given, strict=True))
        ]
        made = merged(model, parts)
        texts, companions = beside(folder, config, found, parted=made.untied, place=target)
        notes = notes_of(came_from, folder, config, parts)
        facts = record_of(came_from, folder, config, parts, mode=mode, name=name, place=target, notes=notes)
        key, before = key_of_merge(folder, found, facts, texts), _state(folder, found)
        # a thread multiplies alone: the others have tensors of their own
        with threadpool_limits(1, user_api="blas"), open_target(output, key) as place:
            whole = Model(files=files_of(made.tensors, like=made.like), companions=companions, texts=texts)
            record = write_model(whole, place, facts, checksums=checksums, progress=progress)
            if _state(folder, found) != before:
                hint = "wait until they are written, then merge again"
                raise UsageError(f"tensors of {came_from.named} or its adapter have changed meanwhile", hint=hint)
    return result_of(record, base, adapters, output)


def _state(folder: Folder, adapters: Sequence[Adapter]) -> tuple[str, ...]:
    """Return what tells the files of tensors from others in their places."""
    folders = (folder, *(adapter.folder for adapter in adapters))
    return tuple(one.state(name for name in one.files if name.endswith((".safetensors", ".bin"))) for one in folders)


def _check_whole(base: Base) -> None:
    """Raise UsageError if the base's config says that it has tensors which its files lack."""
    missing = lacking(base.config, base.weights.places)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        hint = "copy the whole folder of the base; if it is whole, config.json is another model's"
        raise UsageError(f"{base.source} lacks {missing[0]}{more}, which its config.json says it has", hint=hint)


def result_of(record: Mapping[str, Any], base: str, adapters: Sequence[str], output: str) -> MergeResult:
    """Return the result of a merge by what is kept with the model, and by what its parts were called."""
    return MergeResult(
        path=shown(absolute(output)),
        name=record["name"],
        base=shown(base),
        adapters=tuple(map(shown, adapters)),
        mode=record["mode"],
        weights=tuple(record["weights"]),
        run=record["run"],
        metrics=record["metrics"],
        notes=tuple(record["notes"]),
        checksums=record["checksums"],
    )


def _weights(mode: str, adapters: Sequence[str], weights: Sequence[float]) -> list[float]:
    """Return the weight of each adapter; raises UsageError if what is asked for cannot be."""
    if mode not in MODES:
        raise UsageError(f"there is no mode {mode!r} to merge in", hint=f"modes: {', '.join(MODES)}")
    if not adapters:
        raise UsageError("there is no adapter to merge", hint="cloudtune merge BASE ADAPTER -o DIR")
    if mode == "peft" and len(adapters) > 1:
        raise UsageError("mode peft merges one adapter", hint="--mode accurate merges several")
    if weights and len(weights) != len(adapters):
        hint = "give a weight for each adapter, in their order, or none at all"
        raise UsageError(f"there are {len(adapters)} adapters and {len(weights)} weights", hint=hint)
    if not all(math.isfinite(weight) for weight in weights):
        raise UsageError(f"the weights {', '.join(map(str, weights))} are not all numbers", hint="such as --weight 0.5")
    return [float(weight) for weight in weights] or [1.0] * len(adapters)
