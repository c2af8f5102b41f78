"""Mixtures of experts. transformers 5 holds a layer's experts fused in two tensors, which are not quantized.

PEFT 0.21 adapts the fused experts of Mixtral and Qwen 3 under ``all-linear``, those of the others not.
"""

from __future__ import annotations

from cloudtune.memory.architecture import Architecture, FeedForward, Layer, Linear
from cloudtune.memory.families.config import Config
from cloudtune.memory.families.decoders import (
    Traits,
    around,
    attention_linears,
    attention_of,
    feed_forward_linears,
    norm_parameters,
)


def mixtral(config: Config) -> Architecture:
    """Mixtral: every layer has experts."""
    feed = FeedForward(
        width=config.size("intermediate_size", 14_336),
        fused=True,
        activation=config.text("hidden_act", default="silu"),
        experts=config.size("num_local_experts", 8),
        active=config.size("num_experts_per_tok", 2),
    )
    return _mixture(config, Traits(qkv_bias=False, output_bias=False), feed, adapted=True)


def qwen2_moe(config: Config) -> Architecture:
    """Qwen 1.5 and 2 MoE: experts and one that all tokens go through; some layers may be dense."""
    feed = FeedForward(
        width=config.size("moe_intermediate_size", 1408),
        fused=True,
        activation=config.text("hidden_act", default="silu"),
        experts=config.size("num_experts", 60),
        active=config.size("num_experts_per_tok", 4),
        shared=config.size("shared_expert_intermediate_size", 5632, least=0),
    )
    bias = config.flag("qkv_bias", default=True)
    return _mixture(config, Traits(qkv_bias=bias, output_bias=False, feed_forward_bias=False), feed)


def qwen3_moe(config: Config) -> Architecture:
    """Qwen 3 MoE: as Qwen 3, with experts; some layers may be dense."""
    feed = FeedForward(
        width=config.size("moe_intermediate_size", 768),
        fused=True,
        activation=config.text("hidden_act", default="silu"),
        experts=config.size("num_experts", config.size("num_local_experts", 128)),
        active=config.size("num_experts_per_tok", 8),
    )
    return _mixture(config, Traits(query_norm="head", feed_forward_bias=False), feed, adapted=True)


def gpt_oss(config: Config) -> Architecture:
    """GPT-OSS: biases everywhere, a sink for every head, which only an explicit attention (or a kernel) knows."""
    feed = FeedForward(
        width=config.size("intermediate_size", 2880),
        fused=True,
        activation="gpt_oss",
        experts=config.size("num_local_experts", 128),
        active=config.size("num_experts_per_tok", 4),
    )
    traits = Traits(head_dim=64, feed_forward_bias=True)
    biased = Config({"attention_bias": True, **config.keys}, config.model_type)
    return _mixture(biased, traits, feed, router="mlp.router", sinks=True)


def _mixture(
    config: Config,
    traits: Traits,
    feed: FeedForward,
    *,
    router: str = "mlp.gate",
    sinks: bool = False,
    adapted: bool = False,
) -> Architecture:
    hidden, bias = config.size("hidden_size"), bool(traits.feed_forward_bias)
    attention = attention_of(config, traits)
    if sinks:
        attention = attention._replace(kernel="sinks")
    own = attention_linears(hidden, attention, traits, bias=config.flag("attention_bias"))
    norms = norm_parameters(hidden, attention, traits)
    # gate and up share a tensor, so PEFT doubles the rank there
    matrices = {
        router: (hidden, feed.experts, 1, 1),
        "mlp.experts.gate_up_proj": (hidden, 2 * feed.width, feed.experts, 2),
        "mlp.experts.down_proj": (feed.width, hidden, feed.experts, 1),
    }
    mixed = [
        Linear(
            name=name,
            inputs=inputs,
            outputs=outputs,
            bias=bias,
            copies=copies,
            module=False,
            ranks=ranks if adapted else 0,
        )
        for name, (inputs, outputs, copies, ranks) in matrices.items()
    ]
    if feed.shared:
        mixed += feed_forward_linears(hidden, feed.shared, traits, bias=False, path="mlp.shared_expert")
        mixed.append(Linear(name="mlp.shared_expert_gate", inputs=hidden, outputs=1))
    sparse = Layer(
        name="layer with experts",
        number=_sparse(config),
        hidden=hidden,
        linears=(*own, *mixed),
        others=norms + (attention.heads if sinks else 0),
        attention=attention,
        feed_forward=feed,
    )
    layers = [sparse]
    if dense := config.size("num_hidden_layers") - sparse.number:
        width = config.size("intermediate_size", 4 * hidden)
        layers.append(
            sparse._replace(
                name="dense layer",
                number=dense,
                linears=(*own, *feed_forward_linears(hidden, width, traits, bias=False)),
                others=norms,
                feed_forward=FeedForward(width=width, activation=feed.activation),
            )
        )
    return around(tuple(layers), config, traits)


def _sparse(config: Config) -> int:
    """Return the number of layers with experts."""
    layers, step = config.size("num_hidden_layers"), config.size("decoder_sparse_step", 1)
    alone = config.keys.get("mlp_only_layers")
    dense = alone if isinstance(alone, list) else []
    return sum(index not in dense and (index + 1) % step == 0 for index in range(layers))
