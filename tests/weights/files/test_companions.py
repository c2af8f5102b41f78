"""What travels with a model, and its card."""

from __future__ import annotations

from cloudtune.weights.files.companions import companions_of, model_card

RECORD = {
    "name": "mine",
    "base": "org/base",
    "adapters": ["a", "b"],
    "weights": [1.0, 0.5],
    "mode": "accurate",
    "target": "bedrock",
    "run": "abc12345",
    "metrics": {"eval_loss_before": 3.0, "eval_loss": 1.25},
    "notes": ["trained on something else"],
    "versions": {"cloudtune": "1", "numpy": "2"},
}


def test_what_travels_with_a_model():
    tokenizer = ["tokenizer.json", "tokenizer.model", "chat_template.jinja", "vocab.txt", "merges.txt"]
    others = ["generation_config.json", "LICENSE", "LICENSE.md", "USE_POLICY.txt", "modeling_own.py"]
    stays = ["README.md", "model.safetensors", "config.json", "below/tokenizer.json", "optimizer.bin"]
    assert companions_of([*tokenizer, *others, *stays]) == (*tokenizer, *others)
    assert companions_of([*tokenizer, *others, *stays], tokenizer_only=True) == tuple(tokenizer)


def test_the_card_says_what_a_model_was_made_of():
    card = model_card(RECORD, {"model.safetensors": "0f"})
    for line in (
        "base_model: org/base",
        "| adapter | `a` |",
        "| adapter | `b`, times 0.5 |",
        "| mode | accurate: computed in 32 bits, rounded once |",
        "| run | `abc12345` |",
        "| configs for | bedrock |",
        "| made with | cloudtune 1, numpy 2 |",
        "Trained on something else.",
        "| evaluation loss | 3.0000 | 1.2500 |",
        "| `model.safetensors` | `0f` |",
    ):
        assert line in card.splitlines()


def test_the_card_leaves_out_what_is_not_known():
    local = model_card({**RECORD, "base": "/a/b", "run": None, "target": None, "metrics": {}, "notes": []}, {})
    for word in ("base_model", "evaluation loss", "| run |", "configs for", "SHA-256"):
        assert word not in local
