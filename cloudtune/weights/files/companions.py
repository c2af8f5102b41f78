"""What lies in the folder of a model or an adapter besides tensors: files that travel along, and the model's card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any

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
    "video_preprocessor_config.json",
    "*.py",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
)
_MODES = {
    "accurate": "accurate: computed in 32 bits, rounded once",
    "peft": "peft: the adapter rounded to the base's precision first",
}


def companions_of(names: Iterable[str], *, tokenizer_only: bool = False) -> tuple[str, ...]:
    """Return which files of a folder are tokenizer, chat template, generation config or licence."""
    patterns = _TOKENIZER if tokenizer_only else _COMPANIONS
    return tuple(name for name in names if "/" not in name and any(fnmatchcase(name, one) for one in patterns))


def model_card(record: Mapping[str, Any], checksums: Mapping[str, str]) -> str:
    """Return the README.md of a merged model: what it was made of, and what its files must hash to."""
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    if not PurePath(record["base"]).is_absolute() and "://" not in record["base"]:
        lines.append(f"base_model: {record['base']}")
    lines += ["tags:", "- cloudtune", "- lora", "---", "", f"# {record['name']}", ""]
    lines += [f"`{record['base']}` fine-tuned with LoRA, the adapter merged into it.", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in _facts(record)] + [""]
    lines += [line for note in record["notes"] for line in (f"{note[0].upper()}{note[1:]}.", "")]
    metrics = record["metrics"]
    if metrics.get("eval_loss") is not None:
        losses = f"{_number(metrics.get('eval_loss_before'))} | {_number(metrics['eval_loss'])}"
        lines += ["| | before | after |", "|---|---|---|", f"| evaluation loss | {losses} |", ""]
    if checksums:
        lines += ["| file | SHA-256 |", "|---|---|"]
        lines += [f"| `{name}` | `{digest}` |" for name, digest in checksums.items()] + [""]
    return "\n".join(lines)


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "base", f"`{record['base']}`"
    for adapter, weight in zip(record["adapters"], record["weights"], strict=True):
        yield "adapter", f"`{adapter}`" + (f", times {weight:g}" if weight != 1 else "")
    yield "mode", _MODES[record["mode"]]
    if record["run"]:
        yield "run", f"`{record['run']}`"
    if record["target"]:
        yield "configs for", record["target"]
    yield "made with", ", ".join(f"{name} {version}" for name, version in record["versions"].items())


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) else "?"
