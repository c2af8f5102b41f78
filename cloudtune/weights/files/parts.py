"""A tensor described before it is written."""

from __future__ import annotations

import attrs

from cloudtune.weights.files.assembly import Piece


@attrs.frozen(kw_only=True, eq=False, slots=True)
class Part:
    """A whole tensor: its type in safetensors' words, its shape, and its bytes as pieces in order."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
