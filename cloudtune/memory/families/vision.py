"""Models that see images: Llama 3.2 Vision (mllama) and Gemma 3."""

from __future__ import annotations

from cloudtune.memory.architecture import Architecture, Attention, FeedForward, Layer, Linear
from cloudtune.memory.families.config import Config
from cloudtune.memory.families.decoders import gemma3_text, llama


def mllama(config: Config) -> Architecture:
    """Llama 3.2 Vision: some text layers attend to the image alone, of up to four tiles."""
    text, seen = config.part("text_config", "mllama"), config.part("vision_config", "mllama")
    sizes = {"hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8}
    sizes |= {"intermediate_size": 14_336, "vocab_size": 128_256}
    plain = llama(Config({**sizes, **text.keys}, config.model_type))
    (layer,) = plain.layers
    tiles, patches = seen.size("max_num_tiles", 4), _patches(seen, 448) + 1
    count = text.length("cross_attention_layers", 8)
    attention = layer.attention._replace(context=tiles * patches, normalized=True, rotary=False)
    crosses = layer._replace(
        name="cross-attention layer",
        number=count,
        linears=tuple(linear._replace(name=linear.name.replace("self_attn", "cross_attn")) for linear in layer.linears),
        others=layer.others + 2 * attention.head_dim + 2,
        attention=attention,
    )
    width = seen.size("hidden_size", 1280)
    # patches are padded to a multiple of 8 on their way through the layers
    tower = _vision_layer(
        seen,
        seen.size("num_hidden_layers", 32),
        heads=seen.size("attention_heads", 16),
        width=width,
        tokens=tiles * -(-patches // 8) * 8,
        bias=False,
        output="o_proj",
    )
    gated = tower._replace(
        name="global vision layer", number=seen.size("num_global_layers", 8), others=tower.others + 2
    )
    ratios = seen.length("supported_aspect_ratios", 8) + 1
    outside = width + 3 * seen.size("patch_size", 14) ** 2 * width + 4 * width  # class, patches, two norms
    outside += 1 + patches * width + ratios * tiles * patches * width  # positions in a tile and of tiles
    outside += 2 * (1 + ratios * tiles * width)
    projector = Linear(
        name="multi_modal_projector", inputs=seen.size("vision_output_dim", 7680), outputs=plain.hidden, bias=True
    )
    return plain._replace(
        layers=(layer._replace(number=layer.number - count), crosses, tower, gated),
        embeddings=plain.embeddings + 8 * plain.hidden,  # eight more for the image token
        others=plain.others + outside,
        linears=(projector,),
    )


def gemma3(config: Config) -> Architecture:
    """Gemma 3 with its vision tower, SigLIP; images become tokens of the text."""
    text, seen = config.part("text_config", "gemma3"), config.part("vision_config", "gemma3")
    sizes = {"hidden_size": 2304, "num_hidden_layers": 26, "intermediate_size": 9216}
    plain = gemma3_text(Config({**sizes, **text.keys}, config.model_type))
    width, patches = seen.size("hidden_size", 768), _patches(seen, 224, 16)
    tower = _vision_layer(
        seen,
        seen.size("num_hidden_layers", 12),
        heads=seen.size("num_attention_heads", 12),
        width=width,
        tokens=patches,
        bias=True,
        output="out_proj",
    )
    outside = (3 * seen.size("patch_size", 16) ** 2 + 1) * width + patches * width + 2 * width
    outside += width * plain.hidden + width  # the projector, a bare tensor, and its norm
    linears: tuple[Linear, ...] = ()
    if seen.flag("vision_use_head", default=True):
        inner = seen.size("intermediate_size", 3072)
        outside += width + 3 * width * (width + 1) + 2 * width  # probe, fused projections, norm
        linears = (
            Linear(name="head.attention.out_proj", inputs=width, outputs=width, bias=True),
            Linear(name="head.mlp.fc1", inputs=width, outputs=inner, bias=True),
            Linear(name="head.mlp.fc2", inputs=inner, outputs=width, bias=True),
        )
    return plain._replace(layers=(*plain.layers, tower), others=plain.others + outside, linears=linears)


def _patches(config: Config, image: int, patch: int = 14) -> int:
    return (config.size("image_size", image) // config.size("patch_size", patch)) ** 2


def _vision_layer(config: Config, count: int, *, heads: int, width: int, tokens: int, bias: bool, output: str) -> Layer:
    inner = config.size("intermediate_size", 4 * width)
    names = ("q_proj", "k_proj", "v_proj", output)
    return Layer(
        name="vision layer",
        number=count,
        hidden=width,
        linears=(
            *(Linear(name=f"self_attn.{name}", inputs=width, outputs=width, bias=bias) for name in names),
            Linear(name="mlp.fc1", inputs=width, outputs=inner, bias=True),
            Linear(name="mlp.fc2", inputs=inner, outputs=width, bias=True),
        ),
        others=2 * 2 * width,
        attention=Attention(heads=heads, kv_heads=heads, head_dim=config.head_dim(width, heads), rotary=False),
        feed_forward=FeedForward(width=inner, gated=False, activation=config.text("hidden_act", default="gelu")),
        norm="layer",
        tokens=tokens,
    )
