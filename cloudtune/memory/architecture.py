"""What a model consists of, as far as memory goes: its parameters, and the widths of what flows through its layers."""

from __future__ import annotations

from typing import NamedTuple


class Linear(NamedTuple):
    """One weight matrix (and bias) of a layer; ``name`` is the module's, below its layer.

    ``module`` is True for ``nn.Linear`` and ``Conv1D``, which bitsandbytes quantizes; routers and experts (``copies``
    of a matrix in one tensor) are plain parameters. ``ranks``: how many times LoRA's rank the adapter has that PEFT's
    ``all-linear`` gives it, 0 for none.
    """

    name: str
    inputs: int
    outputs: int
    bias: bool = False
    copies: int = 1
    module: bool = True
    ranks: int = 1

    @property
    def weights(self) -> int:
        """Parameters without the bias."""
        return self.copies * self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Parameters with the bias."""
        return self.weights + (self.copies * self.outputs if self.bias else 0)


class Attention(NamedTuple):
    """The attention of a layer: widths, and what it keeps for the backward pass.

    ``fused`` says that queries, keys and values are one matrix; ``normalized`` that queries and keys go through a norm;
    ``rotary`` that their positions are rotated in, ``partial`` that this is done to a part of each head. ``context`` is
    the number of keys that cross-attention looks at, 0 for self-attention. ``dropout``: scores are dropped out.

    ``kernel``: ``fused`` where the scores of all pairs of tokens need not be kept. Families without one: ``capped``,
    where scores go through a tanh; ``sinks``, where a score more stands in each row; ``math``, where PyTorch falls back
    to plain products.
    """

    heads: int
    kv_heads: int
    head_dim: int
    fused: bool = False
    normalized: bool = False
    rotary: bool = True
    partial: bool = False
    context: int = 0
    dropout: bool = False
    kernel: str = "fused"

    @property
    def query_width(self) -> int:
        """Elements of a token's queries, and of what attention returns."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Elements of a token's keys, and of its values."""
        return self.kv_heads * self.head_dim


class FeedForward(NamedTuple):
    """The feed-forward part of a layer, or its experts.

    ``width`` is the intermediate size; ``gated`` says that it is the product of two projections, ``fused`` that both
    are one matrix. Of ``experts`` (0: none) a token goes through ``active``; ``shared`` is the width of the expert that
    all tokens go through. ``activation``: the name that transformers gives it.
    """

    width: int
    gated: bool = True
    fused: bool = False
    activation: str = "silu"
    experts: int = 0
    active: int = 0
    shared: int = 0


class Layer(NamedTuple):
    """``number`` equal layers of a model.

    ``others`` are the parameters that are in no matrix: norms, gates, sinks. ``norm`` is ``rms``, ``gemma`` (an RMS
    norm that stays in 32 bits) or ``layer``; ``norms`` is their number on the way of the hidden state: one or two in
    front of the parts, four around them. ``parallel``: both parts see the same hidden state. ``dropout``: the results
    of both are dropped out. ``tokens`` is the number of tokens of an image, 0 for layers that see the text.
    """

    name: str
    number: int
    hidden: int
    linears: tuple[Linear, ...]
    others: int
    attention: Attention
    feed_forward: FeedForward
    norm: str = "rms"
    norms: int = 2
    parallel: bool = False
    dropout: bool = False
    tokens: int = 0

    @property
    def parameters(self) -> int:
        """Parameters of one such layer."""
        return self.others + sum(linear.parameters for linear in self.linears)


class Architecture(NamedTuple):
    """A model: its layers, and what lies before and behind them.

    ``head`` is the parameters of the output projection that are not the embedding's (0 where both are tied);
    ``linears`` are linear modules outside of the layers, ``others`` all other parameters there: final norms, positions.
    ``capped``: logits go through a tanh. ``notes`` say what is approximate.
    """

    model_type: str
    hidden: int
    vocabulary: int
    layers: tuple[Layer, ...]
    embeddings: int
    head: int
    others: int
    linears: tuple[Linear, ...] = ()
    capped: bool = False
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """All parameters of the model."""
        outside = sum(linear.parameters for linear in self.linears)
        return self.embeddings + self.head + self.others + outside + self.in_layers

    @property
    def in_layers(self) -> int:
        """The parameters of all layers."""
        return sum(layer.number * layer.parameters for layer in self.layers)

    @property
    def matrices(self) -> tuple[tuple[int, Linear], ...]:
        """Every matrix but the embedding and the output projection, with the number of layers that have it."""
        inside = tuple((layer.number, linear) for layer in self.layers for linear in layer.linears)
        return (*inside, *((1, linear) for linear in self.linears))

    @property
    def tied(self) -> bool:
        """Whether the output projection is the embedding."""
        return self.head == 0

    @property
    def depth(self) -> int:
        """The number of layers that see the text."""
        return sum(layer.number for layer in self.layers if not layer.tokens)
