"""Whether it makes sense to merge adapters into a base: numbers that are numbers, a training, a base of that name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudtune.errors import UsageError
from cloudtune.weights.files.configs import text_of
from cloudtune.weights.files.filenames import RECORD
from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.numbers import Numbers, scan
from cloudtune.weights.files.origins import Origin, same_model, says_nothing
from cloudtune.weights.merge.adapters import Tensors
from cloudtune.weights.merge.factors import Values
from cloudtune.weights.merge.gathering import Given

#: How names of models that were quantized for training say so.
_QUANTIZED = ("4bit", "8bit", "-awq", "-gptq", "-int4", "-int8", "bnb")


def notes_of(base: Origin, folder: Folder, config: Mapping[str, Any], given: Sequence[Given]) -> Iterator[str]:
    """Yield what should be known of a model that is merged.

    Raises:
        UsageError: an adapter holds NaN or infinity.
    """
    names = _names(base, folder, config)
    for one in given:
        adapter, trained_on = one.adapter, one.adapter.trained_on or ""
        title = adapter.origin.title
        numbers = scan((values.name, values.dtype, values.span) for values in _all(one.tensors))
        _check_finite(adapter.source, numbers)
        if _is_untrained(one.tensors, numbers):
            yield f"all B matrices of {title} are zero, as they are before training: it changes nothing"
        if adapter.training.get("method") == "qlora" or any(mark in trained_on.lower() for mark in _QUANTIZED):
            yield (
                f"{title} was trained on {trained_on or 'its base'} in 4 or 8 bits, and merged into {base.title} "
                "as it is stored; the two differ by what quantization loses"
            )
        elif trained_on and not says_nothing(trained_on) and not any(same_model(trained_on, name) for name in names):
            yield (
                f"{title} was trained on {trained_on}, and nothing of {base.title} says that it is that model: "
                "if it is another one of the same shape, the result makes no sense"
            )


def _names(base: Origin, folder: Folder, config: Mapping[str, Any]) -> list[str]:
    """Return all that a base may be called: by the user, by its own config, and by the record of who made it."""
    record = _record(folder)
    return [
        *(base.named, base.title, folder.uri),
        *(name for name in (text_of(config, "_name_or_path"), text_of(record, "name")) if name is not None),
    ]


def _record(folder: Folder) -> Mapping[str, Any]:
    try:
        return folder.json(RECORD) if RECORD in folder else {}
    except UsageError:  # good to know, and not needed
        return {}


def _all(tensors: Tensors) -> Iterator[Values]:
    for group in tensors.groups.values():
        yield from (one for one in (group.a, group.b, group.bias, group.magnitude) if one is not None)
    yield from tensors.tokens.values()
    yield from tensors.whole.values()


def _check_finite(source: str, numbers: Mapping[str, Numbers]) -> None:
    for name, found in numbers.items():
        if found.first is not None:
            what = "NaN" if found.nans else "infinity"
            hint = "its training has diverged: take an earlier checkpoint, and look at the loss (a lower learning rate)"
            raise UsageError(f"adapter {source} holds {what}: {name}, first at element {found.first}", hint=hint)


def _is_untrained(tensors: Tensors, numbers: Mapping[str, Numbers]) -> bool:
    groups = tensors.groups.values()
    if not groups or tensors.tokens or tensors.whole or any(one.bias or one.magnitude for one in groups):
        return False
    return all(one.b is not None and numbers[one.b.name].zero for one in groups)
