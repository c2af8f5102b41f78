"""Decoders with plain feed-forward parts and layer norms: GPT-2, GPT-NeoX (Pythia), Falcon, Phi."""

from __future__ import annotations

from cloudtune.errors import UsageError
from cloudtune.memory.architecture import Architecture, Attention, FeedForward, Layer, Linear
from cloudtune.memory.families.config import Config
from cloudtune.memory.families.decoders import Traits, around, attention_of, decoder


def gpt2(config: Config) -> Architecture:
    """GPT-2: learnt positions, one matrix for queries, keys and values, dropout after both parts of a layer."""
    hidden, heads = config.size("n_embd", 768), config.size("n_head", 12)
    width, vocabulary = config.size("n_inner", 4 * hidden), config.size("vocab_size", 50_257)
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=config.head_dim(hidden, heads),
        fused=True,
        rotary=False,
        dropout=config.number("attn_pdrop", 0.1) > 0,
    )
    linears = (
        Linear(name="attn.c_attn", inputs=hidden, outputs=3 * hidden, bias=True),
        Linear(name="attn.c_proj", inputs=hidden, outputs=hidden, bias=True),
        Linear(name="mlp.c_fc", inputs=hidden, outputs=width, bias=True),
        Linear(name="mlp.c_proj", inputs=width, outputs=hidden, bias=True),
    )
    feed_forward = _plain(config, width, "activation_function", "gelu_new")
    dropout = config.number("resid_pdrop", 0.1) > 0
    layer = _layer(config.size("n_layer", 12), hidden, linears, attention, feed_forward, dropout=dropout)
    return Architecture(
        model_type=config.model_type,
        hidden=hidden,
        vocabulary=vocabulary,
        layers=(layer,),
        embeddings=vocabulary * hidden,
        head=0 if config.flag("tie_word_embeddings", default=True) else vocabulary * hidden,
        others=2 * hidden + config.size("n_positions", 1024) * hidden,
    )


def gpt_neox(config: Config) -> Architecture:
    """GPT-NeoX and Pythia: both parts of a layer see the same hidden state."""
    hidden, width = config.size("hidden_size"), config.size("intermediate_size", 24_576)
    partial = config.number("rotary_pct", 0.25) != 1.0
    attention = attention_of(config, Traits(fused=True))._replace(partial=partial)
    bias = config.flag("attention_bias", default=True)
    linears = (
        Linear(name="attention.query_key_value", inputs=hidden, outputs=3 * hidden, bias=bias),
        Linear(name="attention.dense", inputs=hidden, outputs=hidden, bias=bias),
        Linear(name="mlp.dense_h_to_4h", inputs=hidden, outputs=width, bias=True),
        Linear(name="mlp.dense_4h_to_h", inputs=width, outputs=hidden, bias=True),
    )
    feed_forward = _plain(config, width, "hidden_act", "gelu")
    layer = _layer(config.size("num_hidden_layers"), hidden, linears, attention, feed_forward)
    layer = layer._replace(parallel=config.flag("use_parallel_residual", default=True))
    return around((layer,), config, Traits(norm="layer"))


def falcon(config: Config) -> Architecture:
    """Falcon: few heads for keys and values, one or two norms a layer.

    Raises:
        UsageError: positions by ALiBi, as in Falcon RW.
    """
    if config.flag("alibi"):
        raise UsageError("Falcon models with alibi are not known")
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    width, bias = config.size("ffn_hidden_size", 4 * hidden), config.flag("bias")
    new = config.flag("new_decoder_architecture")
    few = config.size("num_kv_heads", heads) if new else 1 if config.flag("multi_query", default=True) else heads
    # keys and values of fewer heads than the queries' are spread out, which sends PyTorch to its plain products
    attention = Attention(heads=heads, kv_heads=few, head_dim=config.head_dim(hidden, heads), fused=True, kernel="math")
    linears = (
        Linear(
            name="self_attention.query_key_value",
            inputs=hidden,
            outputs=attention.query_width + 2 * attention.key_width,
            bias=bias,
        ),
        Linear(name="self_attention.dense", inputs=hidden, outputs=hidden, bias=bias),
        Linear(name="mlp.dense_h_to_4h", inputs=hidden, outputs=width, bias=bias),
        Linear(name="mlp.dense_4h_to_h", inputs=width, outputs=hidden, bias=bias),
    )
    norms = config.size("num_ln_in_parallel_attn", 2 if new else 1)
    one = norms == 1 and config.flag("parallel_attn", default=True)
    layer = _layer(
        config.size("num_hidden_layers"),
        hidden,
        linears,
        attention,
        _plain(config, width, "activation", "gelu"),
        norms=1 if one else 2,
    )
    layer = layer._replace(parallel=config.flag("parallel_attn", default=True))
    return around((layer,), config, Traits(norm="layer", tied=True))


def phi(config: Config) -> Architecture:
    """Phi 1 and 2: biases everywhere, also on the output projection; one norm a layer."""
    traits = Traits(
        qkv_bias=True,
        output_bias=True,
        feed_forward_bias=True,
        norm="layer",
        norms=1,
        gated=False,
        projections=("", "fc1", "fc2"),
        output="dense",
        activation="gelu_new",
    )
    (layer,) = decoder(config, traits).layers
    partial = layer.attention._replace(partial=config.number("partial_rotary_factor", 0.5) != 1.0)
    return around((layer._replace(attention=partial),), config, traits, head_bias=True)


def _plain(config: Config, width: int, key: str, default: str) -> FeedForward:
    return FeedForward(width=width, gated=False, activation=config.text(key, default=default))


def _layer(
    count: int,
    hidden: int,
    linears: tuple[Linear, ...],
    attention: Attention,
    feed_forward: FeedForward,
    *,
    norms: int = 2,
    dropout: bool = False,
) -> Layer:
    return Layer(
        name="layer",
        number=count,
        hidden=hidden,
        linears=linears,
        others=norms * 2 * hidden,
        attention=attention,
        feed_forward=feed_forward,
        norm="layer",
        norms=norms,
        dropout=dropout,
    )
