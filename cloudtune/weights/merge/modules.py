"""Where the tensors of a base are that an adapter's modules mean, and which of them are one tensor in memory.

A module has the name that it had in the program that trained; files have names of their own, which stay while
transformers renames its modules. A name is looked for as it is first. If there is none, some beginnings and parts are
exchanged, in either direction, and exactly one of the results must be there. From transformers' conversion_mapping.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cloudtune.errors import UsageError
from cloudtune.weights.files.configs import is_tied
from cloudtune.weights.files.model import Weights
from cloudtune.weights.files.safetensors import Tensor

#: Beginnings of names that mean the same.
_BEGINNINGS = (
    # llava and its kin, mllama
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.vision_model.", "vision_model."),
    # Qwen2-VL and its kin
    ("model.language_model.", "model."),
    ("model.visual.", "visual."),
    # models saved without their head: GPT-2's own files
    ("model.", ""),
    ("transformer.", ""),
    ("gpt_neox.", ""),
    # GPT-NeoX
    ("lm_head.", "embed_out."),
)
#: Parts of names that mean the same: Mixtral, LFM2.
_PARTS = ((".mlp.", ".block_sparse_moe."), (".mlp.", ".feed_forward."))
_HEADS = ("lm_head.weight", "embed_out.weight")
_TABLES = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight")


@attrs.frozen(kw_only=True, eq=False)
class Base:
    """The tensors of a base model, its config, and what messages call it."""

    weights: Weights
    config: Mapping[str, Any]
    source: str

    def tensor(self, name: str) -> Tensor:
        """Return what is known of a tensor; raises KeyError."""
        return self.weights.tensor(name)

    def find(self, name: str) -> str | None:
        """Return the name that a parameter has in the base's files, None if it has none.

        Raises:
            UsageError: several could be meant.
        """
        if name in self.weights:
            return name
        found = sorted({other for other in _others(name) if other in self.weights})
        if len(found) > 1:
            hint = "rename the adapter's tensors as the base's are"
            raise UsageError(f"{name} could be {found[0]} or {found[1]} of {self.source}", hint=hint)
        return found[0] if found else None

    @property
    def table(self) -> str | None:
        """The name of the input embeddings, None if that is not clear."""
        found = [
            name for name in self.weights if name.endswith(_TABLES) and "vis" not in name and "decoder" not in name
        ]
        found = found or [name for name in self.weights if name.endswith(_TABLES)]
        return found[0] if len(found) == 1 else None

    @property
    def head(self) -> str | None:
        """The name of the output embeddings, None if the base has none of their own."""
        found = [name for name in self.weights if name.endswith(_HEADS)]
        return found[0] if len(found) == 1 else None

    @property
    def tied(self) -> bool:
        """Whether input and output embeddings are one tensor."""
        said = is_tied(self.config)
        if self.table is None:
            return False
        return said if said is not None else self.head is None

    def is_head(self, name: str) -> bool:
        """Return whether a parameter is the output embeddings, by its name."""
        return name == self.head or name in _HEADS or name.endswith(tuple(f".{head}" for head in _HEADS))

    def head_name(self) -> str:
        """Return the name for output embeddings of their own, in the style of the base's files."""
        table = self.table or ""
        if self.head is not None:
            return self.head
        if table.startswith("language_model.model."):
            return "language_model.lm_head.weight"
        return "embed_out.weight" if table.endswith("embed_in.weight") else "lm_head.weight"


def _others(name: str) -> Iterator[str]:
    """Yield other names that a parameter may have."""
    begun = [name]
    for pair in _BEGINNINGS:
        for begin, instead in (pair, pair[::-1]):
            if name.startswith(begin):
                begun.append(instead + name[len(begin) :])
    for one in begun:
        yield one
        for pair in _PARTS:
            for part, instead in (pair, pair[::-1]):
                if part in one:
                    yield one.replace(part, instead)
