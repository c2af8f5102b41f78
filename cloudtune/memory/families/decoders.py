"""Decoders of today: Llama and its relatives, as transformers builds them.

Class defaults of transformers stand in for keys that a published config leaves out.
"""

from __future__ import annotations

from typing import NamedTuple

from cloudtune.memory.architecture import Architecture, Attention, FeedForward, Layer, Linear
from cloudtune.memory.families.config import Config


class Traits(NamedTuple):
    """How a family's decoder differs from Llama's; None says that the config decides by the key of that name."""

    qkv_bias: bool | None = None
    output_bias: bool | None = None
    feed_forward_bias: bool | None = None
    fused: bool = False
    query_norm: str = ""  # "head": over one head's elements, "whole": over all of a token's
    head_dim: int | None = None
    norm: str = "rms"
    norms: int = 2
    activation: str = "silu"
    gated: bool = True
    projections: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    output: str = "o_proj"
    partial: bool = False
    tied: bool = False


def attention_of(config: Config, traits: Traits) -> Attention:
    """Return the attention of a decoder whose config uses the common keys."""
    heads = config.size("num_attention_heads")
    return Attention(
        heads=heads,
        kv_heads=config.size("num_key_value_heads", heads),
        head_dim=config.size("head_dim", traits.head_dim or config.size("hidden_size") // heads),
        fused=traits.fused,
        normalized=bool(traits.query_norm),
        partial=traits.partial or config.number("partial_rotary_factor", 1.0) != 1.0,
        kernel="capped" if config.keys.get("attn_logit_softcapping") else "fused",
    )


def attention_linears(hidden: int, attention: Attention, traits: Traits, *, bias: bool) -> tuple[Linear, ...]:
    """Return the matrices of an attention; ``bias`` is what the config says of them."""
    queries, keys = attention.query_width, attention.key_width
    inner = bias if traits.qkv_bias is None else traits.qkv_bias
    outer = bias if traits.output_bias is None else traits.output_bias
    names = {"qkv_proj": queries + 2 * keys} if traits.fused else {"q_proj": queries, "k_proj": keys, "v_proj": keys}
    return (
        *(Linear(name=f"self_attn.{name}", inputs=hidden, outputs=width, bias=inner) for name, width in names.items()),
        Linear(name=f"self_attn.{traits.output}", inputs=queries, outputs=hidden, bias=outer),
    )


def feed_forward_linears(
    hidden: int, width: int, traits: Traits, *, bias: bool, path: str = "mlp"
) -> tuple[Linear, ...]:
    """Return the matrices of a feed-forward part."""
    gate, up, down = traits.projections
    bias = bias if traits.feed_forward_bias is None else traits.feed_forward_bias
    inner = {"gate_up_proj": 2 * width} if traits.fused else {gate: width, up: width} if traits.gated else {up: width}
    return (
        *(Linear(name=f"{path}.{name}", inputs=hidden, outputs=out, bias=bias) for name, out in inner.items()),
        Linear(name=f"{path}.{down}", inputs=width, outputs=hidden, bias=bias),
    )


def norm_parameters(hidden: int, attention: Attention, traits: Traits) -> int:
    """Return the parameters of a layer's norms."""
    own = {"": 0, "head": 2 * attention.head_dim, "whole": attention.query_width + attention.key_width}
    return traits.norms * hidden * (2 if traits.norm == "layer" else 1) + own[traits.query_norm]


def decoder(config: Config, traits: Traits) -> Architecture:
    """Return a decoder whose config uses the common keys."""
    hidden = config.size("hidden_size")
    width = config.size("intermediate_size", 4 * hidden)
    attention = attention_of(config, traits)
    linears = (
        *attention_linears(hidden, attention, traits, bias=config.flag("attention_bias")),
        *feed_forward_linears(hidden, width, traits, bias=config.flag("mlp_bias")),
    )
    layer = Layer(
        name="layer",
        number=config.size("num_hidden_layers"),
        hidden=hidden,
        linears=linears,
        others=norm_parameters(hidden, attention, traits),
        attention=attention,
        feed_forward=FeedForward(
            width=width,
            gated=traits.gated,
            fused=traits.fused,
            activation=config.text("hidden_activation", "hidden_act", default=traits.activation),
        ),
        norm=traits.norm,
        norms=traits.norms,
    )
    return around((layer,), config, traits)


def around(
    layers: tuple[Layer, ...],
    config: Config,
    traits: Traits,
    *,
    extra: int = 0,
    head_bias: bool = False,
    linears: tuple[Linear, ...] = (),
) -> Architecture:
    """Return the model around its layers: embedding, last norm, output projection; ``extra`` more parameters."""
    hidden, vocabulary = config.size("hidden_size"), config.size("vocab_size")
    head = vocabulary * hidden
    return Architecture(
        model_type=config.model_type,
        hidden=hidden,
        vocabulary=vocabulary,
        layers=layers,
        embeddings=vocabulary * hidden,
        head=0 if config.flag("tie_word_embeddings", default=traits.tied) else head,
        others=hidden * (2 if traits.norm == "layer" else 1) + (vocabulary if head_bias else 0) + extra,
        linears=linears,
        capped=bool(config.keys.get("final_logit_softcapping")),
    )


_GEMMA = Traits(norm="gemma", head_dim=256, activation="gelu_pytorch_tanh", tied=True)
_GEMMA_3 = _GEMMA._replace(norms=4, query_norm="head")
_PLAIN = ("", "c_fc", "c_proj")


def llama(config: Config) -> Architecture:
    """Llama, and what is built like it: biases are the config's to say."""
    return decoder(config, Traits())


def mistral(config: Config) -> Architecture:
    """Mistral: no biases."""
    return decoder(config, Traits(qkv_bias=False, output_bias=False, feed_forward_bias=False))


def qwen2(config: Config) -> Architecture:
    """Qwen 2 and 2.5: biases on queries, keys and values."""
    return decoder(config, Traits(qkv_bias=True, output_bias=False, feed_forward_bias=False))


def qwen3(config: Config) -> Architecture:
    """Qwen 3: queries and keys normalized by head."""
    return decoder(config, Traits(query_norm="head", head_dim=128, feed_forward_bias=False))


def phi3(config: Config) -> Architecture:
    """Phi 3 and 4: fused projections without biases."""
    return decoder(config, Traits(qkv_bias=False, output_bias=False, feed_forward_bias=False, fused=True, partial=True))


def olmo2(config: Config) -> Architecture:
    """OLMo 2: queries and keys normalized over all heads."""
    return decoder(config, Traits(query_norm="whole", norm="gemma", feed_forward_bias=False))


def smollm3(config: Config) -> Architecture:
    """SmolLM 3: Llama with tied embeddings."""
    return decoder(config, Traits(tied=True))


def gemma(config: Config) -> Architecture:
    """Gemma: wide heads, norms in 32 bits, tied embeddings."""
    return decoder(config, _GEMMA._replace(feed_forward_bias=False))


def gemma2(config: Config) -> Architecture:
    """Gemma 2: norms around both parts of a layer, and scores capped, unless the config says null."""
    capped = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, **config.keys}
    return decoder(Config(capped, config.model_type), _GEMMA._replace(norms=4, feed_forward_bias=False))


def gemma3_text(config: Config) -> Architecture:
    """Gemma 3, text alone."""
    sizes = {"num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 262_208, **config.keys}
    return decoder(Config(sizes, config.model_type), _GEMMA_3._replace(feed_forward_bias=False))


def starcoder2(config: Config) -> Architecture:
    """StarCoder 2: layer norms, biases, a plain feed-forward part, tied embeddings."""
    bias = config.flag("use_bias", default=True)
    return decoder(
        config,
        Traits(
            qkv_bias=bias,
            output_bias=bias,
            feed_forward_bias=bias,
            norm="layer",
            gated=False,
            projections=_PLAIN,
            activation="gelu_pytorch_tanh",
            tied=True,
        ),
    )
