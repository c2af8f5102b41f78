"""A whole model at a target: its files in the order in which they may appear, then its card and its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from cloudtune.weights.files.assembly import Output, Progress
from cloudtune.weights.files.cards import card
from cloudtune.weights.files.filenames import CARD, INDEX, RECORD
from cloudtune.weights.files.modelfiles import Files
from cloudtune.weights.files.records import plain, record_text
from cloudtune.weights.target import Target


@attrs.frozen(kw_only=True, eq=False)
class Model:
    """All that is written of a model: files of tensors, files that travel along, and small ones by name."""

    files: Files
    companions: tuple[Output, ...]
    texts: Mapping[str, bytes]


def write_model(
    model: Model, target: Target, record: Mapping[str, Any], *, checksums: bool, progress: Progress | None
) -> dict[str, Any]:
    """Write a model with its card, and return its record as it was written, the checksums in it if they are wanted.

    The card is not among the checksums: people are to go on with it.

    Raises:
        UsageError: a file is in the way; nothing has been written then.
    """
    outputs = (*model.files.outputs, *model.companions)
    target.expect([INDEX, *model.texts, CARD, RECORD, *(one.name for one in outputs)])
    target.write(outputs, progress)
    if model.files.index is not None:
        target.put(INDEX, model.files.index)
    for name, text in model.texts.items():
        target.put(name, text)
    sums = target.checksums() if checksums else {}
    whole = {**plain(record), "checksums": sums}
    target.put(CARD, card(whole, sums).encode(errors="replace"))
    target.put(RECORD, record_text(whole))
    return whole
