"""A model or an adapter that is being checked, opened as far as it can be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs

from cloudtune import storage
from cloudtune.errors import UsageError
from cloudtune.uri import join, local_path, shown
from cloudtune.weights.checks.findings import Finding
from cloudtune.weights.files.configs import architecture_of
from cloudtune.weights.files.filenames import (
    ADAPTER_CONFIG,
    ADAPTER_SINGLE,
    CONFIG,
    GENERATION,
    INDEX,
    SINGLE,
    TEMPLATE,
    TOKENIZER,
    TOKENIZER_CONFIG,
)
from cloudtune.weights.files.folder import Folder, folder_at
from cloudtune.weights.files.model import Flaw, Weights, survey
from cloudtune.weights.files.origins import is_hub_name

#: The JSON files that are looked into; those of them that are there.
_DOCUMENTS = (CONFIG, ADAPTER_CONFIG, GENERATION, TOKENIZER_CONFIG, TOKENIZER, "chat_template.json", INDEX)
_MOST_TEMPLATE_BYTES = 1 << 20
_MOST_NUMBER = 2**40


@attrs.frozen(kw_only=True)
class Subject:
    """What is checked: its files, its tensors as far as they can be read, and its JSON files by name.

    ``flaws`` are those of the files of weights, ``unread`` the findings about JSON files that could not be read.
    """

    folder: Folder
    weights: Weights
    flaws: tuple[Flaw, ...]
    documents: Mapping[str, Mapping[str, Any]]
    unread: tuple[Finding, ...]
    adapter: bool

    @property
    def config(self) -> Mapping[str, Any]:
        """``config.json``, or the adapter's config; empty if it is missing or broken."""
        return self.documents.get(ADAPTER_CONFIG if self.adapter else CONFIG, {})

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The config of the part that speaks: the same, except in models with images or sound."""
        inner = self.config.get("text_config")
        return {**self.config, **inner} if isinstance(inner, dict) else self.config

    @property
    def architecture(self) -> str | None:
        """The class of the model, as ``config.json`` names it."""
        return architecture_of(self.config)

    @property
    def model_type(self) -> str | None:
        """The family of the model, as ``config.json`` names it."""
        name = self.config.get("model_type")
        return name if isinstance(name, str) and name else None

    @property
    def multimodal(self) -> bool:
        """Whether the model takes more than text."""
        return any(isinstance(self.config.get(key), dict) for key in ("vision_config", "audio_config"))

    @property
    def weight_bytes(self) -> int:
        """The bytes of all tensors that can be reached."""
        return sum(tensor.length for shard in self.weights.shards for tensor in shard.header.tensors.values())

    @property
    def dtypes(self) -> dict[str, int]:
        """The bytes of the tensors of each type, the most first."""
        sums: dict[str, int] = {}
        for shard in self.weights.shards:
            for tensor in shard.header.tensors.values():
                sums[tensor.dtype] = sums.get(tensor.dtype, 0) + tensor.length
        return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))

    @property
    def parameters(self) -> int:
        """The number of elements of all tensors that can be reached."""
        return sum(elements(tensor.shape) for shard in self.weights.shards for tensor in shard.header.tensors.values())

    def place_of(self, tensor: str) -> str:
        """Return where a tensor is, for findings."""
        shard = self.weights.places.get(tensor)
        return f"{shard.name}: {tensor}" if shard is not None else tensor

    def template_text(self) -> str | None:
        """Return the chat template that lies in a file of its own."""
        if not 0 < self.folder.files.get(TEMPLATE, 0) <= _MOST_TEMPLATE_BYTES:
            return None
        return self.folder.read(TEMPLATE).decode("utf-8", errors="replace")


@contextmanager
def opened(uri: str) -> Iterator[Subject]:
    """Open the model or the adapter at a URI for the length of a context.

    Raises:
        UsageError: nothing is there, or a single file.
        ServiceError: it cannot be reached.
    """
    folder = _model_in(folder_at(uri))
    if not folder.files:
        raise _nothing(uri)
    # what has no config of its own is an adapter; a model with an adapter's config beside it is another thing
    adapter = ADAPTER_CONFIG in folder and CONFIG not in folder and SINGLE not in folder and INDEX not in folder
    documents, unread = _documents(folder)
    weights, flaws = survey(folder, single=ADAPTER_SINGLE if adapter else SINGLE)
    with weights:
        yield Subject(folder=folder, weights=weights, flaws=flaws, documents=documents, unread=unread, adapter=adapter)


def _nothing(uri: str) -> UsageError:
    """Return what to say of a place without files."""
    path = local_path(uri)
    if path is not None and path.is_dir():
        hint = "name the folder of a model; what was to write one here has not, or has written elsewhere"
        return UsageError(f"{shown(uri)} is empty", hint=hint)
    if storage.exists(uri):
        hint = f"name the folder that it is in: {path.parent}" if path is not None else "name the folder that it is in"
        return UsageError(f"{shown(uri)} is a file, and a model is a folder", hint=f"{hint}; unpack an archive first")
    hint = "check its spelling; cloudtune list --models"
    if is_hub_name(uri):
        hint = f"a model on the Hub is hf://{uri}; {hint}"
    return UsageError(f"there is nothing at {shown(uri)}", hint=hint)


def _model_in(folder: Folder) -> Folder:
    """Return the folder itself, or that of the model or adapter which a job's outputs hold."""
    marks = (CONFIG, ADAPTER_CONFIG, SINGLE, INDEX)
    if any(name in folder for name in marks):
        return folder
    for place in ("model", "adapter"):
        if any(f"{place}/{name}" in folder for name in marks):
            files = {name: size for name, size in folder.files.items() if name.startswith(f"{place}/")}
            inner = {name.removeprefix(f"{place}/"): size for name, size in files.items()}
            return Folder(uri=join(folder.uri, place), files=inner)
    return folder


def _documents(folder: Folder) -> tuple[Mapping[str, Mapping[str, Any]], tuple[Finding, ...]]:
    documents: dict[str, Mapping[str, Any]] = {}
    unread: list[Finding] = []
    for name in _DOCUMENTS:
        if name not in folder:
            continue
        try:
            documents[name] = folder.json(name)
        except UsageError as error:
            # the index is told by what reads the weights
            if name != INDEX:
                hint = error.hint or "copy it again"
                unread.append(Finding(rule="json", severity="error", message=error.message, hint=hint, where=name))
    return documents, tuple(unread)


def elements(shape: Iterable[int]) -> int:
    """Return the number of elements of a tensor of that shape."""
    count = 1
    for length in shape:
        count *= length
    return count


def natural(value: Any) -> int | None:
    """Return a value of a config if it is a number that can be a size or an id, else None."""
    return value if type(value) is int and 0 <= value < _MOST_NUMBER else None
