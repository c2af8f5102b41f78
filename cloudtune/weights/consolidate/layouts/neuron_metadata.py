"""What optimum-neuron writes beside its shards: for each pipeline stage, how its parameters were cut and changed.

Releases 0.2 to 0.4 write ``mp_metadata_pp_rank_N.json``. Earlier ones, which the AWS guides of 2024 pin, wrote a
pickle in other words; it is read as data and said in the words of today.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.weights.consolidate.layouts import neuron_shards
from cloudtune.weights.consolidate.layouts.neuron_specs import Cut, FusedLinears, GroupedQuery, Spec
from cloudtune.weights.files.folder import Folder

_UPDATE = "update cloudtune, or consolidate it with the optimum-neuron that wrote it: optimum-cli neuron consolidate"
_COPY = "copy the whole folder again"
#: Heads of attention, and parts of a layer: no model has so many.
_MAX_COUNT = 1 << 12
#: What the entry of a parameter may have.
_CUT_KEYS = {"tensor_model_parallel", "partition_dim", "partition_stride", "num_partitions"}
_ADAPTED = {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "modules_to_save"}
_SETS: dict[str, Callable[..., Any] | None] = {
    f"{module}.{kind}": (lambda items=(): [*items])
    for module in ("builtins", "__builtin__")
    for kind in ("set", "list")
}


@attrs.frozen(kw_only=True)
class Stage:
    """The metadata of one pipeline stage: its parameters, by the name that each was saved under and its adapter.

    ``lenient`` if a parameter that it does not name was not cut.
    """

    cuts: Mapping[tuple[str, str | None], Cut]
    specs: tuple[Spec, ...]
    lenient: bool = False


def stage_at(folder: Folder, prefix: str, rank: int, ranks: int) -> Stage:
    """Return the metadata of a pipeline stage that so many ranks of tensor parallelism have written.

    Raises:
        UsageError: it is missing, damaged, of a release that is not known, or of another number of ranks.
    """
    names = [f"{prefix}mp_metadata_pp_rank_{rank}.{kind}" for kind in ("json", "pt")]
    path = next((name for name in names if name in folder), None)
    if path is None:
        raise UsageError(f"{folder.shown(names[0])} is missing, which says how the shards were cut", hint=_COPY)
    try:
        if path == names[0]:
            return _stage(folder.json(path), ranks)
        return _old_stage(neuron_shards.load(folder, path, _SETS), ranks)
    except _Unknown as error:
        raise UsageError(f"{folder.shown(path)} {error}", hint=_UPDATE) from None
    except (KeyError, TypeError, ValueError) as error:
        reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{folder.shown(path)} cannot be understood: {reason}", hint=_UPDATE) from None


def _saved_name(name: str) -> tuple[str, str | None]:
    """Return the name that a parameter was saved under, and the adapter in its own name, which that leaves out."""
    parts = name.split(".")
    for at, part in enumerate(parts[:-1]):
        if part in _ADAPTED:
            kept = parts[:at] if part == "modules_to_save" else parts[: at + 1]
            return ".".join((*kept, *parts[at + 2 :])), parts[at + 1]
    return name, None


class _Unknown(Exception):
    """The metadata has something that is not known."""


def _stage(metadata: Mapping[str, Any], ranks: int) -> Stage:
    if metadata.keys() != {"parameters", "model_weight_transformation_specs"}:
        raise _Unknown(f"is of an unknown release: it has {', '.join(sorted(metadata)) or 'nothing'}")
    cuts = {_saved_name(name): _cut(name, entry, ranks) for name, entry in _object(metadata["parameters"]).items()}
    specs = [
        _spec(_text(module["module_fully_qualified_name"]), kind, _object(values), ranks)
        for module in _list(metadata["model_weight_transformation_specs"])
        for kind, values in map(_list, _list(module["specs"]))
    ]
    return Stage(cuts=cuts, specs=tuple(specs))


def _cut(name: str, entry: Any, ranks: int) -> Cut:
    unknown = _object(entry).keys() - _CUT_KEYS
    if unknown:
        raise _Unknown(f"is of an unknown release: {name} has {', '.join(sorted(unknown))}")
    if not entry["tensor_model_parallel"]:
        return Cut()
    # none before neuronx-distributed 0.10
    partitions = _natural(entry.get("num_partitions", ranks))
    if partitions != ranks:
        raise ValueError(f"{name} was cut for {partitions} ranks, and {ranks} have files here")
    return Cut(dimension=_natural(entry["partition_dim"]), stride=_count(entry.get("partition_stride", 1)))


def _spec(module: str, kind: Any, values: Mapping[str, Any], ranks: int) -> Spec:
    if values.get("peft_type") not in (None, "lora"):
        raise _Unknown(f"is of an adapter of the kind {values['peft_type']!r}, which is not known")
    if _natural(values["tp_size"]) != ranks:
        raise ValueError(f"{module} was cut for {values['tp_size']} ranks, and {ranks} have files here")
    if kind == "FusedLinearsSpec":
        return FusedLinears(
            module=module,
            name=_text(values["fused_linear_name"]),
            linears=tuple(map(_text, _list(values["linear_names"]))),
            lengths=tuple(map(_natural, _list(values["original_dims"]))),
            axis={0: 0, 1: 1, "column": 0, "row": 1}[values["fuse_axis"]],
        )
    if kind == "GQAQKVColumnParallelLinearSpec":
        return GroupedQuery(
            module=module,
            name=_text(values["gqa_qkv_projection_name"]),
            query=_text(values["query_projection_name"]),
            key=_text(values["key_projection_name"]),
            value=_text(values["value_projection_name"]),
            output=_text(values["output_projection_name"]),
            heads=_count(values["num_attention_heads"]),
            groups=_count(values["num_key_value_heads"]),
            copies=_count(values["kv_size_multiplier"]),
            fused=bool(values["fuse_qkv"]),
        )
    raise _Unknown(f"has a transformation that is not known: {str(kind)[:60]} of {module}")


# --- releases before 0.2


def _old_stage(metadata: Any, ranks: int) -> Stage:
    if _object(metadata).keys() == {"parameters", "model_weight_transformation_specs"}:
        return _stage(metadata, ranks)
    if metadata.keys() != {"sharded_metadata", "gqa_qkv_metadata"}:
        raise _Unknown(f"is of an unknown release: it has {', '.join(sorted(map(str, metadata))) or 'nothing'}")
    cuts: dict[tuple[str, str | None], Cut] = {
        (name, None): Cut(dimension=_natural(entry["partition_dim"])) if entry["kind"] == "sharded" else Cut()
        for name, entry in _object(metadata["sharded_metadata"]).items()
    }
    return Stage(cuts=cuts, specs=tuple(_old_specs(_object(metadata["gqa_qkv_metadata"]))), lenient=True)


def _old_specs(attention: Mapping[str, Any]) -> list[Spec]:
    """Return the attention of each layer; there the names of all layers stand in one table."""
    names = _object(attention["original_names_to_gqa_qkv_names"])
    outputs = _list(attention["output_projections_names"])
    layers: dict[tuple[str, str], dict[str, str]] = {}
    for original, changed in names.items():
        module, projection, _ = _text(original).rsplit(".", 2)
        layers.setdefault((module, _text(changed).rsplit(".", 2)[1]), {})[projection] = changed.rpartition("_")[2]
    specs: list[Spec] = []
    for (module, name), projections in layers.items():
        output = next((one for one in outputs if _text(one).startswith(f"{module}.")), f"{module}.o_proj.weight")
        # fused, all three have the same name: then the order of the table is theirs
        letters = dict(zip("qkv", projections, strict=True))
        if set(projections.values()) == set("qkv"):
            letters = {letter: projection for projection, letter in projections.items()}
        specs.append(
            GroupedQuery(
                module=module,
                name=name,
                query=letters["q"],
                key=letters["k"],
                value=letters["v"],
                output=output.removeprefix(f"{module}.").rpartition(".")[0],
                heads=_count(attention["num_attention_heads"]),
                groups=_count(attention["num_key_value_heads"]),
                copies=_count(attention["kv_size_multiplier"]),
                fused=bool(attention.get("fuse_qkv")),
            )
        )
    return specs


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it has something else where names are due")  # noqa: TRY004 - told as a fault of the file
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError("it has something else where a list is due")  # noqa: TRY004 - likewise
    return [*value]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it has something else where a name is due")  # noqa: TRY004 - likewise
    return value


def _natural(value: Any, *, least: int = 0, most: int = 2**31) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"it has {str(value)[:40]} where a whole number is due")
    return value


def _count(value: Any) -> int:
    """Return a number of parts; each costs a step, so there is an end to them."""
    return _natural(value, least=1, most=_MAX_COUNT)
