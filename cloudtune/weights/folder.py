"""What lies in the folder of a model or an adapter besides tensors, and how such a folder is written whole."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import attrs

from cloudtune.errors import UsageError

#: The record that cloudtune leaves in every model it makes.
RECORD = "cloudtune.json"
ADAPTER_CONFIG = "adapter_config.json"
_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "chat_template*",
)
_COMPANIONS = (
    *_TOKENIZER,
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "*.py",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
)


@attrs.frozen(kw_only=True)
class Adapter:
    """A LoRA adapter in a folder, with its config and what is known of its training."""

    folder: Path
    source: str
    config: Mapping[str, Any]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file; raises UsageError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no JSON object")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object for people and programs."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def adapter_at(folder: Path, source: str) -> Adapter:
    """Return the adapter in a folder, or in ``adapter/`` below it; ``source`` is what the user called it.

    Raises:
        UsageError: there is none; says where one was found.
    """
    place = next((one for one in (folder, folder / "adapter") if (one / ADAPTER_CONFIG).is_file()), None)
    if place is None:
        below = sorted(path.parent for path in folder.glob(f"**/{ADAPTER_CONFIG}"))
        hint = (
            f"one is in {below[-1]}" if below else "name the folder that fine-tuning with LoRA left (OUTPUTS/adapter)"
        )
        raise UsageError(f"{source} holds no adapter: it has no {ADAPTER_CONFIG}", hint=hint)
    if not any((place / name).is_file() for name in ("adapter_model.safetensors", "adapter_model.bin")):
        raise UsageError(f"{place} has an {ADAPTER_CONFIG}, but no adapter_model.safetensors", hint="copy it whole")
    config = read_json(place / ADAPTER_CONFIG)
    if config.get("peft_type") != "LORA":
        raise UsageError(f"{place} is an adapter of type {config.get('peft_type')}", hint="only LoRA can be merged")
    known = {name: _beside(place, f"{name}.json") for name in ("training", "metrics")}
    return Adapter(folder=place, source=source, config=config, **known)


def _beside(place: Path, name: str) -> Mapping[str, Any]:
    """Return a JSON file of the training, which lies with the adapter or one folder up; empty if there is none."""
    found = next((folder / name for folder in (place, place.parent) if (folder / name).is_file()), None)
    return read_json(found) if found else {}


def companions_of(names: Iterable[str], *, tokenizer_only: bool = False) -> tuple[str, ...]:
    """Return which files of a folder are tokenizer, chat template, generation config or licence."""
    patterns = _TOKENIZER if tokenizer_only else _COMPANIONS
    return tuple(name for name in names if "/" not in name and any(fnmatchcase(name, one) for one in patterns))


def copy_companions(source: Path, target: Path, *, tokenizer_only: bool = False) -> None:
    """Copy tokenizer, chat template, generation config and licence from one folder to another, over what is there."""
    for pattern in _TOKENIZER if tokenizer_only else _COMPANIONS:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, target / path.name)


@contextmanager
def place_whole(target: Path) -> Iterator[Path]:
    """Give a folder to write in; what it holds at the end appears at the target, or nothing does.

    A target that is there already may hold other things, such as the outputs of the job that writes it, but no model.
    """
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file", hint="name a new folder for the model")
    if any((target / name).exists() for name in ("config.json", RECORD)) or any(target.glob("*.safetensors")):
        raise UsageError(f"{target} holds a model already", hint="name another folder, or remove that one")
    there = target.is_dir()
    # a folder that is there may be a mount, which nothing can be renamed into from beside it
    partial = (target if there else target.parent) / f".cloudtune-{secrets.token_hex(8)}.part"
    partial.mkdir(parents=True)
    try:
        yield partial
        if not there:
            partial.replace(target)
            return
        # the record comes last: where it is, the model is whole
        for path in sorted(partial.iterdir(), key=lambda path: path.name == RECORD):
            path.replace(target / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def model_card(record: Mapping[str, Any]) -> str:
    """Return the README.md of a merged model."""
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    if not Path(record["base"]).is_absolute() and "://" not in record["base"]:
        lines.append(f"base_model: {record['base']}")
    lines += ["tags:", "- cloudtune", "- lora", "---", "", f"# {record['name']}", ""]
    lines += [f"`{record['base']}` fine-tuned with LoRA, the adapter merged (mode {record['mode']}).", ""]
    if record["run"]:
        lines += [f"Trained in run `{record['run']}`.", ""]
    metrics = record["metrics"]
    if metrics.get("eval_loss") is not None:
        lines += ["| | before | after |", "|---|---|---|"]
        lines += [
            f"| evaluation loss | {_number(metrics.get('eval_loss_before'))} | {_number(metrics['eval_loss'])} |",
            "",
        ]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines += [f"Merged with {versions}. Base, adapter and checksums are in `{RECORD}`.", ""]
    return "\n".join(lines)


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) else "?"
