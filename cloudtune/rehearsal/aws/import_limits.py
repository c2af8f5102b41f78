"""What Bedrock's Custom Model Import refuses of a model's files, by looking at them.

Source: "Use Custom model import to import a customized open-source model into Amazon Bedrock" of the user guide.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.aws.borrowed import Object

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import AwsCloud

REGIONS = ("eu-central-1", "us-east-1", "us-east-2", "us-west-2")
#: Architectures that are taken: what GetImportedModel calls them, and whether Converse answers.
ARCHITECTURES = {
    "MistralForCausalLM": ("mistral", True),
    "MixtralForCausalLM": ("mixtral", True),
    "T5ForConditionalGeneration": ("t5", False),
    "LlamaForCausalLM": ("llama", True),
    "MllamaForConditionalGeneration": ("mllama", True),
    "GPTBigCodeForCausalLM": ("gpt_bigcode", True),
    "Qwen2ForCausalLM": ("qwen2", True),
    "Qwen2VLForConditionalGeneration": ("qwen2_vl", False),
    "Qwen2_5_VLForConditionalGeneration": ("qwen2_5_vl", False),
    "Qwen3ForCausalLM": ("qwen3", False),
    "Qwen3MoeForCausalLM": ("qwen3_moe", False),
    "GptOssForCausalLM": ("gpt_oss", False),
}
_TOKENIZERS = ("T5", "Llama", "CodeLlama", "GPT2", "GPTNeoX", "PreTrained", "Qwen2")
_TYPES = frozenset({"F32", "F16", "BF16"})
_MOST_BYTES = 200 << 30
_INDEX = "model.safetensors.index.json"


class Unimportable(Exception):
    """The import fails; the text is its failureMessage."""


class Prefix:
    """The files directly below a prefix of S3."""

    def __init__(self, cloud: AwsCloud, bucket: str, prefix: str) -> None:
        self._cloud, self.bucket = cloud, bucket
        self._below = f"{prefix.rstrip('/')}/" if prefix else ""
        found = cloud.borrowed.objects(bucket, self._below)
        self.objects: Mapping[str, Object] = {
            one.key[len(self._below) :]: one for one in found if "/" not in one.key[len(self._below) :]
        }

    def read(self, name: str) -> bytes:
        """Return a file; Unimportable if it has gone."""
        data = self._cloud.borrowed.get(self.bucket, self._below + name)
        if data is None:
            raise Unimportable(f"{name} could not be read from S3.")
        return data

    def json(self, name: str) -> dict[str, Any]:
        """Return a file's JSON object; Unimportable if it is none."""
        try:
            value = json.loads(self.read(name))
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Unimportable(f"{name} is not a valid JSON file.")
        return value


def check_files(files: Prefix) -> dict[str, Any]:
    """Return the model's config; Unimportable where the files are not what is taken."""
    names = files.objects
    if not names:
        raise Unimportable("No files were found at the S3 location of the model.")
    if "adapter_config.json" in names and "config.json" not in names:
        raise Unimportable("The files are those of an adapter: merge it into its base model first.")
    for name in ("config.json", "tokenizer_config.json"):
        if name not in names:
            raise Unimportable(f"{name} is missing.")
    if not {"tokenizer.json", "tokenizer.model"} & set(names):
        raise Unimportable("tokenizer.json or tokenizer.model is missing.")
    weights = [name for name in names if name.endswith(".safetensors")]
    if not weights:
        raise Unimportable("No model weights in the Safetensors format were found.")
    if sum(names[name].bytes for name in weights) > _MOST_BYTES:
        raise Unimportable("The model weights are larger than 200 GB.")
    config = files.json("config.json")
    architecture = (config.get("architectures") or ["none"])[0]
    if architecture not in ARCHITECTURES:
        raise Unimportable(f"The model architecture {architecture} is not supported.")
    if "quantization_config" in config and architecture != "GptOssForCausalLM":
        raise Unimportable("Quantized models are not supported.")
    kind = str(files.json("tokenizer_config.json").get("tokenizer_class", "")).removesuffix("Fast")
    if kind.removesuffix("Tokenizer") not in _TOKENIZERS:
        raise Unimportable(f"The tokenizer {kind or 'without a class'} is not supported.")
    _check_weights(files, weights)
    return config


def _check_weights(files: Prefix, weights: list[str]) -> None:
    if _INDEX in files.objects:
        wanted = set(files.json(_INDEX).get("weight_map", {}).values())
        missing = sorted(wanted - set(weights))
        if missing:
            raise Unimportable(f"{missing[0]}, which {_INDEX} names, is missing.")
    for name in weights:
        data = files.read(name)
        try:
            (length,) = struct.unpack("<Q", data[:8])
            header = json.loads(data[8 : 8 + length])
            rows = [row for key, row in header.items() if key != "__metadata__"]
            end = max(row["data_offsets"][1] for row in rows)
            types = {row["dtype"] for row in rows}
        except (struct.error, ValueError, KeyError, TypeError, AttributeError):
            raise Unimportable(f"{name} is not a valid Safetensors file.") from None
        if len(data) != 8 + length + end:
            raise Unimportable(f"{name} is incomplete.")
        if types - _TYPES:
            raise Unimportable(f"{name} has tensors of the type {min(types - _TYPES)}, which is not supported.")
