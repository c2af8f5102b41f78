"""Adapters for the fused matrices of experts, whose factors PEFT keeps in two tensors for all experts together.

transformers 5 has all experts of a layer in one parameter of three dimensions; files may have them so, or a matrix for
each projection of each expert, as older releases did. PEFT wraps the module with such parameters once for each, so that
the factors of the first are the innermost: ``experts.base_layer.lora_A`` before ``experts.lora_A``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import attrs

from cloudtune.weights.merge.adapters import Group
from cloudtune.weights.merge.factors import ExpertFactor, Values
from cloudtune.weights.merge.lora import Lora
from cloudtune.weights.merge.modules import Base

_INNER = ".base_layer"
#: Parameters of experts in the order in which transformers' modules have them.
_ORDER = ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")
#: Projections of single experts that make a fused parameter, in order of its rows.
_FUSED = {"gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")), "down_proj": (("down_proj",), ("w2",))}
#: Models that keep the matrices of experts transposed, by what transformers says of them (is_transposed).
_TRANSPOSED = frozenset({"gpt_oss", "aria", "aria_text", "openai_privacy_filter"})


@attrs.frozen(kw_only=True)
class Parameter:
    """A parameter with the matrices of all experts: where each is in the base, as (name, number in it, first row)."""

    name: str
    experts: int
    rows: int
    columns: int
    parts: tuple[tuple[str, int, int, int], ...]


def container_of(path: str) -> str:
    """Return the path of the module that wrapped parameters belong to."""
    while path.endswith(_INNER):
        path = path.removesuffix(_INNER)
    return path


def containers(groups: Mapping[str, Group], base: Base) -> dict[str, tuple[Group, ...]]:
    """Return the factors of each module with fused parameters, the innermost (those of the first parameter) first."""
    depths: dict[str, dict[int, Group]] = {}
    for path, group in groups.items():
        container = container_of(path)
        depths.setdefault(container, {})[(len(path) - len(container)) // len(_INNER)] = group
    found = {}
    for container, by_depth in depths.items():
        if base.find(f"{container}.weight") is None and not base.is_head(f"{container}.weight"):
            parameters = _parameters(base, container)
            if parameters:
                found[container] = tuple(by_depth[depth] for depth in sorted(by_depth, reverse=True))
    return found


def factors(
    base: Base, lora: Lora, container: str, groups: tuple[Group, ...], weight: float, *, rounded: bool
) -> Iterator[tuple[str, int, ExpertFactor]]:
    """Yield what is added to the experts of a module, as (tensor of the base, number of the matrix in it, factor).

    Raises:
        ValueError: the factors do not fit the parameters that the adapter's config names.
    """
    known = _parameters(base, container)
    wanted = [one for one in known if lora.targets_parameter(f"{container}.{one.name}")]
    if len(wanted) != len(groups):
        names = ", ".join(one.name for one in wanted) or "none"
        raise ValueError(
            f"it has no place for {len(groups)} parameters of {container}: target_parameters names {names}"
        )
    for parameter, group in zip(wanted, groups, strict=True):
        path = f"{container}.{parameter.name}"
        a, b = group.both(path)
        if group.magnitude is not None or group.bias is not None or group.embedding:
            raise ValueError(f"{path} has tensors that parameters cannot have")
        transposed = _check(base, path, parameter, lora.rank_of(path), a, b)
        if rounded:
            dtype = base.tensor(parameter.parts[0][0]).dtype
            a, b = attrs.evolve(a, precision=dtype), attrs.evolve(b, precision=dtype)
        factor = ExpertFactor(
            a=a, b=b, scale=lora.scale_of(path, weight), expert=0, experts=parameter.experts, transposed=transposed
        )
        for name, number, expert, first_row in parameter.parts:
            yield name, number, attrs.evolve(factor, expert=expert, first_row=first_row)


def _check(base: Base, path: str, parameter: Parameter, rank: int, a: Values, b: Values) -> bool:
    """Return whether factors are for the transposed matrices; raises ValueError if they do not fit."""
    experts, rows, columns = parameter.experts, parameter.rows, parameter.columns
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != rank * experts or b.shape[1] != rank * experts:
        shapes = f"{[*a.shape]} and {[*b.shape]}"
        raise ValueError(f"size mismatch: the factors of {path} have {shapes}, for {experts} experts of rank {rank}")
    shape = (b.shape[0], a.shape[1])
    if shape not in {(rows, columns), (columns, rows)}:
        raise ValueError(f"size mismatch: {path} is for matrices {[*shape]}, and the base's are {[rows, columns]}")
    if rows == columns:
        return base.config.get("model_type") in _TRANSPOSED
    return shape == (columns, rows)


def _parameters(base: Base, container: str) -> list[Parameter]:
    """Return the fused parameters of a module in order, whichever way the base's files have them."""
    found = []
    for name in _ORDER:
        parameter = _whole(base, container, name) or _apart(base, container, name)
        if parameter is not None:
            found.append(parameter)
    return found


def _whole(base: Base, container: str, name: str) -> Parameter | None:
    found = base.find(f"{container}.{name}")
    if found is None or len(base.tensor(found).shape) != 3:
        return None
    experts, rows, columns = base.tensor(found).shape
    parts = tuple((found, expert, expert, 0) for expert in range(experts))
    return Parameter(name=name, experts=experts, rows=rows, columns=columns, parts=parts)


def _apart(base: Base, container: str, name: str) -> Parameter | None:
    for projections in _FUSED.get(name, ()):
        first = base.find(f"{container}.0.{projections[0]}.weight")
        if first is None:
            continue
        begin = first.removesuffix(f"0.{projections[0]}.weight")
        numbers = [int(one[len(begin) :].partition(".")[0]) for one in base.weights if _numbered(one, begin)]
        experts = max(numbers) + 1
        parts, rows = [], 0
        for expert in range(experts):
            rows = 0
            for projection in projections:
                tensor = f"{begin}{expert}.{projection}.weight"
                if tensor not in base.weights or base.tensor(tensor).shape[1:] != base.tensor(first).shape[1:]:
                    raise ValueError(f"the base has experts of different kinds: see {tensor}")
                parts.append((tensor, 0, expert, rows))
                rows += base.tensor(tensor).shape[0]
        columns = base.tensor(first).shape[1]
        return Parameter(name=name, experts=experts, rows=rows, columns=columns, parts=tuple(parts))
    return None


def _numbered(name: str, begin: str) -> bool:
    return name.startswith(begin) and re.match(r"\d+\.", name[len(begin) :]) is not None
