"""What places demand: every fact has a source, a rule, and a model that does not meet it."""

import json
import re
from pathlib import Path

import attrs
import pytest

from cloudtune.weights.checks import rules
from cloudtune.weights.checks.adapter_rules import ADAPTER_RULES
from cloudtune.weights.checks.config_rules import CONFIG_RULES
from cloudtune.weights.checks.examine import check
from cloudtune.weights.checks.subject import opened
from cloudtune.weights.checks.targets import TARGETS, Fact, target_named
from tests.weights.checks.checkable import (
    adapter_tensors,
    change,
    llama_tensors,
    numbers,
    write_adapter,
    write_model,
    write_tensors,
)

RULES = {**rules.RULES, **CONFIG_RULES, **ADAPTER_RULES}
FACTS = [(name, fact) for name in TARGETS for fact in target_named(name).facts]


@pytest.mark.parametrize(("name", "fact"), FACTS, ids=lambda value: getattr(value, "rule", value))
def test_every_fact_says_where_it_is_from(name, fact):
    assert fact.rule in RULES
    assert len(fact.source) > 20
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", fact.read)
    if fact.known == "documented":
        assert fact.source.startswith("https://")
    if fact.known == "recalled":
        assert fact.severity != "error"


def test_what_is_only_recalled_is_no_error():
    with pytest.raises(ValueError, match="only recalled"):
        Fact(rule="size", severity="error", known="recalled", source="from memory alone", read="2026-11-21")


def test_every_rule_is_some_places():
    assert {fact.rule for _, fact in FACTS} == set(RULES)


def config(**keys):
    return lambda folder: change(folder / "config.json", **keys)


def tokenizer(**keys):
    return lambda folder: change(folder / "tokenizer_config.json", **keys)


def gguf(folder):
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "model-q4.gguf").write_bytes(b"GGUF")


def eight_bits(folder):
    write_model(folder, {**llama_tensors(), "model.norm.weight": ("I8", (32,), bytes(32))})


def below(folder):
    (folder / "original").mkdir()
    write_tensors(folder / "original" / "model.safetensors", {})


def removed(name):
    return lambda folder: (folder / name).unlink()


def moved_template(folder):
    text = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    change(folder / "tokenizer_config.json", chat_template=...)
    (folder / "chat_template.jinja").write_text(text)


NEW_ROPE = {"rope_theta": 500000.0, "rope_type": "default"}
LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
QUANTIZED = {"quant_method": "bitsandbytes", "load_in_4bit": True}
#: What is done to a good model, for which place, and the rule and the words that tell it.
REFUSED = [
    ("bedrock", gguf, "formats", "error", "GGUF"),
    ("bedrock", removed("tokenizer_config.json"), "files", "error", "no tokenizer_config.json"),
    ("bedrock", removed("tokenizer.json"), "files", "error", "no tokenizer.json and no tokenizer.model"),
    ("bedrock", below, "root", "warning", "directly in the folder"),
    ("bedrock", config(architectures=["GemmaForCausalLM"]), "architectures", "error", "GemmaForCausalLM"),
    ("bedrock", config(architectures=["Qwen3ForCausalLM"]), "architecture-remarks", "note", "not Converse"),
    ("bedrock", config(max_position_embeddings=131073), "context", "error", "less than 128K"),
    ("bedrock", config(max_position_embeddings=131072), "context", "warning", "131072"),
    ("bedrock", eight_bits, "dtypes", "warning", "I8"),
    ("bedrock", config(quantization_config=QUANTIZED), "quantization", "warning", "bitsandbytes"),
    ("bedrock", config(transformers_version="5.2.0.dev0"), "transformers-version", "warning", "5.2.0"),
    ("bedrock", config(rope_theta=..., rope_parameters=NEW_ROPE), "rope-parameters", "error", "500000"),
    ("bedrock", config(rope_theta=..., rope_parameters=LLAMA_3), "rope-parameters", "error", "llama3"),
    ("bedrock", config(rope_scaling=LLAMA_3), "rope-override", "warning", "factor 32"),
    ("bedrock", config(torch_dtype=..., dtype="bfloat16"), "dtype-key", "warning", "dtype alone"),
    ("bedrock", tokenizer(tokenizer_class="TokenizersBackend"), "tokenizer-class", "error", "TokenizersBackend"),
    ("bedrock", tokenizer(extra_special_tokens=["<x>"]), "tokenizer-keys", "error", "is a list"),
    ("bedrock", tokenizer(chat_template=...), "chat-template", "warning", "no chat template"),
    ("bedrock", moved_template, "chat-template", "warning", "chat_template.jinja alone"),
    ("vllm", gguf, "formats", "error", "GGUF"),
    ("vllm", removed("config.json"), "files", "error", "no config.json"),
    ("vllm", config(architectures=["NovaForCausalLM"]), "architectures", "warning", "NovaForCausalLM"),
    ("vllm", config(quantization_config={"quant_method": "own"}), "quantization", "warning", "own"),
    ("vllm", config(hidden_size=60), "head-dim", "warning", "15 elements"),
    ("vllm", config(head_dim=512), "head-dim", "warning", "512 elements"),
    ("vllm", tokenizer(tokenizer_class="TokenizersBackend"), "tokenizer-class", "warning", "transformers 5"),
    ("vllm", tokenizer(chat_template=...), "chat-template", "warning", "/v1/chat/completions"),
    ("sagemaker", gguf, "formats", "error", "GGUF"),
    ("sagemaker", removed("tokenizer_config.json"), "files", "error", "no tokenizer_config.json"),
    ("sagemaker", config(architectures=["NovaForCausalLM"]), "architectures", "warning", "NovaForCausalLM"),
    ("sagemaker", tokenizer(chat_template=...), "chat-template", "warning", "/v1/chat/completions"),
    ("oci", gguf, "formats", "error", "GGUF"),
    ("oci", removed("config.json"), "files", "error", "no config.json"),
    ("oci", below, "root", "warning", "directly in the folder"),
    ("oci", tokenizer(tokenizer_class="TokenizersBackend"), "tokenizer-class", "warning", "containers"),
]


@pytest.mark.parametrize(("target", "broken", "rule", "severity", "words"), REFUSED)
def test_what_a_place_has_against_a_model(tmp_path, target, broken, rule, severity, words):
    folder = write_model(tmp_path / "m")
    broken(folder)
    found = [one for one in check(str(folder), target=target, fast=True).findings if one.rule == f"{target}-{rule}"]
    assert [one.severity for one in found] == [severity]
    assert words in found[0].message
    assert found[0].hint
    assert found[0].source


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_parameters": {**NEW_ROPE, "rope_theta": 10000.0}, "rope_theta": ...},
        {"rope_parameters": LLAMA_3, "rope_scaling": {**LLAMA_3, "factor": 8.0}},
        {"max_position_embeddings": 127999},
        {"transformers_version": "4.51.2"},
        {"transformers_version": "unknown"},
    ],
)
def test_what_bedrock_reads_rightly_is_not_told(tmp_path, keys):
    folder = write_model(tmp_path / "m")
    config(**keys)(folder)
    assert [one.rule for one in check(str(folder), target="bedrock", fast=True).findings] == ["bedrock-remark"]


def test_gpt_oss_comes_quantized_to_bedrock(tmp_path):
    folder = write_model(tmp_path / "m")
    config(architectures=["GptOssForCausalLM"], quantization_config={"quant_method": "mxfp4"})(folder)
    rules_ = {one.rule for one in check(str(folder), target="bedrock", fast=True).findings}
    assert "bedrock-architecture-remarks" in rules_
    assert "bedrock-quantization" not in rules_


def told(target, rule, folder, **values):
    """Return what a rule says of the model in a folder, with values other than the place's."""
    fact = next(one for one in target_named(target).facts if one.rule == rule)
    with opened(str(folder)) as subject:
        return [message for message, _, _ in RULES[rule](subject, {**fact.values, **values})]


def test_sizes_have_limits(tmp_path):
    folder = write_model(tmp_path / "m")
    assert told("bedrock", "size", folder) == []
    assert "must have less than 3.9e-05" in told("bedrock", "size", folder, text_gb=0.000039)[0]
    config(vision_config={})(folder)
    assert told("bedrock", "size", folder, text_gb=0, multimodal_gb=1) == []
    assert told("bedrock", "size", folder, text_gb=1, multimodal_gb=0) != []


@pytest.mark.parametrize(
    ("size_gb", "target", "expected"),
    [
        (1, "sagemaker", "ml.g5.xlarge has 22.35"),
        (60, "sagemaker", "ml.p5.4xlarge has 80"),
        (15, "oci", "VM.GPU.A10.1 has 24"),
        (30, "oci", "VM.GPU.A10.2 has 48"),
        (50_000, "oci", "more than one machine has"),
    ],
)
def test_the_smallest_machine_that_holds_it_is_named(tmp_path, size_gb, target, expected):
    folder = write_model(tmp_path / "m")
    # the weights are tiny: the spare is made as large as the model would be
    assert expected in told(target, "machine", folder, spare=size_gb * 1.25e9 / (2 * 19616) - 1)[0]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/a/model/", []),
        ("s3://bucket/a/model", ["error: none", "warning: does not end with /"]),
        ("s3://bucket/run=1/model/", ["error: has characters"]),
        ("s3://bucket/a b/", ["error: has characters"]),
        ("s3://bucket//model/", ["error: has characters"]),
        ("oci://bucket@ns/model/", ["error: is not in s3://", "warning: is not in s3://"]),
        ("/models/m", []),
        ("file:///models/m", []),
    ],
)
def test_uris_that_bedrock_takes(tmp_path, uri, expected):
    facts = [one for one in target_named("bedrock").facts if one.rule == "uri"]
    with opened(str(write_model(tmp_path / "m"))) as subject:
        there = attrs.evolve(subject, folder=attrs.evolve(subject.folder, uri=uri))
        found = [(fact.severity, message) for fact in facts for message, _, _ in RULES["uri"](there, fact.values)]
    expected = [one for one in expected if not one.endswith("none")]
    assert len(found) == len(expected)
    for (severity, message), words in zip(found, expected, strict=True):
        assert severity == words.partition(": ")[0]
        assert words.partition(": ")[2] in message


def test_names_that_cannot_be_written_on_a_server(tmp_path):
    with opened(str(write_model(tmp_path / "m"))) as subject:
        files = {**subject.folder.files, "x" * 256: 1, "weights": 1, "weights/part": 1}
        there = attrs.evolve(subject, folder=attrs.evolve(subject.folder, files=files))
        found = [message for message, _, _ in RULES["names"](there, {"most_bytes": 255})]
    assert sorted(found) == ["a name has more than 255 bytes", "weights is a file and a folder at once"]


# --- adapters


@pytest.mark.parametrize("target", ["bedrock", "sagemaker", "oci"])
def test_an_adapter_alone_is_refused_where_models_are_wanted(tmp_path, target):
    report = check(str(write_adapter(tmp_path / "a")), target=target)
    assert report.kind == "adapter"
    assert [one.rule for one in report.of("error")] == [f"{target}-adapter-refused"]
    assert "cloudtune merge" in report.of("error")[0].hint


def test_vllm_takes_an_adapter(tmp_path):
    assert check(str(write_adapter(tmp_path / "a")), target="vllm").findings == ()


def test_an_adapter_below_the_outputs_of_a_job_is_found(tmp_path):
    write_adapter(tmp_path / "outputs" / "adapter")
    assert check(str(tmp_path / "outputs"), target="vllm").kind == "adapter"


@pytest.mark.parametrize(
    ("keys", "rule", "severity", "words"),
    [
        ({"peft_type": "IA3"}, "adapter-kinds", "error", "IA3"),
        ({"use_dora": True}, "adapter-features", "error", "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "adapter-features", "error", "whole modules"),
        ({"bias": "all"}, "adapter-features", "error", "biases"),
        ({"rank_pattern": {"q_proj": 8}}, "adapter-features", "warning", "its own rank"),
        ({"alpha_pattern": {"q_proj": 8}}, "adapter-features", "warning", "lora_alpha"),
        ({"r": 1024}, "adapter-rank", "error", "512 is the most"),
        ({"r": 24}, "adapter-rank-option", "note", "made for 16"),
    ],
)
def test_adapters_that_vllm_does_not_serve(tmp_path, keys, rule, severity, words):
    found = check(str(write_adapter(tmp_path / "a", **keys)), target="vllm").findings
    (one,) = (one for one in found if one.rule == f"vllm-{rule}")
    assert one.severity == severity
    assert words in one.message
    if rule == "adapter-rank-option":
        assert one.hint == "serve with --max-lora-rank 32"


def test_tensors_that_are_no_halves_are_told_to_vllm_users(tmp_path):
    name = "base_model.model.lm_head.weight"
    tensors = {**adapter_tensors(), name: ("F32", (64, 32), numbers("F32", (64, 32)))}
    found = check(str(write_adapter(tmp_path / "a", tensors)), target="vllm").findings
    assert [(one.rule, one.where) for one in found] == [("vllm-adapter-tensors", f"adapter_model.safetensors: {name}")]
    assert [one.rule for one in check(str(tmp_path / "a")).findings] == ["adapter-alone"]


def test_facts_lie_beside_the_code():
    folder = Path(rules.__file__).parent
    assert {path.stem for path in folder.glob("*.json")} == set(TARGETS)
