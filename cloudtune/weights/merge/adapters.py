"""LoRA adapters where they lie: config, what is known of their training, and their tensors, sorted by module."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from cloudtune import storage
from cloudtune.errors import UsageError
from cloudtune.ranges import Reader
from cloudtune.uri import join, local_path, shown
from cloudtune.weights.files.configs import text_of
from cloudtune.weights.files.filenames import ADAPTER_CONFIG, ADAPTER_SINGLE, METRICS, TRAINING
from cloudtune.weights.files.folder import Folder, folder_at
from cloudtune.weights.files.model import open_weights
from cloudtune.weights.files.origins import Origin, origin
from cloudtune.weights.files.rounding import STORED
from cloudtune.weights.files.surroundings import surroundings
from cloudtune.weights.files.torchfiles import TorchTensor, read_torch
from cloudtune.weights.merge.factors import Values
from cloudtune.weights.merge.lora import LEFT_OUT, Lora, read_lora

PICKLED = "adapter_model.bin"
_INDEX = f"{ADAPTER_SINGLE}.index.json"
#: Where an adapter is in what training leaves, if it is not the folder itself.
_BELOW = "adapter/"
_PREFIX = "base_model.model."
_FACTOR = re.compile(
    r"(?P<path>.+)\.(?P<kind>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector(?:\.weight)?|token_adapter\.trainable_tokens_delta)"
)
#: What PEFT may leave in the name of a parameter that it wraps.
_WRAPPED = re.compile(r"\.(base_layer|modules_to_save(\.default)?)\.")


@attrs.frozen(kw_only=True)
class Adapter:
    """A LoRA adapter: what it is called, its folder, its config, and what is known of its training."""

    origin: Origin
    folder: Folder
    lora: Lora
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def source(self) -> str:
        """What messages call it."""
        return self.origin.named

    @property
    def trained_on(self) -> str | None:
        """The title of the model that it was trained on."""
        named = text_of(self.training, "base") or self.lora.base
        return origin(named).title if named else None


@attrs.define(kw_only=True)
class Group:
    """The tensors that an adapter has for one module or parameter."""

    a: Values | None = None
    b: Values | None = None
    bias: Values | None = None
    magnitude: Values | None = None
    embedding: bool = False

    def both(self, path: str) -> tuple[Values, Values]:
        """Return the two factors; raises ValueError if one is missing."""
        if self.a is None or self.b is None:
            missing, there = ("lora_A", "lora_B") if self.a is None else ("lora_B", "lora_A")
            raise ValueError(f"missing adapter keys: {path} has {there} without {missing}")
        return self.a, self.b


@attrs.frozen(kw_only=True)
class Tensors:
    """The tensors of an adapter: factors by module, new rows of embeddings by module, whole parameters by name."""

    groups: Mapping[str, Group]
    tokens: Mapping[str, Values]
    whole: Mapping[str, Values]


def adapter_at(uri: str) -> Adapter:
    """Return the adapter at a URI, or in ``adapter/`` below it.

    Raises:
        UsageError: there is none, or its config does not allow merging; says where one was found.
    """
    path = local_path(uri)
    if path is not None and not path.exists():
        raise UsageError(
            f"there is no adapter {shown(uri)}", hint=f"name the folder with {ADAPTER_CONFIG}, or hf://OWNER/NAME"
        )
    whole = folder_at(uri)
    below = next((place for place in ("", _BELOW) if place + ADAPTER_CONFIG in whole), None)
    if below is None:
        found = sorted(name.rpartition("/")[0] for name in whole.files if name.endswith(f"/{ADAPTER_CONFIG}"))
        # what training leaves at its end goes before its checkpoints
        found.sort(key=lambda name: f"/{name}/".endswith(f"/{_BELOW}"))
        hint = "name the folder that fine-tuning with LoRA left (OUTPUTS/adapter)"
        hint = f"one is in {whole.shown(found[-1])}" if found else hint
        raise UsageError(f"{shown(uri)} holds no adapter: it has no {ADAPTER_CONFIG}", hint=hint)
    near = surroundings(whole, below, (TRAINING, METRICS))
    folder = near.folders[0]
    if not any(name in folder for name in (ADAPTER_SINGLE, _INDEX, PICKLED)):
        raise UsageError(f"{folder.shown()} has an {ADAPTER_CONFIG}, but no {ADAPTER_SINGLE}", hint="copy it whole")
    return Adapter(
        origin=origin(uri, folder),
        folder=folder,
        lora=read_lora(folder.json(ADAPTER_CONFIG), folder.shown().rstrip("/")),
        training=near.json(TRAINING),
        metrics=near.json(METRICS),
    )


def tensors_of(adapter: Adapter, opened: ExitStack, scratch: Path) -> Tensors:
    """Return the tensors of an adapter, its files open until ``opened`` ends.

    Files that are elsewhere are fetched into ``scratch``: parts of them are read many times.

    Raises:
        UsageError: a file is cut off, damaged or a pickle with code, or holds something that is not known.
    """
    groups: dict[str, Group] = {}
    tokens: dict[str, Values] = {}
    whole: dict[str, Values] = {}
    for key, found in _values(_here(adapter.folder, scratch), opened):
        if LEFT_OUT.search(key):
            continue
        name = key.removeprefix(_PREFIX)
        if name == key:
            hint = "it is no adapter of PEFT for transformers"
            raise _unknown(adapter, key, hint)
        match = _FACTOR.fullmatch(name)
        if match is None and (".lora_" in name or ".token_adapter." in name):
            raise _unknown(adapter, key, "save it with PEFT's save_pretrained, which takes the adapter's name out")
        if found.dtype not in STORED:
            raise UsageError(f"{key} of adapter {adapter.source} is {found.dtype}, no type to compute with")
        if match is None:
            whole[_WRAPPED.sub(".", name)] = found
        elif match["kind"].startswith("token_adapter"):
            tokens[match["path"]] = found
        else:
            _put(groups.setdefault(match["path"], Group()), match["kind"], found)
    if not groups and not tokens and not whole:
        raise UsageError(f"adapter {adapter.source} holds no tensors", hint="copy it whole")
    return Tensors(groups=groups, tokens=tokens, whole=whole)


def _put(group: Group, kind: str, values: Values) -> None:
    group.embedding = group.embedding or "embedding" in kind
    if kind == "lora_B.bias":
        group.bias = values
    elif kind.startswith("lora_magnitude_vector"):
        group.magnitude = values
    elif "A" in kind:
        group.a = values
    else:
        group.b = values


def _unknown(adapter: Adapter, key: str, hint: str) -> UsageError:
    return UsageError(f"adapter {adapter.source} has {key}, which is not known here", hint=hint)


def _here(folder: Folder, scratch: Path) -> Folder:
    """Return an adapter's folder on this machine, fetched if it is elsewhere."""
    if local_path(folder.uri) is not None:
        return folder
    wanted = [name for name in folder.files if name.startswith("adapter_model") and "/" not in name]
    for name in wanted:
        storage.download(join(folder.uri, name), scratch / name)
    return attrs.evolve(folder_at(str(scratch)), named=folder.uri)


def _values(folder: Folder, opened: ExitStack) -> Iterator[tuple[str, Values]]:
    """Yield the tensors of an adapter's files by name."""
    if ADAPTER_SINGLE in folder or _INDEX in folder:
        weights = opened.enter_context(open_weights(folder, single=ADAPTER_SINGLE))
        for name in weights:
            one = weights.tensor(name)
            reader = weights.places[name].reader
            yield name, Values(name=name, reader=reader, offset=one.offset, dtype=one.dtype, shape=one.shape)
        return
    reader = opened.enter_context(folder.open(PICKLED))
    state = read_torch(reader, name=folder.shown(PICKLED))
    if not isinstance(state, dict):
        raise UsageError(f"{folder.shown(PICKLED)} holds no state dict", hint="save the adapter with PEFT again")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, TorchTensor) or not value.contiguous:
            hint = "load the adapter with PEFT and save it again"
            raise UsageError(f"{folder.shown(PICKLED)} holds something else than whole tensors by name", hint=hint)
        yield name, _torch_values(name, reader, value)


def _torch_values(name: str, reader: Reader, value: TorchTensor) -> Values:
    return Values(name=name, reader=reader, offset=value.offset, dtype=value.dtype, shape=value.shape)
