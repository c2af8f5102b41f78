"""The names and shapes of a model's tensors, from its config.json: what a checkpoint of it must hold.

Sizes and the names of matrices come from :mod:`cloudtune.memory.families`; here stands what surrounds them in a
checkpoint: prefixes, norms, experts one by one, in the names under which transformers saves each family.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.memory.architecture import Architecture, Layer, Linear
from cloudtune.memory.families import FAMILIES, architecture
from cloudtune.memory.families.config import Config
from cloudtune.weights.files.configs import text_of

Shape = tuple[int, ...]
#: What a config that no model has makes of the arithmetic with its numbers.
IMPOSSIBLE = (ArithmeticError, TypeError, ValueError, LookupError, AttributeError)
#: Numbers of layers and experts above these are no model's, and would take forever to go through.
_MOST = {
    "num_hidden_layers": 2048,
    "n_layer": 2048,
    "num_experts": 4096,
    "num_local_experts": 4096,
    "num_global_layers": 2048,
}


@attrs.frozen(kw_only=True)
class Layout:
    """Where a family keeps what: ``layer`` is the prefix of layer ``{}``, ``norms`` the names of its norms.

    ``query_norm`` is the width of the norms of queries and keys: ``head`` or ``whole``. ``transposed``: matrices lie
    as inputs by outputs, as GPT-2's. ``experts``: the router, an expert's prefix, and its gate, up and down projection.
    """

    layer: str = "model.layers.{}."
    embedding: str = "model.embed_tokens"
    head: str = "lm_head"
    head_bias: bool = False
    norm: str = "model.norm"
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    query_norm: str = ""
    transposed: bool = False
    positions: str = ""
    experts: tuple[str, str, tuple[str, str, str]] | None = None

    @property
    def prefix(self) -> str:
        """What the names of the model without its head begin with."""
        return self.embedding.partition(".")[0] + "."


_LLAMA = Layout()
_EXPERTS = ("mlp.gate", "mlp.experts.{}.", ("gate_proj", "up_proj", "down_proj"))
_FOUR = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")


def _falcon(layer: Layer, config: Mapping[str, object]) -> Layout:
    base = Layout(layer="transformer.h.{}.", embedding="transformer.word_embeddings", norm="transformer.ln_f")
    if layer.norms == 1:
        return attrs.evolve(base, norms=("input_layernorm",))
    return attrs.evolve(base, norms=("ln_attn", "ln_mlp")) if config.get("new_decoder_architecture") else base


_LAYOUTS: Mapping[str, Layout | Callable[[Layer, Mapping[str, object]], Layout]] = {
    **dict.fromkeys(("llama", "granite", "mistral", "qwen2", "phi3", "smollm3", "gemma", "starcoder2"), _LLAMA),
    "qwen3": Layout(query_norm="head"),
    "olmo2": Layout(norms=("post_attention_layernorm", "post_feedforward_layernorm"), query_norm="whole"),
    "gemma2": Layout(norms=_FOUR),
    "gemma3_text": Layout(norms=_FOUR, query_norm="head"),
    "gpt2": Layout(
        layer="transformer.h.{}.",
        embedding="transformer.wte",
        norm="transformer.ln_f",
        norms=("ln_1", "ln_2"),
        transposed=True,
        positions="transformer.wpe",
    ),
    "gpt_neox": Layout(
        layer="gpt_neox.layers.{}.",
        embedding="gpt_neox.embed_in",
        head="embed_out",
        norm="gpt_neox.final_layer_norm",
    ),
    "falcon": _falcon,
    "phi": Layout(norms=("input_layernorm",), norm="model.final_layernorm", head_bias=True),
    "mixtral": Layout(experts=("block_sparse_moe.gate", "block_sparse_moe.experts.{}.", ("w1", "w3", "w2"))),
    "qwen2_moe": Layout(experts=_EXPERTS),
    "qwen3_moe": Layout(query_norm="head", experts=_EXPERTS),
}


def is_known(config: Mapping[str, Any]) -> bool:
    """Return whether names and shapes of the tensors of a model's family are known here."""
    # Falcon with ALiBi is known by name alone
    return text_of(config, "model_type") in FAMILIES and not config.get("alibi")


def oversized(config: Mapping[str, Any]) -> str | None:
    """Return a number in a config that is larger than any model's, as ``key is value``."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key, most in _MOST.items():
            if type(part.get(key)) is int and part[key] > most:
                return f"{key} is {part[key]}"
    return None


def expected_of(
    built: Architecture, layout: Layout, config: Mapping[str, Any], names: Collection[str]
) -> dict[str, Shape]:
    """Return the tensors that a model must have; ``names`` are those that it has, which tell how they begin."""
    expected = tensors_of(built, layout, config)
    # a model that was saved without its head has no prefix; transformers loads it all the same
    bare = f"{layout.embedding}.weight" not in names and not any(name.startswith(layout.prefix) for name in names)
    return {name.removeprefix(layout.prefix): shape for name, shape in expected.items()} if bare else expected


def lacking(config: Mapping[str, Any], names: Collection[str]) -> tuple[str, ...]:
    """Return which tensors a model lacks by its config; none where that is not known, or its names are others.

    Output embeddings are left out: many configs do not say whether they are the input embeddings.
    """
    if not is_known(config) or oversized(config):
        return ()
    try:
        built = architecture(config)
        layout = layout_of(built, config)
        if layout is None:
            return ()
        expected = expected_of(built, layout, config, names)
    except (UsageError, *IMPOSSIBLE):
        return ()
    missing = tuple(name for name in expected if name not in names and not name.startswith(f"{layout.head}."))
    return missing if len(missing) * 2 < len(expected) else ()


def layout_of(architecture: Architecture, config: Mapping[str, object]) -> Layout | None:
    """Return where a model keeps its tensors, None for families that are not known."""
    found = _LAYOUTS.get(architecture.model_type)
    return found(architecture.layers[0], config) if callable(found) else found


def tensors_of(architecture: Architecture, layout: Layout, config: Mapping[str, object]) -> dict[str, Shape]:
    """Return the shape of every tensor of a model by its name; of a head that is tied, nothing."""
    hidden, vocabulary = architecture.hidden, architecture.vocabulary
    sound = dict(_norm(layout.norm, hidden, architecture.layers[0]))
    sound[f"{layout.embedding}.weight"] = (vocabulary, hidden)
    if not architecture.tied:
        sound[f"{layout.head}.weight"] = (vocabulary, hidden)
    if layout.head_bias:
        sound[f"{layout.head}.bias"] = (vocabulary,)
    if layout.positions:
        positions = Config(config, architecture.model_type).size("n_positions", 1024)
        sound[f"{layout.positions}.weight"] = (positions, hidden)
    for index, layer in enumerate(_in_order(architecture, config)):
        prefix = layout.layer.format(index)
        sound |= {prefix + name: shape for name, shape in _layer(layer, layout)}
    return sound


def _in_order(architecture: Architecture, config: Mapping[str, object]) -> Iterator[Layer]:
    """Yield every layer of a model; where some are dense and some have experts, as the config says."""
    first, *others = architecture.layers
    if not others:
        yield from [first] * first.number
        return
    step, alone = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or ()
    for index in range(architecture.depth):
        sparse = isinstance(step, int) and step > 0 and (index + 1) % step == 0
        listed = isinstance(alone, (list, tuple)) and index in alone
        yield first if sparse and not listed else others[0]


def _layer(layer: Layer, layout: Layout) -> Iterator[tuple[str, Shape]]:
    for linear in layer.linears:
        if linear.module or layout.experts is None:
            yield from _linear(linear, linear.name, layout)
    for name in layout.norms:
        yield from _norm(name, layer.hidden, layer)
    attention = layer.attention
    whole = layout.query_norm == "whole"
    if layout.query_norm:
        yield "self_attn.q_norm.weight", (attention.query_width if whole else attention.head_dim,)
        yield "self_attn.k_norm.weight", (attention.key_width if whole else attention.head_dim,)
    feed = layer.feed_forward
    if layout.experts is not None and feed.experts:
        router, prefix, (gate, up, down) = layout.experts
        yield f"{router}.weight", (feed.experts, layer.hidden)
        for index in range(feed.experts):
            for name, shape in (
                (gate, (feed.width, layer.hidden)),
                (up, (feed.width, layer.hidden)),
                (down, (layer.hidden, feed.width)),
            ):
                yield f"{prefix.format(index)}{name}.weight", shape


def _linear(linear: Linear, name: str, layout: Layout) -> Iterator[tuple[str, Shape]]:
    shape = (linear.inputs, linear.outputs) if layout.transposed else (linear.outputs, linear.inputs)
    yield f"{name}.weight", shape
    if linear.bias:
        yield f"{name}.bias", (linear.outputs,)


def _norm(name: str, width: int, layer: Layer) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    if layer.norm == "layer":
        yield f"{name}.bias", (width,)
