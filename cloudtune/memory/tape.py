"""What autograd keeps of one forward pass: the operations of a layer as transformers writes them, without numbers.

Each method stands for an operation: it takes tensors by their sizes, notes those that the operation saves for its
backward pass, and returns the result. A tensor that several operations save counts once, as its storage does. What the
methods note is compared with PyTorch's own saved tensors in ``tests/memory/test_tape.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloudtune.memory.adapters import is_adapted
from cloudtune.memory.architecture import Attention, FeedForward, Linear
from cloudtune.memory.training import Precision, Training


class Tensor:
    """A tensor of ``width`` elements a token, of ``size`` bytes each; equal to itself alone."""

    __slots__ = ("size", "width")

    def __init__(self, width: float, size: int) -> None:
        self.width = width
        self.size = size


class Tape:
    """Notes what one layer saves: so many bytes a token, and for copies of its weights.

    ``cast_bytes`` are for the copies that autocast makes, ``sum_bytes`` for weights that adapters were added to.

    ``trained``: the weights themselves get gradients; otherwise only adapters do, and the hidden states.
    """

    def __init__(self, training: Training, precision: Precision) -> None:
        self.training = training
        self.precision = precision
        self.trained = training.method == "full"
        self.cast_bytes = self.sum_bytes = 0.0
        self._kept: set[Tensor] = set()

    @property
    def token_bytes(self) -> float:
        """Bytes that are kept for every token."""
        return sum(tensor.width * tensor.size for tensor in self._kept)

    def keep(self, *tensors: Tensor) -> None:
        """Note tensors that an operation saves."""
        self._kept.update(tensors)

    def linear(self, x: Tensor, weight: Linear, *, whole: bool = False) -> Tensor:
        """Multiply by a matrix, and by its adapter: the operand is saved where the matrix itself learns.

        Tensor parallelism gives each process a part of the result, or of the operand where the result is ``whole``.
        """
        self._cast_weight(weight.parameters / self.training.tensor_parallel)
        if self.trained:
            self.keep(self._operand(x))
        if is_adapted(weight, self.training):
            self._adapter(x, weight)
        return Tensor(weight.outputs / (1 if whole else self.training.tensor_parallel), self.precision.compute)

    def norm(self, x: Tensor, kind: str, *, groups: int = 1) -> Tensor:
        """Normalize ``groups`` parts of a token: an RMS norm saves a copy of 32 bits, and what its weight scales."""
        if kind == "layer":
            # CUDA's autocast runs a layer norm at 32 bits, the CPU's leaves it as it is
            size = 4 if self.precision.autocast and self.training.accelerator else x.size
            self.keep(x if size == x.size else Tensor(x.width, size), Tensor(2 * groups, size))
            return Tensor(x.width, max(size, self.precision.used))
        self.keep(x if x.size == 4 else Tensor(x.width, 4), Tensor(groups, 4))
        if self.trained:
            self.keep(Tensor(x.width, 4 if kind == "gemma" else x.size))
        return Tensor(x.width, x.size if kind == "gemma" else max(x.size, self.precision.used))

    def rotated(self, x: Tensor) -> Tensor:
        """Rotate positions in: the result is a new tensor, and nothing is saved but sines and cosines."""
        return Tensor(x.width, max(x.size, self.precision.stream))

    def attention(self, q: Tensor, k: Tensor, v: Tensor, shape: Attention) -> Tensor:
        """Attend: a fused kernel saves its operands, its result and a sum a head; else scores are saved too."""
        parallel, size = self.training.tensor_parallel, self.precision.compute
        width = shape.query_width / parallel
        pairs = shape.heads / parallel * (shape.context or self.training.sequence_length)
        operands = [self._operand(tensor) for tensor in (q, k, v)]
        result = Tensor(width, size)
        kernel = self.kernel(shape)
        if kernel == "fused":
            self.keep(*operands, result, Tensor(shape.heads / parallel, 4))
            # where heads have become the outer dimension, putting them side by side takes a copy
            return Tensor(width, size) if shape.partial else result
        if kernel == "math":
            self.keep(*(Tensor(width, 4) for _ in operands), Tensor(pairs, 4))
        elif shape.heads == shape.kv_heads:
            self.keep(*operands)
        else:
            # keys and values are repeated for every head
            self.keep(operands[0], Tensor(width, size), Tensor(width, size))
        if kernel in ("eager", "capped"):
            self.keep(Tensor(pairs, 4))  # softmax computes at 32 bits
        if kernel == "sinks" or (kernel in ("eager", "capped") and size != 4):
            self.keep(Tensor(pairs, size))
        if kernel == "capped":
            self.keep(Tensor(pairs, size))
        if shape.dropout:
            scores = 4 if kernel == "math" else size
            self.keep(Tensor(pairs, 1 if self.training.accelerator else scores), Tensor(pairs, scores))
        return result

    def kernel(self, shape: Attention) -> str:
        """Return what computes an attention; the CPU's fused kernel knows no dropout."""
        if shape.kernel != "fused":
            return shape.kernel
        if not self.training.fused_attention:
            return "eager"
        return "math" if shape.dropout and not self.training.accelerator else "fused"

    def activation(self, x: Tensor, name: str) -> Tensor:
        """Apply an activation: it saves what it is given; those written out in Python save what is between, too."""
        between = {"gelu_new": 3, "gelu_fast": 5, "quick_gelu": 1, "relu": 0, "relu2": 2}.get(name, 0)
        self.keep(x, *(Tensor(x.width, x.size) for _ in range(between)))
        return Tensor(x.width, x.size)

    def multiply(self, one: Tensor, other: Tensor) -> Tensor:
        """Multiply two tensors: both are saved."""
        self.keep(one, other)
        return Tensor(one.width, max(one.size, other.size))

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Drop out: a mask is saved, of a byte an element on accelerators and of the operand's size on a CPU."""
        if not rate:
            return x
        self.keep(Tensor(x.width, 1 if self.training.accelerator else x.size))
        return Tensor(x.width, x.size)

    def experts(self, x: Tensor, feed: FeedForward, matrices: Sequence[Linear]) -> None:
        """Send every token through some experts: gathered operands, both projections, and what is weighted at last.

        Autocast leaves their products alone. An adapter of a fused weight is added to it, and the graph keeps the sum.
        """
        size, active = x.size, feed.active
        width = feed.width * active / self.training.tensor_parallel
        between = 4 if feed.activation == "gpt_oss" else 1
        self.keep(Tensor(2 * width, size), *(Tensor(width, size) for _ in range(between)))
        self.keep(Tensor(x.width * active, size), Tensor(feed.experts, 4), Tensor(4 * active, 8))
        adapted = [matrix for matrix in matrices if is_adapted(matrix, self.training)]
        self.sum_bytes += sum(matrix.weights * self.precision.used for matrix in adapted)
        if self.trained or adapted:
            self.keep(Tensor(x.width * active, size), Tensor(width, size), self._operand(x))

    def _operand(self, x: Tensor) -> Tensor:
        """Return a tensor as a matrix product takes it: autocast makes a copy of its own for every product."""
        return x if x.size == self.precision.compute else Tensor(x.width, self.precision.compute)

    def _adapter(self, x: Tensor, weight: Linear) -> None:
        """Note what an adapter saves: its operand, cast and dropped out for each module apart, and what is between."""
        rank, size = self.training.lora_rank, self.precision.adapter
        if self.training.is_fsdp and self.training.shards > 1:
            size = self.precision.compute  # FSDP casts what it gathers
        x = x if x.size == size else Tensor(x.width, size)
        x = self.dropout(x, self.training.lora_dropout)
        inner = self.precision.compute if self.precision.autocast else size
        self.keep(x if x.size == inner else Tensor(x.width, inner), Tensor(rank, inner))
        if self.precision.autocast and size != inner:
            self.cast_bytes += rank * (weight.inputs + weight.outputs) * inner

    def _cast_weight(self, parameters: float) -> None:
        """Note the copy that autocast makes of a weight of another size."""
        if self.precision.autocast and self.precision.used != self.precision.compute:
            self.cast_bytes += parameters * self.precision.compute
