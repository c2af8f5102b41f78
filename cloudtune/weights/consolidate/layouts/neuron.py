"""Checkpoints that optimum-neuron cut for Trainium, as whole tensors: models, and LoRA adapters.

A model lies in ``shards/``, an adapter in ``adapter_NAME/adapter_shards/`` (before release 0.2 in ``adapter_shards/``
or ``NAME/adapter_shards/``), each with files of its ranks and metadata of its pipeline stages. The steps: which files
there are (``neuron_shards``), what was done to the model (``neuron_metadata``), and how that is undone
(``neuron_specs``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from cloudtune.errors import UsageError
from cloudtune.weights.consolidate.checkpoint import Checkpoint
from cloudtune.weights.consolidate.layouts.neuron_metadata import Stage, stage_at
from cloudtune.weights.consolidate.layouts.neuron_shards import RANK_FILE, Absent, rank_files, read_ranks
from cloudtune.weights.consolidate.layouts.neuron_specs import Cut, originals
from cloudtune.weights.consolidate.names import is_computed
from cloudtune.weights.files.filenames import ADAPTER_CONFIG
from cloudtune.weights.files.folder import Folder
from cloudtune.weights.files.parts import Part
from cloudtune.weights.files.torchfiles import TorchTensor

_RANK_PATH = re.compile(rf"((?:.*/)?)model/{RANK_FILE.pattern}")
_ADAPTER_PREFIX = re.compile(r"(?:([^/]+)/)?adapter_shards/")
#: The output embeddings, where they are the input embeddings and metadata names these alone.
_TIED = "lm_head.weight"


def recognise(folder: Folder) -> bool:
    """Return whether a folder holds shards of optimum-neuron, itself or somewhere below."""
    return any(_RANK_PATH.fullmatch(path) for path in folder.files)


def read(folder: Folder, opened: ExitStack, *, config: Mapping[str, Any]) -> Checkpoint:
    """Describe the tensors of the model in a folder, or of the adapter if there is no model.

    Raises:
        UsageError: something is missing, damaged, of an unknown kind, or does not fit together.
    """
    prefix = _prefix(folder)
    _check_saved(folder, prefix)
    files = rank_files(folder, prefix)
    stages = [stage_at(folder, prefix, rank, len(paths)) for rank, paths in enumerate(files)]
    _check_sizes(folder, prefix, files)
    name = _adapter_name(folder, prefix, stages)
    cuts = [_cuts(stage, name) for stage in stages]
    reading = _Reading(
        folder,
        listed=frozenset(one for found in cuts for one in found),
        adapter=name is not None,
        tied=config.get("tie_word_embeddings") is not False,
    )
    for stage, here, paths in zip(stages, cuts, files, strict=True):
        ranks = read_ranks(folder, paths)
        opened.callback(_close, ranks)
        reading.add(stage, here, paths[0], ranks)
    if not reading.tensors:
        raise UsageError(f"{folder.shown(prefix)} holds no tensors", hint="save the checkpoint again")
    settings = None
    if name is not None or prefix.endswith("adapter_shards/"):
        place = f"{prefix.removesuffix('adapter_shards/')}{ADAPTER_CONFIG}"
        settings = folder.json(place) if place in folder else {}
    base = (settings or {}).get("base_model_name_or_path")
    return Checkpoint(
        layout=_layout(folder, files),
        place=prefix,
        tensors=reading.tensors,
        notes=(*reading.notes, *_left(folder, prefix)),
        base=base if isinstance(base, str) else None,
        adapter=settings,
    )


def _close(ranks: Sequence[Mapping[str, TorchTensor | Absent]]) -> None:
    """Close the files that are open, in this thread: others close theirs when they end."""
    for tensor in (tensor for rank in ranks for tensor in rank.values()):
        if isinstance(tensor, TorchTensor):
            tensor.reader.close()


class _Reading:
    """Gathers the tensors of one pipeline stage after the other."""

    def __init__(self, folder: Folder, *, listed: frozenset[str], adapter: bool, tied: bool) -> None:
        self.folder, self.listed, self.adapter, self.tied = folder, listed, adapter, tied
        self.tensors: dict[str, Part] = {}
        self.notes: list[str] = []

    def add(
        self,
        stage: Stage,
        cuts: Mapping[str, Cut],
        path: str,
        ranks: Sequence[Mapping[str, TorchTensor | Absent]],
    ) -> None:
        """Add the tensors of a stage, of which ``path`` is the first file."""
        place = self.folder.shown(path)
        shards = dict(self._shards(stage, cuts, place, ranks))
        if stage.lenient and stage.specs and any(".lora_" in name for name in shards):
            hint = "consolidate it with the optimum-neuron that wrote it: optimum-cli neuron consolidate"
            message = "is an adapter from before release 0.2 on attention whose key heads are repeated"
            raise UsageError(f"{place} {message}, and its metadata does not say how that was cut", hint=hint)
        missing = next((name for name in cuts if name not in shards and not stage.lenient), None)
        if missing is not None and (not self.adapter or ".lora_" in missing):
            raise UsageError(f"{missing} is in the metadata, and not in {place}", hint="copy the whole folder again")
        cuts = {name: cuts.get(name, Cut()) for name in shards}
        for original, name, part in originals(shards, cuts, stage.specs):
            if isinstance(part, ValueError):
                hint = "the files are of different checkpoints, or damaged: copy the whole folder again"
                raise UsageError(f"{name} of {place} cannot be made whole: {part}", hint=hint)
            self.tensors[original] = part

    def _shards(
        self, stage: Stage, cuts: Mapping[str, Cut], place: str, ranks: Sequence[Mapping[str, TorchTensor | Absent]]
    ) -> Iterator[tuple[str, list[TorchTensor]]]:
        """Yield the tensors that are this stage's, each as all ranks have it."""
        if any(rank.keys() != ranks[0].keys() for rank in ranks):
            name = min(set().union(*ranks) - set(ranks[0]).intersection(*ranks))
            hint = "the files are of different checkpoints: copy the whole folder again"
            raise UsageError(f"{name} is in the files of some ranks only, beside {place}", hint=hint)
        for name in ranks[0]:
            if not self._wanted(name, stage, cuts, place):
                continue
            found = [tensor for rank in ranks if isinstance(tensor := rank[name], TorchTensor)]
            if len(found) != len(ranks):
                raise UsageError(f"{name} has no bytes in {place}", hint="save the checkpoint again")
            yield name, found

    def _wanted(self, name: str, stage: Stage, cuts: Mapping[str, Cut], place: str) -> bool:
        """Return whether a tensor is one of the stage's parameters; raises UsageError if nothing is known of it."""
        if name in cuts:
            return True
        if name in self.listed or is_computed(name):
            return False  # of another stage, without its trained values; or no parameter
        if self.tied and name.endswith(_TIED) and any(one.endswith("embed_tokens.weight") for one in self.listed):
            note = f"{name} is the input embeddings, and left out as in files of Hugging Face"
            self.notes += [note] * (note not in self.notes)
            return False
        if stage.lenient:
            return True
        hint = "it may be of a newer optimum-neuron: update cloudtune"
        raise UsageError(f"the metadata does not say how {name} of {place} was cut", hint=hint)


def _prefix(folder: Folder) -> str:
    """Return where in a folder the shards are; raises UsageError if that is not clear."""
    found = {match[1] for path in folder.files if (match := _RANK_PATH.fullmatch(path))}
    for prefix in ("shards/", ""):
        if prefix in found:
            return prefix
    adapters = sorted(prefix for prefix in found if _ADAPTER_PREFIX.fullmatch(prefix))
    if len(adapters) == 1:
        return adapters[0]
    if adapters:
        places = ", ".join(folder.shown(prefix.partition("/")[0]) for prefix in adapters)
        raise UsageError(f"{folder.shown()} holds {len(adapters)} adapters", hint=f"name one of them: {places}")
    if not found:
        raise UsageError(f"{folder.shown()} holds no shards of optimum-neuron", hint="name the folder that has shards/")
    above = {re.sub(r"(?:(?:adapter_)?shards|adapter_[^/]+/adapter_shards)/$", "", prefix) for prefix in found}
    last = max(above, key=lambda one: [(part.isdigit(), part.zfill(20)) for part in re.split(r"(\d+)", one)])
    message = f"{folder.shown()} holds no checkpoint itself, but {len(above)} below it"
    raise UsageError(message, hint=f"name one of them: {folder.shown(last)}")


def _check_saved(folder: Folder, prefix: str) -> None:
    if f"{prefix}checkpoint" in folder and f"{prefix}done" not in folder:
        message = f"{folder.shown(prefix)} was not saved to its end: it has no file done"
        hint = (
            "consolidate an earlier checkpoint; if you know that all files are whole, make an empty file of that name"
        )
        raise UsageError(message, hint=hint)


def _check_sizes(folder: Folder, prefix: str, files: Sequence[Sequence[str]]) -> None:
    """Check that the files are of as many ranks as other files say."""
    sizes = {"tensor_parallel_size": len(files[0]), "pipeline_parallel_size": len(files)}
    config = folder.json("trn_config.json") if prefix == "shards/" and "trn_config.json" in folder else {}
    for key, count in sizes.items():
        if config.get(key, count) != count:
            message = f"{folder.shown('trn_config.json')} has {key} {config[key]}, and {count} have files here"
            raise UsageError(message, hint="copy the whole folder again")
    more = f"{prefix}mp_metadata_pp_rank_{len(files)}"
    if any(f"{more}.{kind}" in folder for kind in ("json", "pt")):
        raise UsageError(
            f"there is metadata of more pipeline stages than files in {folder.shown(f'{prefix}model')}",
            hint="copy the whole folder again",
        )


def _adapter_name(folder: Folder, prefix: str, stages: Sequence[Stage]) -> str | None:
    """Return the adapter whose tensors these are, None for a model or where names tell no adapter."""
    named = {whose for stage in stages for _, whose in stage.cuts if whose is not None}
    # the folder above adapter_shards has the adapter's name
    path = f"{folder.uri.rstrip('/')}/{prefix}".rstrip("/").removesuffix("/adapter_shards")
    whose = path.rpartition("/")[2].removeprefix("adapter_")
    if whose in named:
        return whose
    if len(named) > 1:
        hint = "name the folder above, adapter_NAME: its name says whose these are"
        raise UsageError(f"{folder.shown(prefix)} may be of adapter {' or '.join(sorted(named))}", hint=hint)
    return next(iter(named), None)


def _cuts(stage: Stage, adapter: str | None) -> dict[str, Cut]:
    """Return how the parameters of a model or of one adapter were cut, by the names that they were saved under."""
    return {name: cut for (name, whose), cut in stage.cuts.items() if whose in (None, adapter)}


def _layout(folder: Folder, files: Sequence[Sequence[str]]) -> str:
    stages = f" in {len(files)} pipeline stages" if len(files) > 1 else ""
    ranks = f"{len(files[0])} tensor-parallel rank{'s' if len(files[0]) > 1 else ''}"
    beside = any(path.startswith(f"{files[0][0]}.tensors/") for path in folder.files)
    return f"checkpoint of optimum-neuron for {ranks}{stages}, a file a {'tensor' if beside else 'rank'}"


def _left(folder: Folder, prefix: str) -> Iterator[str]:
    """Yield what else lies in the folder, in words that may travel."""
    for other in sorted({match[1] for path in folder.files if (match := _RANK_PATH.fullmatch(path))} - {prefix}):
        yield f"{other.rstrip('/') or 'the folder itself'} holds other shards, which were not read"
