"""The tensors of a checkpoint, fitted to what they are to be: a model like its base, or an adapter of PEFT."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.weights.consolidate.names import adapter_names, check_fit, heads, is_computed, matched
from cloudtune.weights.consolidate.unfusing import unfused
from cloudtune.weights.files.assembly import Buffer, Span, stream
from cloudtune.weights.files.configs import is_tied, untied
from cloudtune.weights.files.filenames import INDEX, SINGLE
from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.model import open_weights
from cloudtune.weights.files.origins import Origin
from cloudtune.weights.files.parts import Part
from cloudtune.weights.files.safetensors import size_bytes

#: Key of a config that says the precision: transformers 5 writes the first and reads both.
_DTYPES = ("dtype", "torch_dtype")
#: Gives a tensor in the precision that is wanted.
Rounding = Callable[[Part], Part]
_FLOATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def _as_it_is(part: Part) -> Part:
    return part


@attrs.frozen(kw_only=True, eq=False)
class Fitted:
    """Tensors as they go into files, in this order, and the config that goes with them.

    ``like`` is the file of each tensor in the base, where all tensors are as large as there.
    """

    tensors: Mapping[str, Part]
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    like: Mapping[str, str] | None = None


@attrs.frozen(kw_only=True)
class _Wanted:
    """What a base has: type, shape and file of every tensor; empty if its weights are not known."""

    dtypes: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    files: Mapping[str, str]


def fit_model(
    tensors: Mapping[str, Part],
    base: Folder,
    config: Mapping[str, Any],
    came_from: Origin,
    *,
    rounding: Rounding = _as_it_is,
) -> Fitted:
    """Return the tensors of a model under the names that its base has, all of them and no others, each rounded.

    Output embeddings that are the input embeddings are left out, as transformers does; if training has made them two,
    the config says so.

    Raises:
        UsageError: names or shapes are not those of the base.
    """
    wanted = _wanted(base)
    notes: list[str] = []
    if wanted.shapes:
        tensors = unfused(tensors, wanted.shapes)
        names = matched(tensors, wanted.shapes)
        tensors = {names.get(name, name): part for name, part in tensors.items()}
    else:
        notes.append(f"{came_from.title} has no weights in safetensors: names and shapes were not compared with it")
    computed = [name for name in tensors if is_computed(name) and name not in wanted.shapes]
    tensors = {name: part for name, part in tensors.items() if name not in computed}
    tensors, config, said = _tied(tensors, config, wanted)
    notes += said
    if wanted.shapes:
        spare = {pair[0]} if (pair := heads(wanted.shapes) or heads(tensors)) and is_tied(config) is not False else ()
        shapes = {name: part.shape for name, part in tensors.items()}
        extra = {name for name in tensors if said and name not in wanted.shapes and name.endswith("lm_head.weight")}
        check_fit(shapes, wanted.shapes, base=came_from.named, spare={*spare, *extra})
    order = {name: place for place, name in enumerate(wanted.shapes)}
    ordered = sorted(tensors, key=lambda name: (order.get(name, len(order)), _natural(name)))
    fitted = {name: rounding(tensors[name]) for name in ordered}
    return Fitted(
        tensors=fitted, config=config, notes=(*notes, *_precision(fitted, wanted)), like=_like(fitted, wanted)
    )


def with_precision(config: Mapping[str, Any], tensors: Mapping[str, Part]) -> Mapping[str, Any]:
    """Return a config that says the precision in which most of the tensors are."""
    kind = _FLOATS.get(_main_type({name: part.dtype for name, part in tensors.items()}, tensors))
    if kind is None:
        return config
    key = next((one for one in _DTYPES if one in config), _DTYPES[1])
    changed = {**config, key: kind} if config.get(key) != kind else config
    text = config.get("text_config")
    if isinstance(text, dict) and any(text.get(one, kind) != kind for one in _DTYPES):
        changed = {**changed, "text_config": {**text, **{one: kind for one in _DTYPES if one in text}}}
    return changed


def fit_adapter(
    tensors: Mapping[str, Part], config: Mapping[str, Any], shown: str, *, rounding: Rounding = _as_it_is
) -> Fitted:
    """Return the tensors of an adapter under the names of PEFT's files, each rounded.

    Raises:
        UsageError: the config is not that of this adapter.
    """
    names, notes = adapter_names(tensors)
    order = sorted(names.items(), key=lambda pair: _natural(pair[1]))
    fitted = {goal: rounding(tensors[name]) for name, goal in order}
    if len(fitted) != len(names):
        raise UsageError("two tensors of the adapter have one name", hint="save one adapter in a checkpoint")
    _check_rank(fitted, config, shown)
    return Fitted(tensors=fitted, config=config, notes=notes)


def _check_rank(tensors: Mapping[str, Part], config: Mapping[str, Any], shown: str) -> None:
    rank = config.get("r")
    if rank is not None and type(rank) is not int:
        raise UsageError(f"{shown} has r {str(rank)[:80]!r}, which is no whole number", hint="copy it again")
    if rank is None or config.get("rank_pattern"):
        return
    for name, part in tensors.items():
        if name.endswith(".lora_A.weight") and part.shape[:1] != (rank,):
            message = f"{name} has shape {[*part.shape]}, and {shown} says rank {rank}"
            raise UsageError(message, hint="that is the config of another adapter: put the right one there")


def _wanted(base: Folder) -> _Wanted:
    if INDEX not in base and SINGLE not in base:
        return _Wanted(dtypes={}, shapes={}, files={})
    with ExitStack() as opened:
        weights = opened.enter_context(open_weights(base))
        known = {name: weights.tensor(name) for name in weights}
        return _Wanted(
            dtypes={name: tensor.dtype for name, tensor in known.items()},
            shapes={name: tensor.shape for name, tensor in known.items()},
            files={name: weights.places[name].name for name in known},
        )


def _tied(
    tensors: Mapping[str, Part], config: Mapping[str, Any], wanted: _Wanted
) -> tuple[Mapping[str, Part], Mapping[str, Any], list[str]]:
    """Return tensors and config with output embeddings left out that are the input embeddings."""
    pair, declared = heads(tensors), is_tied(config)
    if pair is None or declared is False or pair[0] in wanted.shapes:
        return tensors, config, []
    head, table = pair
    if same(tensors[head], tensors[table]):
        # what the base leaves out, and what releases before 5 mean by saying nothing
        return {name: part for name, part in tensors.items() if name != head}, config, []
    note = f"{head} is no longer {table}, to which it was tied: both were written, and the config says so"
    return tensors, untied(config), [note]


def same(one: Part, other: Part) -> bool:
    """Return whether two tensors have the same bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    if len(one.pieces) == len(other.pieces) and all(map(_same_place, one.pieces, other.pieces)):
        return True
    return all(a == b for a, b in _side_by_side(_bytes(one), _bytes(other)))


def _same_place(one: object, other: object) -> bool:
    if not isinstance(one, Span) or not isinstance(other, Span):
        return False
    return one.reader is other.reader and (one.offset, one.length) == (other.offset, other.length)


def _bytes(part: Part) -> Iterator[Buffer]:
    for piece in part.pieces:
        yield from stream(piece)


def _side_by_side(one: Iterator[Buffer], other: Iterator[Buffer]) -> Iterator[tuple[memoryview, memoryview]]:
    """Yield stretches of equal length of two streams."""
    a, b = memoryview(b""), memoryview(b"")
    while True:
        a = a or memoryview(next(one, b""))
        b = b or memoryview(next(other, b""))
        length = min(len(a), len(b))
        if not length:
            return
        yield a[:length], b[:length]
        a, b = a[length:], b[length:]


def _precision(tensors: Mapping[str, Part], wanted: _Wanted) -> Iterator[str]:
    """Yield a note if most of a model is in another precision than its base."""
    ours = _main_type({name: part.dtype for name, part in tensors.items()}, tensors)
    known = {name: dtype for name, dtype in wanted.dtypes.items() if name in tensors}
    theirs = _main_type(known, tensors) if known else ours
    if ours != theirs and {ours, theirs} <= _FLOATS.keys():
        yield f"the checkpoint is in {_FLOATS[ours]}, and the base in {_FLOATS[theirs]} (--dtype {_FLOATS[theirs]})"


def _main_type(dtypes: Mapping[str, str], tensors: Mapping[str, Part]) -> str:
    sizes: Counter[str] = Counter()
    for name, dtype in dtypes.items():
        sizes[dtype] += size_bytes(tensors[name].dtype, tensors[name].shape)
    return sizes.most_common(1)[0][0] if sizes else ""


def _like(tensors: Mapping[str, Part], wanted: _Wanted) -> Mapping[str, str] | None:
    same_size = tensors.keys() <= wanted.dtypes.keys() and all(
        part.dtype == wanted.dtypes[name] for name, part in tensors.items()
    )
    return wanted.files if same_size and len(set(wanted.files.values())) > 1 else None


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(number), "") if number else (-1, word) for number, word in re.findall(r"(\d{1,18})|(\D+)", name)]
