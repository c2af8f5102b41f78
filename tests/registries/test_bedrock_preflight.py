"""Models that Bedrock does not take: each rule has a spoiled copy, which `check` and `register` refuse in its words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtune import storage
from cloudtune.errors import ServiceError
from cloudtune.weights.checks.targets import target_named
from cloudtune.weights.files.safetensors import make_header
from tests.aws_place import aws_place
from tests.cli.calling import call
from tests.registries.bedrock import Filing
from tests.weights.checks.checkable import change, llama_tensors, write_adapter, write_model

pytest.importorskip("botocore")
pytest.importorskip("s3fs")


def spoil(file: str, **keys: Any) -> Callable[[Path], object]:
    return lambda folder: change(folder / file, **keys)


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def converted(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "model-q4.gguf").write_bytes(b"GGUF")


def only_an_adapter(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    write_adapter(folder)


def too_large(folder: Path) -> None:
    """A tensor of 201 GB, of which not a byte is on the disk."""
    shape = (201_000, 500_000)
    head, _ = make_header([("model.huge.weight", "BF16", shape)])
    name = "model-00003-of-00003.safetensors"
    (folder / name).write_bytes(head)
    os.truncate(folder / name, len(head) + 2 * shape[0] * shape[1])
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    change(folder / "model.safetensors.index.json", weight_map={**index["weight_map"], "model.huge.weight": name})


def cut_off(folder: Path) -> None:
    (path, *_) = folder.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])


def with_a_tensor_of(dtype: str, size_bytes: int) -> Callable[[Path], object]:
    name = "model.layers.1.input_layernorm.weight"
    return lambda folder: write_model(folder, {**llama_tensors(), name: (dtype, (32,), bytes(32 * size_bytes))})


#: By rule, how a model is spoiled, and what is said of it; rules of all models are without the place's name.
SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "bedrock-formats": (converted, "the weights are in GGUF"),
    "bedrock-files": (without("tokenizer_config.json"), "there is no tokenizer_config.json"),
    "bedrock-architectures": (
        spoil("config.json", architectures=["OtherForCausalLM"]),
        "OtherForCausalLM is not among",
    ),
    "bedrock-size": (too_large, "the weights have 201.0 GB, and must have less than 200"),
    "bedrock-context": (spoil("config.json", max_position_embeddings=200_000), "must be less than 128K"),
    "bedrock-rope-parameters": (spoil("config.json", rope_parameters={"rope_theta": 5e5}), "rope_theta is 500000"),
    "bedrock-tokenizer-class": (
        spoil("tokenizer_config.json", tokenizer_class="TokenizersBackend"),
        "tokenizer_class is TokenizersBackend",
    ),
    "bedrock-tokenizer-keys": (
        spoil("tokenizer_config.json", extra_special_tokens=["<a>"]),
        "extra_special_tokens is a list",
    ),
    "bedrock-adapter-refused": (only_an_adapter, "the import wants the files of a whole model"),
    "files-missing": (
        without("model-00002-of-00002.safetensors"),
        "names model-00002-of-00002.safetensors, which is not there",
    ),
    "files-header": (cut_off, "is no whole safetensors file: its tensors end at 20736, and the file has 20636 bytes"),
}
#: What the service is only remembered to refuse: a warning before, and its own words after.
REMEMBERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "bedrock-dtypes": (with_a_tensor_of("F64", 8), "has tensors of the type F64, which is not supported"),
    "bedrock-quantization": (
        spoil("config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "Quantized models are not supported",
    ),
}


@pytest.fixture
def filing(tmp_path: Path) -> Iterator[Filing]:
    with aws_place(tmp_path, speed=5000.0) as place:
        yield Filing(place, tmp_path)


def findings(severity: str, *words: str) -> dict[str, str]:
    """Return what `check` finds for Bedrock, by rule."""
    answer = call("check", *words, "--for", "bedrock", "--fast", "-o", "json")
    found = json.loads(answer.out)["findings"]
    assert answer.code == any(one["severity"] == "error" for one in found)
    return {one["rule"]: one["message"] for one in found if one["severity"] == severity}


def refused(*words: str) -> str:
    """Return the words with which `register` refuses a model before it sends anything."""
    answer = call("register", *words, "--to", "bedrock", "--name", "llama")
    assert answer.code == 2, answer
    return answer.err


def test_every_rule_of_bedrock_has_a_spoiled_model() -> None:
    rules = {f"bedrock-{fact.rule}" for fact in target_named("bedrock").facts if fact.severity == "error"}
    assert rules - set(SPOILED) == {"bedrock-uri"}  # that is about the place: below


def test_a_spoiled_model_is_refused_in_the_words_of_its_rule(filing: Filing) -> None:
    for rule, (deed, words) in SPOILED.items():
        folder = filing.model(rule)
        deed(folder)
        found = findings("error", str(folder))
        assert words in found.get(rule, ""), (rule, found)
        # a folder that is not whole, or of another form, is no model for any registry
        said = refused(str(folder))
        assert ("Bedrock will not take" in said) == rule.startswith("bedrock-") or rule == "bedrock-formats", said
        assert words in said, rule
    bucket = f"s3://{filing.place.bucket}"
    assert (filing.jobs(), storage.listing(f"{bucket}/")) == ([], ())
    storage.upload(filing.model("whole"), f"{bucket}/step=3/model")
    for said in (findings("error", f"{bucket}/step=3/model")["bedrock-uri"], refused(f"{bucket}/step=3/model")):
        assert "has characters that are not taken in a URI" in said
    assert filing.jobs() == []
    assert findings("error", str(filing.model("whole"))) == {}
    assert filing.file(filing.model("whole")).version == "1"


def test_what_is_only_remembered_is_a_warning_and_the_import_refuses_it(filing: Filing) -> None:
    for rule, (deed, words) in REMEMBERED.items():
        folder = filing.model(rule)
        deed(folder)
        assert rule in findings("warning", str(folder))
        with pytest.raises(ServiceError) as error:
            filing.file(folder)
        assert words in error.value.message
    assert [job["status"] for job in filing.jobs()] == ["Failed"] * len(REMEMBERED)
