"""What optimum-neuron does to a model before it cuts it, undone: which slices make each tensor of the original. Pure.

The metadata beside the shards says of each parameter along which dimension it was cut, and of each module what was
done to it: linear layers fused into one, or the projections of grouped-query attention made one layer, whose key and
value heads are repeated until every rank has one and whose query heads are ordered so that each is on the rank of its
key head (optimum/neuron/models/training/transformations_utils.py, releases 0.2 to 0.4).

Which tensors a module has is seen from the shards, not from the flags of its specification: an adapter has only what
was trained, and a bias may belong to LoRA alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from cloudtune.weights.consolidate.joining import Slice, joined, whole
from cloudtune.weights.files.parts import Part
from cloudtune.weights.files.torchfiles import TorchTensor

#: A tensor as each rank of tensor parallelism has it.
Shards = Sequence[TorchTensor]
#: Tensors of the original by name, made from one tensor of the shards.
Parts = Iterator[tuple[str, Part]]


@attrs.frozen(kw_only=True, slots=True)
class Cut:
    """How a parameter lies on the ranks: whole on each of them (``dimension`` None), or cut along a dimension.

    With a stride above 1 every rank has so many slices of it, each from another stretch of the whole. ``ranks`` is how
    many ranks it was cut for, None if that was not written down.
    """

    dimension: int | None = None
    stride: int = 1
    ranks: int | None = None


@attrs.frozen(kw_only=True, slots=True)
class FusedLinears:
    """Linear layers that are one: on each rank their slices follow each other along ``axis`` (0: outputs)."""

    module: str
    name: str
    linears: tuple[str, ...]
    lengths: tuple[int, ...]
    axis: int

    def sources(self) -> Iterator[str]:
        """Yield the names of tensors that are this layer's."""
        for name in ("weight", "bias", "lora_A.weight", "lora_B.weight", "lora_B.bias"):
            yield f"{self.module}.{self.name}.{name}"

    def parts(self, name: str, shards: Shards, cut: Cut) -> Parts:
        """Yield what one of its tensors was made of; raises ValueError if it cannot have been."""
        rest = name.removeprefix(f"{self.module}.{self.name}.")
        goals = [f"{self.module}.{linear}.{rest}" for linear in self.linears]
        if rest.startswith("lora_") and self.axis:
            raise ValueError("it is LoRA on linear layers that are fused along their inputs, which cannot be parted")
        if rest == "lora_A.weight":
            # one A was trained for all of them
            for goal in goals:
                yield goal, plain(shards, cut)
            return
        if len(shards) > 1 and cut.dimension != self.axis:
            raise ValueError(f"it was fused along dimension {self.axis} and cut along {cut.dimension}")
        start = 0
        for goal, length in zip(goals, self.lengths, strict=True):
            local, left = divmod(length, len(shards))
            if left:
                raise ValueError(f"{length} rows of it cannot be cut for {len(shards)} ranks")
            yield goal, joined([Slice(shard, start, start + local) for shard in shards], self.axis)
            start += local
        _check_length(shards, self.axis, start)


@attrs.frozen(kw_only=True, slots=True)
class GroupedQuery:
    """Projections of grouped-query attention: query, key and value in one layer, and the output beside it.

    There are ``heads`` query heads and ``groups`` key heads, each of those ``copies`` times.
    """

    module: str
    name: str
    query: str
    key: str
    value: str
    output: str
    heads: int
    groups: int
    copies: int
    fused: bool

    def sources(self) -> Iterator[str]:
        """Yield the names of tensors that are this layer's."""
        for name in (
            *(
                f"{lora}{kind}_{part}"
                for lora in ("", "lora_B.")
                for kind in ("weight", "bias")
                for part in self._parts
            ),
            "lora_A.weight",
        ):
            yield f"{self.module}.{self.name}.{name}"
        for name in ("weight", "lora_A.weight"):
            yield f"{self.module}.{self.output}.{name}"

    def parts(self, name: str, shards: Shards, cut: Cut) -> Parts:
        """Yield what one of its tensors was made of; raises ValueError if it cannot have been."""
        self._check(len(shards))
        if name.startswith(f"{self.module}.{self.output}."):
            # a row-parallel layer: its inputs are the heads
            yield name, self._heads(shards, 1)
            return
        rest = name.removeprefix(f"{self.module}.{self.name}.")
        if rest == "lora_A.weight":
            # one A was trained for all three
            for projection in (self.query, self.key, self.value):
                yield f"{self.module}.{projection}.{rest}", plain(shards, cut)
            return
        rest, _, part = rest.rpartition("_")
        rows = shards[0].shape[0] if shards[0].shape else 0
        queries, keys = self._on_a_rank(len(shards))
        size = rows // (queries + 2 * keys) if self.fused else rows // (queries if part == "q" else keys)
        starts = {"q": 0, "k": queries * size, "v": (queries + keys) * size} if self.fused else {part: 0}
        for letter, start in starts.items():
            projection = {"q": self.query, "k": self.key, "v": self.value}[letter]
            made = self._heads(shards, 0, size) if letter == "q" else self._keys(shards, start, size)
            yield f"{self.module}.{projection}.{rest}", made
        _check_length(shards, 0, size * (queries + 2 * keys if self.fused else queries if part == "q" else keys))

    @property
    def _parts(self) -> tuple[str, ...]:
        return ("qkv",) if self.fused else ("q", "k", "v")

    def _on_a_rank(self, ranks: int) -> tuple[int, int]:
        """Return how many query heads and how many key heads a rank has."""
        return self.heads // ranks, self.groups * self.copies // ranks

    def _check(self, ranks: int) -> None:
        queries, keys = self._on_a_rank(ranks)
        fits = queries * ranks == self.heads and keys * ranks == self.groups * self.copies
        if not (fits and keys and self.heads % self.groups == 0 and self.groups % keys == 0 and queries % keys == 0):
            counts = f"{self.heads} query heads and {self.groups} key heads, {self.copies} times each,"
            raise ValueError(f"{counts} cannot be on {ranks} ranks")

    def _heads(self, shards: Shards, dimension: int, size: int | None = None) -> Part:
        """Return the tensor whose query heads, of ``size`` each, are back in the order of the original."""
        queries, keys = self._on_a_rank(len(shards))
        if size is None:
            size, left = divmod(shards[0].shape[dimension] if len(shards[0].shape) > dimension else 0, queries)
            if left:
                raise ValueError(f"it has shape {[*shards[0].shape]} for {queries} heads")
        together = queries // keys  # heads on one rank that belong to one key head: neighbours there as here
        found: dict[int, Slice] = {}
        for rank, shard in enumerate(shards):
            for local in range(keys):
                # the key heads lie on the ranks one copy of all of them after the other
                copy, group = divmod(rank * keys + local, self.groups)
                first = group * (self.heads // self.groups) + copy * together
                found[first] = Slice(shard, local * together * size, (local + 1) * together * size)
        return joined([found[first] for first in sorted(found)], dimension)

    def _keys(self, shards: Shards, start: int, size: int) -> Part:
        """Return the first copy of all key or value heads, of ``size`` each, which begin at ``start`` of each rank."""
        keys = self._on_a_rank(len(shards))[1]
        holders = shards[: self.groups // keys]
        return joined([Slice(shard, start, start + keys * size) for shard in holders], 0)


Spec = FusedLinears | GroupedQuery


def plain(shards: Shards, cut: Cut) -> Part:
    """Return a parameter that nothing was done to but cutting; raises ValueError if its shards do not fit together."""
    first = shards[0]
    for shard in shards:
        if shard.shape != first.shape or shard.dtype != first.dtype:
            raise ValueError(
                f"it is {first.dtype} {[*first.shape]} on one rank and {shard.dtype} {[*shard.shape]} on another"
            )
    if cut.dimension is None:
        return whole(first)
    if cut.dimension >= len(first.shape):
        raise ValueError(f"it has {len(first.shape)} dimensions, and was cut along dimension {cut.dimension}")
    length, left = divmod(first.shape[cut.dimension], cut.stride)
    if left:
        raise ValueError(f"it has shape {[*first.shape]}, and was cut with stride {cut.stride}")
    steps = [Slice(shard, at * length, (at + 1) * length) for at in range(cut.stride) for shard in shards]
    return joined(steps, cut.dimension)


def _check_length(shards: Shards, dimension: int, length: int) -> None:
    for shard in shards:
        if len(shard.shape) <= dimension or shard.shape[dimension] != length:
            raise ValueError(f"it has shape {[*shard.shape]} on a rank, and {length} of dimension {dimension} are due")


def originals(
    shards: Mapping[str, Shards], cuts: Mapping[str, Cut], specs: Sequence[Spec]
) -> Iterator[tuple[str, str, Part | ValueError]]:
    """Yield the tensors of the original, in the order of the shards: its name, the shards' name, and how it is made.

    In place of a tensor that cannot be made there is the reason.
    """
    owners = {name: spec for spec in specs for name in spec.sources() if name in shards}
    for name, found in shards.items():
        spec = owners.get(name)
        try:
            if spec is None:
                yield name, name, plain(found, cuts[name])
                continue
            for original, part in spec.parts(name, found, cuts[name]):
                yield original, name, part
        except ValueError as error:
            yield name, name, error
