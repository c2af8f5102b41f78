"""From an adapter's tensors to the tensors of the base that they change; whatever does not fit is told here."""

from __future__ import annotations

import attrs

from cloudtune.weights.files.safetensors import Tensor
from cloudtune.weights.merge import experts
from cloudtune.weights.merge.adapters import Adapter, Group, Tensors
from cloudtune.weights.merge.factors import AnyFactor, Factor, Values
from cloudtune.weights.merge.modules import Base

#: Models with Conv1D layers, whose matrices are the other way round, and the ends of the names of these layers.
_CONV1D_MODELS = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
_CONV1D_LAYERS = ("c_attn", "c_proj", "c_fc", "q_attn")


@attrs.frozen(kw_only=True)
class Given:
    """An adapter with its tensors, and the weight that it is given in the sum.

    ``rounded`` says whether its factors are rounded to the type of the tensor that they change first.
    """

    adapter: Adapter
    tensors: Tensors
    weight: float = 1.0
    rounded: bool = False

    def precise(self, values: Values, tensor: Tensor) -> Values:
        """Return values as they are to be read for a tensor."""
        return attrs.evolve(values, precision=tensor.dtype) if self.rounded else values


@attrs.define(kw_only=True)
class Change:
    """What becomes of one tensor, which begins as ``origin`` of the base, or as ``whole`` if that replaces it.

    ``factors`` are lists by the number of the expert (0 for a matrix). With ``in_type`` what is added is rounded to the
    tensor's type first. ``tokens`` are new rows by number: a tensor and the row in it.
    """

    origin: str
    whole: Values | None = None
    factors: dict[int, list[AnyFactor]] = attrs.field(factory=dict)
    in_type: bool = False
    magnitude: Values | None = None
    by_columns: bool = False
    biases: list[tuple[Values, float]] = attrs.field(factory=list)
    tokens: dict[int, tuple[Values, int]] = attrs.field(factory=dict)


class Gathering:
    """Takes adapters' tensors to what they change, one adapter after the other."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.changes: dict[str, Change] = {}

    def take(self, given: Given) -> None:
        """Take all tensors of an adapter; raises ValueError for what does not fit the base, or another adapter."""
        tensors, lora = given.tensors, given.adapter.lora
        if tensors.groups and not lora.target_parameters and not any(map(lora.targets, tensors.groups)):
            raise ValueError(f"its target_modules, {lora.target_modules}, are not found in it")
        fused = experts.containers(tensors.groups, self.base)
        for path, group in tensors.groups.items():
            if experts.container_of(path) not in fused:
                self._module(given, path, group)
        for container, groups in fused.items():
            found = experts.factors(self.base, lora, container, groups, given.weight, rounded=given.rounded)
            for name, number, factor in found:
                self._add(self._change(name), number, factor, in_type=True)
        for name, values in tensors.whole.items():
            self._whole(given, name, values)
        for path, values in tensors.tokens.items():
            self._tokens(given, path, values)
        self._check_targets(given)

    def _change(self, name: str) -> Change:
        origin = name if name in self.base.weights else self.base.table or name
        return self.changes.setdefault(name, Change(origin=origin))

    def _module(self, given: Given, path: str, group: Group) -> None:
        lora, name = given.adapter.lora, f"{path}.weight"
        by_parameter = lora.targets_parameter(name)
        if not by_parameter and not lora.targets(path):
            raise ValueError(f"it has no place for {path}, which target_modules does not name")
        key = name if by_parameter else path
        a, b = group.both(path)
        _check_rank(path, lora.rank_of(key), a, b)
        found, tensor = self._located(name)
        transposed = group.embedding or self._is_transposed(path, a, b, tensor)
        shape = (a.shape[1], b.shape[0]) if transposed else (b.shape[0], a.shape[1])
        if shape != tensor.shape:
            raise ValueError(f"size mismatch: {path} is for a matrix {[*shape]}, and the base's is {[*tensor.shape]}")
        change, scale = self._change(found), lora.scale_of(key, given.weight)
        self._magnitude(given, path, group, change, length=b.shape[0], by_columns=transposed)
        in_type = group.embedding or by_parameter or lora.in_type
        a, b = given.precise(a, tensor), given.precise(b, tensor)
        self._add(change, 0, Factor(a=a, b=b, scale=scale, transposed=transposed), in_type=in_type)
        if group.bias is not None:
            self._bias(given, path, group.bias, scale)

    def _add(self, change: Change, number: int, factor: AnyFactor, *, in_type: bool) -> None:
        factors = change.factors.setdefault(number, [])
        factors.append(factor)
        # of several, the sum is rounded once
        change.in_type = in_type and len(factors) == 1
        if change.magnitude is not None and len(factors) > 1:
            raise ValueError(f"{change.origin} gets a DoRA and another adapter, and magnitudes are no sum")

    def _located(self, name: str) -> tuple[str, Tensor]:
        """Return the tensor that a module's parameter means, and the name that it has, or will have."""
        found = self.base.find(name)
        if found is None and self.base.tied and self.base.table is not None and self.base.is_head(name):
            return self.base.head_name(), self.base.tensor(self.base.table)
        if found is None:
            raise ValueError(f"it has no place for {name}: not found there")
        return found, self.base.tensor(found)

    def _is_transposed(self, path: str, a: Values, b: Values, tensor: Tensor) -> bool:
        if a.shape[1] != b.shape[0]:
            return tensor.shape == (a.shape[1], b.shape[0])
        return str(self.base.config.get("model_type")) in _CONV1D_MODELS and path.endswith(_CONV1D_LAYERS)

    def _magnitude(
        self, given: Given, path: str, group: Group, change: Change, *, length: int, by_columns: bool
    ) -> None:
        if (group.magnitude is not None) != given.adapter.lora.dora:
            odd = "has use_dora and no magnitudes" if given.adapter.lora.dora else "has magnitudes without use_dora"
            raise ValueError(f"missing adapter keys: {path} {odd}")
        if group.magnitude is None:
            return
        if group.magnitude.shape not in {(length,), (1, length), (length, 1)}:
            raise ValueError(f"size mismatch: {path} has {[*group.magnitude.shape]} magnitudes for {length} outputs")
        if given.weight != 1:
            raise ValueError(f"{path} is a DoRA, whose magnitudes are no sum: it can have no weight")
        if change.factors:
            raise ValueError(f"{change.origin} gets a DoRA and another adapter, and magnitudes are no sum")
        if self.base.tensor(change.origin).dtype == "F64":
            raise ValueError(f"{change.origin} is F64, which a DoRA is not merged into")
        magnitude = given.precise(group.magnitude, self.base.tensor(change.origin))
        change.magnitude, change.by_columns = attrs.evolve(magnitude, shape=(length,)), by_columns

    def _bias(self, given: Given, path: str, values: Values, scale: float) -> None:
        name = self.base.find(f"{path}.bias")
        if name is None:
            raise ValueError(f"{path} has a bias (lora_bias), and the base has none to add it to")
        tensor = self.base.tensor(name)
        if tensor.shape != values.shape:
            raise ValueError(f"size mismatch: the bias of {path} has shape {[*values.shape]}")
        self._change(name).biases.append((given.precise(values, tensor), scale))

    def _whole(self, given: Given, name: str, values: Values) -> None:
        found, tensor = self._located(name)
        if values.shape != tensor.shape:
            more = ""
            if name.endswith("weight") and self.base.table in {found, name} and values.shape[1:] == tensor.shape[1:]:
                more = ": resize the base's embeddings first, and save it (resize_token_embeddings)"
            shapes = f"{[*values.shape]}, and the base's {[*tensor.shape]}"
            raise ValueError(f"size mismatch: {name} has shape {shapes}{more}")
        change = self._change(found)
        if given.weight != 1:
            raise ValueError(f"it replaces {name}: such an adapter can have no weight")
        if change.whole is not None:
            raise ValueError(f"another adapter replaces {name}, too")
        change.whole = values

    def _tokens(self, given: Given, path: str, values: Values) -> None:
        found, tensor = self._located(f"{path}.weight")
        indices = given.adapter.lora.tokens_of(path)
        if len(values.shape) != 2 or values.shape[1:] != tensor.shape[1:] or values.shape[0] != len(indices):
            shapes = f"{[*values.shape]} for {len(indices)} tokens of {[*tensor.shape]}"
            raise ValueError(f"size mismatch: trained tokens of {path} have shape {shapes}")
        if given.weight != 1:
            raise ValueError(f"it replaces tokens of {path}: such an adapter can have no weight")
        change = self._change(found)
        for row, index in enumerate(indices):
            if index >= tensor.shape[0]:
                raise ValueError(f"token {index} of {path} is beyond the base's {tensor.shape[0]}")
            if index in change.tokens:
                raise ValueError(f"token {index} of {path} is replaced twice")
            change.tokens[index] = (values, row)

    def _check_targets(self, given: Given) -> None:
        """Look for targets that the base has and the adapter has nothing for, which is half of one, or another base."""
        for target in given.adapter.lora.target_modules or ():
            if isinstance(given.adapter.lora.target_modules, str):
                return
            if any(path == target or path.endswith(f".{target}") for path in self._adapted(given)):
                continue
            there = [
                name for name in (*self.base.weights, "lm_head.weight") if f".{name}".endswith(f".{target}.weight")
            ]
            if there and (there != ["lm_head.weight"] or self.base.tied):
                raise ValueError(f"missing adapter keys: target_modules names {target}, and it has nothing for that")

    def _adapted(self, given: Given) -> list[str]:
        return [*given.tensors.groups, *(name.rpartition(".")[0] for name in given.tensors.whole)]


def _check_rank(path: str, rank: int, a: Values, b: Values) -> None:
    shapes = f"{[*a.shape]} and {[*b.shape]}"
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise ValueError(f"{path} is no matrix: its factors have shapes {shapes}")
    if a.shape[0] != rank or b.shape[1] != rank:
        raise ValueError(f"size mismatch: the factors of {path} have shapes {shapes}, and its rank is {rank}")
