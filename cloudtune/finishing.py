"""The verbs that make a model of what training has left; apart from the others, because they need nothing of those.

Starting the rest of the verbs takes as long as copying half a gigabyte.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cloudtune.errors import UsageError
from cloudtune.naming import place_of

if TYPE_CHECKING:
    from cloudtune.weights.consolidate.verb import ConsolidateResult
    from cloudtune.weights.merge.verb import MergeResult


def merge(
    base: str,
    adapter: str | Sequence[str],
    *,
    output: str | None = None,
    mode: str = "accurate",
    weight: Sequence[float] = (),
    name: str | None = None,
    for_: str | None = None,
    checksums: bool = True,
    notebook: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> MergeResult:
    """Merge LoRA adapters into their base model; see :func:`cloudtune.weights.merge.verb.merge`.

    Base and adapters may be ``NAME[:VERSION]`` of ``register``. With ``notebook`` the package's notebook does it, and
    its executed copy is kept with the model.
    """
    base = place_of(base, hub=True)
    adapters = [place_of(one) for one in ([adapter] if isinstance(adapter, str) else adapter)]
    if notebook:
        from cloudtune.weights.merge.notebook import merge_by_notebook

        options = {"mode": mode, "weight": list(weight), "name": name, "target": for_, "checksums": checksums}
        return merge_by_notebook(base, adapters, _output(output), **options)
    from cloudtune.weights.merge.verb import merge as merge_weights

    return merge_weights(
        base,
        adapters,
        _output(output),
        mode=mode,
        weights=weight,
        name=name,
        target=for_,
        checksums=checksums,
        progress=progress,
    )


def consolidate(
    checkpoint: str,
    *,
    base: str | None = None,
    output: str | None = None,
    dtype: str | None = None,
    name: str | None = None,
    checksums: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> ConsolidateResult:
    """Make one model of a sharded checkpoint; see :func:`cloudtune.weights.consolidate.verb.consolidate`.

    Checkpoint and base may be ``NAME[:VERSION]`` of ``register``.
    """
    from cloudtune.weights.consolidate.verb import consolidate as consolidate_weights

    return consolidate_weights(
        place_of(checkpoint),
        _output(output),
        base=place_of(base, hub=True) if base is not None else None,
        dtype=dtype,
        name=name,
        checksums=checksums,
        progress=progress,
    )


def _output(named: str | None) -> str:
    """Return where a verb's result goes: as named, else the outputs of the job that the verb runs in."""
    place = named or os.environ.get("CLOUDTUNE_OUTPUT_DIR")
    if place is None:
        hint = "add -o FOLDER_OR_URI; -o json alone is the form of the answer, and a folder of that name is ./json"
        raise UsageError("no place is named for the model", hint=hint)
    return place
