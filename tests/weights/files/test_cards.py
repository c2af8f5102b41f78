"""The card of a model: what people read, and what the Hub does."""

from __future__ import annotations

import pytest
import yaml

from cloudtune.weights.files.cards import card

MERGED = {
    "kind": "merged model",
    "name": "mine",
    "base": "org/base",
    "base_on_hub": "org/base",
    "architecture": "LlamaForCausalLM",
    "adapters": ["a", "b|c"],
    "weights": [1.0, 0.5],
    "mode": "accurate",
    "target": "bedrock",
    "run": "abc12345",
    "metrics": {"eval_loss_before": 3.0, "eval_loss": 1.25},
    "notes": ["trained on something else"],
    "versions": {"cloudtune": "1", "numpy": "2"},
}
CONSOLIDATED = {
    "kind": "consolidated adapter",
    "name": "adapter",
    "base": "runs/base",
    "base_on_hub": None,
    "architecture": None,
    "layout": "state dict of torch.save in 1 file",
    "run": None,
    "notes": [],
    "versions": {"cloudtune": "1"},
}


def head(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_it_says_what_a_model_was_made_of():
    text = card(MERGED, {"model.safetensors": "0f", "LICENSE\nof|mine": "1e"})
    for line in (
        "`org/base` fine-tuned with LoRA, the adapter merged into it.",
        "| adapter | `a` |",
        "| adapter | `b\\|c`, times 0.5 |",
        "| mode | accurate: computed in 32 bits, rounded once |",
        "| run | `abc12345` |",
        "| configs for | bedrock |",
        "| made with | cloudtune 1, numpy 2 |",
        "Trained on something else.",
        "| evaluation loss | 3.0000 | 1.2500 |",
        "| `model.safetensors` | `0f` |",
        "| `LICENSE of\\|mine` | `1e` |",
    ):
        assert line in text.splitlines()


def test_it_leaves_out_what_is_not_known():
    local = card({**MERGED, "base_on_hub": None, "run": None, "target": None, "metrics": {}, "notes": []}, {})
    for word in ("base_model", "evaluation loss", "| run |", "configs for", "SHA-256"):
        assert word not in local


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (
            MERGED,
            {
                "library_name": "transformers",
                "pipeline_tag": "text-generation",
                "base_model": "org/base",
                "tags": ["cloudtune", "lora"],
            },
        ),
        (
            {**MERGED, "architecture": "LlavaForConditionalGeneration", "base_on_hub": "null"},
            {"library_name": "transformers", "base_model": "null", "tags": ["cloudtune", "lora"]},
        ),
        (CONSOLIDATED, {"library_name": "peft", "tags": ["cloudtune", "lora"]}),
        (
            {**CONSOLIDATED, "kind": "consolidated model", "base": None},
            {"library_name": "transformers", "tags": ["cloudtune"]},
        ),
    ],
)
def test_the_hub_can_read_its_head(record, wanted):
    assert head(card(record, {})) == wanted


def test_a_name_stays_on_its_line():
    assert "\n# mine --- x\n" in card({**MERGED, "name": "mine\n---\nx"}, {})


def test_what_was_consolidated_says_from_what():
    assert "A LoRA adapter for `runs/base`, put together from a state dict" in card(CONSOLIDATED, {})
    assert "\nFrom a state dict of torch.save in 1 file.\n" in card({**CONSOLIDATED, "base": None}, {})
