"""The card of a model or an adapter: what people read of it first, and what the Hub files it by.

It is for people to go on with, so it is not among the checksums of the model's record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cloudtune.weights.files.filenames import RECORD

_MODES = {
    "accurate": "accurate: computed in 32 bits, rounded once",
    "peft": "peft: the adapter rounded to the base's precision first",
}


def card(record: Mapping[str, Any], checksums: Mapping[str, str]) -> str:
    """Return the README.md that goes with a record, and with what the files hash to if that is known."""
    head = ["---", *_head(record), "---", "", f"# {_line(record['name'])}", "", _line(_sentence(record)), ""]
    facts = [f"| {key} | {_cell(value)} |" for key, value in _facts(record)]
    notes = (_line(note) for note in record["notes"])
    lines = [*head, "| | |", "|---|---|", *facts, ""]
    lines += [line for note in notes for line in (f"{note[0].upper()}{note[1:]}.", "")]
    metrics = record.get("metrics") or {}
    if metrics.get("eval_loss") is not None:
        losses = f"{_number(metrics.get('eval_loss_before'))} | {_number(metrics['eval_loss'])}"
        lines += ["| | before | after |", "|---|---|---|", f"| evaluation loss | {losses} |", ""]
    if checksums:
        lines += ["| file | SHA-256 |", "|---|---|"]
        lines += [f"| `{_cell(file)}` | `{digest}` |" for file, digest in checksums.items()] + [""]
    return "\n".join([*lines, f"What it was made of is in `{RECORD}`.", ""])


def _head(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the Hub reads: https://huggingface.co/docs/hub/model-cards; it refuses a base that it has not."""
    adapter = _is_adapter(record)
    yield f"library_name: {'peft' if adapter else 'transformers'}"
    if (record["architecture"] or "").endswith("ForCausalLM"):
        yield "pipeline_tag: text-generation"
    if record["base_on_hub"] is not None:
        yield f'base_model: "{record["base_on_hub"]}"'
    yield from ("tags:", "- cloudtune")
    if adapter or record.get("adapters"):
        yield "- lora"


def _sentence(record: Mapping[str, Any]) -> str:
    base, layout = record["base"], record.get("layout")
    if record.get("adapters"):
        return f"`{base}` fine-tuned with LoRA, the adapter merged into it."
    if not base:
        return f"From a {layout}."
    what = "A LoRA adapter for" if _is_adapter(record) else "Fine-tuned from"
    return f"{what} `{base}`, put together from a {layout}."


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if record["base"]:
        yield "base", f"`{record['base']}`"
    for adapter, weight in zip(record.get("adapters", ()), record.get("weights", ()), strict=True):
        yield "adapter", f"`{adapter}`" + (f", times {weight:g}" if weight != 1 else "")
    if "mode" in record:
        yield "mode", _MODES[record["mode"]]
    if record["run"]:
        yield "run", f"`{record['run']}`"
    if record.get("target"):
        yield "configs for", record["target"]
    yield "made with", ", ".join(f"{name} {version}" for name, version in record["versions"].items())


def _is_adapter(record: Mapping[str, Any]) -> bool:
    return bool(record["kind"].endswith("adapter"))


def _line(text: str) -> str:
    """Return a text of anybody's on one line."""
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _number(value: Any) -> str:
    known = type(value) is float or (type(value) is int and abs(value) < 2**63)
    return f"{value:.4f}" if known else "?"
