"""What a sharded checkpoint holds, whatever wrote it: whole tensors by name, each described as pieces of its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from cloudtune.weights.files.parts import Part


@attrs.frozen(kw_only=True, eq=False)
class Checkpoint:
    """The tensors of a model, or of one LoRA adapter, under the names that they have in Hugging Face's files.

    ``layout`` says in a few words what was read, ``place`` where below the folder (empty, or it ends with a slash);
    ``notes`` what was left out, and why; ``base`` is the model that the checkpoint itself names; ``adapter`` is the
    adapter's config where the tensors are an adapter's (empty if none was found), and None for a model.
    """

    layout: str
    place: str = ""
    tensors: Mapping[str, Part]
    notes: tuple[str, ...] = ()
    base: str | None = None
    adapter: Mapping[str, Any] | None = None
