"""LoRA adapters into their base model: one Hugging Face model out, on PEFT and the CPU.

``accurate`` keeps the adapter in 32 bits while it is added and rounds once, to the precision of the base; ``peft``
does what ``AutoPeftModelForCausalLM`` does with the base's dtype and ``low_cpu_mem_usage``, as many guides load it:
the adapter is rounded to that precision first.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

from cloudtune import storage
from cloudtune.checksums import checksums
from cloudtune.errors import MissingExtra, UsageError
from cloudtune.uri import absolute, local_path
from cloudtune.weights.folder import (
    RECORD,
    Adapter,
    adapter_at,
    copy_companions,
    model_card,
    place_whole,
    read_json,
    write_json,
)

try:
    import peft
    import torch
    import transformers
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from safetensors import safe_open
    from transformers.utils import logging as transformers_logging
except ImportError as error:
    raise MissingExtra("local", "merging") from error

MODES = ("accurate", "peft")
#: Shards of at most this size, so that every service that imports models takes them.
SHARD_SIZE = "4GB"
_BASE_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py", "LICENSE*", "NOTICE*", "USE_POLICY*")


@attrs.frozen(kw_only=True)
class MergeResult:
    """A merged model: where it is, what it was made of, and what each of its files must hash to (sha256)."""

    path: str
    name: str
    base: str
    adapters: tuple[str, ...]
    mode: str
    run: str | None = None
    metrics: Mapping[str, Any] = attrs.field(factory=dict)
    checksums: Mapping[str, str] = attrs.field(factory=dict)


def merge(
    base: str, adapters: Sequence[str], output: str, *, mode: str = "accurate", name: str | None = None
) -> MergeResult:
    """Merge adapters into their base, one after the other, and write the model with all that belongs to it.

    ``base`` is a folder or a name on the Hub; adapters and output are folders or URIs. The output is there whole or
    not at all; ``cloudtune.json`` in it says what it was made of.

    Raises:
        UsageError: there is no adapter, or it does not fit the base; nothing has been written then.
    """
    if mode not in MODES:
        raise UsageError(f"there is no mode {mode!r} to merge in", hint=f"modes: {', '.join(MODES)}")
    if not adapters:
        raise UsageError("there is no adapter to merge", hint="cloudtune merge BASE ADAPTER -o DIR")
    if mode == "peft" and len(adapters) > 1:
        raise UsageError("mode peft merges one adapter", hint="--mode accurate merges several")
    with tempfile.TemporaryDirectory(prefix="cloudtune-merge-") as scratch, _quiet():
        found = [adapter_at(_fetched(uri, Path(scratch) / f"adapter-{i}"), uri) for i, uri in enumerate(adapters)]
        folder = _base_folder(base, Path(scratch) / "base")
        target = local_path(output)
        with place_whole(target if target is not None else Path(scratch) / "output") as place:
            _write_merged(folder, found, place, mode)
            copy_companions(folder, place)
            for adapter in found:
                copy_companions(adapter.folder, place, tokenizer_only=True)
            result = _describe(base, adapters, found, place, mode=mode, name=name, path=absolute(output))
        if target is None:
            storage.upload(Path(scratch) / "output", output)
    return result


def _fetched(uri: str, place: Path) -> Path:
    """Return the folder that a URI names, downloaded if it is not on this machine."""
    path = local_path(uri)
    if path is not None:
        if not path.exists():
            raise UsageError(f"there is no adapter {uri}", hint="name the folder with adapter_config.json")
        return path
    storage.download(uri, place)
    return place


def _base_folder(base: str, place: Path) -> Path:
    """Return the folder of the base model, fetched from the Hub or from a URI if need be."""
    path = local_path(base)
    if path is None:
        storage.download(base, place)
        path = place
    elif not path.exists() and not base.startswith((".", "/", "~", "file:")) and base.count("/") <= 1:
        path = _from_hub(base)
    if not (path / "config.json").is_file():
        raise UsageError(
            f"{base} is no model: it has no config.json",
            hint="name the folder of the model that the adapter was trained on, or its name on the Hub",
        )
    if (read_json(path / "config.json").get("quantization_config") or {}).get("quant_method"):
        raise UsageError(
            f"{base} is quantized, and an adapter cannot be merged into it without loss",
            hint="name the model in 16 bits that it was quantized from; an adapter of QLoRA fits it too",
        )
    return path


def _from_hub(name: str) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=list(_BASE_FILES)))
    except LocalEntryNotFoundError as error:
        hint = "name a folder with the model; HF_TOKEN must be set for a gated one"
        raise UsageError(f"{name} is no folder here, and the Hub cannot be reached", hint=hint) from error
    except (HfHubHTTPError, HFValidationError) as error:
        hint = "check the name, accept the licence on the model's page and set HF_TOKEN"
        raise UsageError(f"the Hub does not hand out {name}", hint=hint) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress bars of transformers out of the output."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _write_merged(base: Path, adapters: Sequence[Adapter], place: Path, mode: str) -> None:
    """Write the merged tensors and the config of the base into a folder."""
    model = _load(base)
    for adapter in adapters:
        model = _merged(model, adapter, base, mode)
    _untie(model)
    model.save_pretrained(place, max_shard_size=SHARD_SIZE)
    # the base's own config travels as it is: newer releases of transformers write keys that older servers cannot read
    config = read_json(base / "config.json")
    if not model.config.get_text_config().tie_word_embeddings:
        for part in (config, config.get("text_config") or {}):
            if part is config or "tie_word_embeddings" in part:
                part["tie_word_embeddings"] = False
    write_json(place / "config.json", config)


def _load(base: Path) -> Any:
    """Return the base model in the precision in which it is stored."""
    config = transformers.AutoConfig.from_pretrained(base)
    architecture = (config.architectures or [""])[0]
    kind = getattr(transformers, architecture, None) or transformers.AutoModelForCausalLM
    return kind.from_pretrained(base, dtype="auto")


def _merged(model: Any, adapter: Adapter, base: Path, mode: str) -> Any:
    """Return the model with one adapter merged into it; raises UsageError if the adapter does not fit."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            wrapped = peft.PeftModel.from_pretrained(model, str(adapter.folder))
        except (RuntimeError, ValueError, KeyError) as error:
            raise _misfit(adapter, base, str(error)) from error
        missing = next((str(one.message) for one in said if "missing adapter keys" in str(one.message)), None)
        if missing:
            raise _misfit(adapter, base, missing)
        if unknown := _unused(wrapped, adapter):
            raise _misfit(adapter, base, f"the base has no place for {len(unknown)} tensors, e.g. {min(unknown)}")
        if mode == "peft":
            for name, parameter in wrapped.named_parameters():
                if "lora_" in name:
                    parameter.data = parameter.data.to(model.dtype).to(parameter.dtype)
        return wrapped.merge_and_unload()


def _unused(wrapped: Any, adapter: Adapter) -> set[str]:
    """Return the tensors of the adapter's file that the model did not take."""
    path = adapter.folder / "adapter_model.safetensors"
    if not path.is_file():
        return set()
    with safe_open(path, framework="pt") as file:
        return set(file.keys()) - set(peft.get_peft_model_state_dict(wrapped))


def _misfit(adapter: Adapter, base: Path, reason: str) -> UsageError:
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    detail = next((line for line in lines if "size mismatch" in line or "not found" in line), lines[0] if lines else "")
    trained_on = adapter.training.get("base") or adapter.config.get("base_model_name_or_path")
    return UsageError(
        f"adapter {adapter.source} does not fit the base {base}: {detail[:300]}",
        hint=f"it was trained on {trained_on}" if trained_on else "name the base that it was trained on",
    )


def _untie(model: Any) -> None:
    """Part input and output embeddings that were one tensor in the base, if an adapter has made them two."""
    config = model.config.get_text_config()
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if not config.tie_word_embeddings or head is None or torch.equal(head.weight, table.weight):
        return
    config.tie_word_embeddings = model.config.tie_word_embeddings = False
    for module in model.modules():
        if hasattr(module, "all_tied_weights_keys"):
            module.all_tied_weights_keys = {}


def _describe(
    base: str,
    named: Sequence[str],
    adapters: Sequence[Adapter],
    place: Path,
    *,
    mode: str,
    name: str | None,
    path: str,
) -> MergeResult:
    """Write the card and the record of a merged model; return what the record says."""
    first = adapters[0]
    record: dict[str, Any] = {
        "kind": "merged model",
        "name": name or f"{Path(base.rstrip('/')).name}-merged",
        "base": base,
        "adapters": list(named),
        "mode": mode,
        "run": first.training.get("run"),
        "method": first.training.get("method"),
        "metrics": dict(first.metrics),
        "versions": {package: metadata.version(package) for package in ("cloudtune", "torch", "transformers", "peft")},
    }
    card = place / "README.md"
    card.write_text(model_card(record), encoding="utf-8")
    for file in place.iterdir():
        file.chmod(card.stat().st_mode)  # safetensors writes files that only their owner can read
    record["checksums"] = checksums(place)
    write_json(place / RECORD, record)
    return MergeResult(
        path=path,
        name=record["name"],
        base=base,
        adapters=tuple(named),
        mode=mode,
        run=record["run"],
        metrics=record["metrics"],
        checksums=record["checksums"],
    )
