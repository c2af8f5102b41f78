"""The options of the verbs that a pipeline's step may be: those of the command line, with its arguments by name.

They are read to say what is wrong with them before anything runs; a step keeps them as plain data.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cloudtune.spec.fields import setting

#: What is wrong with a name, and what to do about it.
Wrong = tuple[str, str]

_HUB_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_HUB_TAG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,99}")
_SAGEMAKER_NAME = re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62}")
_BEDROCK_NAME = re.compile(r"(?:[0-9a-zA-Z][_-]?)+")
#: Words that mean a kind of repository where an owner could stand.
_HUB_KINDS = frozenset({"models", "datasets", "spaces", "buckets", "kernels", "api"})


@attrs.frozen(kw_only=True)
class Merge:
    """Merges LoRA adapters into their base model."""

    base: str = attrs.field(metadata={"doc": "The base model: a folder, a URI, a registered name or one on the Hub."})
    adapter: str | tuple[str, ...] = attrs.field(
        metadata={"doc": "The adapter, or a list of them: folders, URIs or registered names."}
    )
    output: str | None = setting("Where the model goes; default: the step's outputs.")
    mode: str | None = setting(
        "`accurate` keeps the adapter in fp32; `peft` rounds it to the base's dtype first.",
        choices=("accurate", "peft"),
    )
    weight: tuple[float, ...] = setting("Factors of the adapters in the sum, one for each.", default=())
    name: str | None = setting("Name for the model card.")
    for_: str | None = setting(
        "Where it is to go: configs are written as they are read there.",
        key="for",
        choices=("bedrock", "vllm", "sagemaker", "oci"),
    )
    checksums: bool | None = setting("Record what each file hashes to; default true.")
    notebook: bool | None = setting("Merge by the package's notebook; its executed copy stays with the model.")


@attrs.frozen(kw_only=True)
class Consolidate:
    """Makes one Hugging Face model of a sharded checkpoint."""

    checkpoint: str = attrs.field(metadata={"doc": "The checkpoint: a folder, a URI or a registered name."})
    base: str | None = setting("The model that was trained, as in merge: its config and tokenizer are kept.")
    output: str | None = setting("Where the model goes; default: the step's outputs.")
    dtype: str | None = setting(
        "Precision to round to; default: that of the checkpoint.", choices=("bfloat16", "float16", "float32")
    )
    name: str | None = setting("Name for the model card.")
    checksums: bool | None = setting("Record what each file hashes to.")


@attrs.frozen(kw_only=True)
class Check:
    """Checks whether a place will take a model."""

    model: str = attrs.field(metadata={"doc": "The model: a folder, a URI or a registered name."})
    for_: str | None = setting("Where it is to go.", key="for", choices=("bedrock", "vllm", "sagemaker", "oci"))
    fast: bool | None = setting("Leave out what reads every byte: the search for NaN and infinities.")
    load: bool | None = setting("Build the model without memory by transformers and compare.")
    generate: bool | None = setting("Load the model on a CPU and let it say a few words.")


@attrs.frozen(kw_only=True)
class Register:
    """Files a model in a registry."""

    model: str = attrs.field(metadata={"doc": "The model: a folder, a URI or a registered name."})
    to: str | None = setting(
        "The registry; default `folder`.", choices=("folder", "oci", "sagemaker", "bedrock", "hub")
    )
    name: str = attrs.field(metadata={"doc": "Name of the model in the registry; on the Hub `owner/name`."})
    version: str | None = setting("Version, on the Hub a tag; default: the next number.")
    public: bool | None = setting("On the Hub, everybody may see the model; default: only its owner.")
    infrastructure: str | None = setting(
        "In a cloud, whose the model is: a profile, a job's file, or on AWS the ARN of a role; default: that of the "
        "job that trained it."
    )


@attrs.frozen(kw_only=True)
class Deploy:
    """Makes a model answer."""

    model: str = attrs.field(metadata={"doc": "The model: a folder, a URI or a registered name."})
    to: str | None = setting("The place; default `local`.", choices=("local", "oci", "sagemaker"))
    name: str | None = setting("Name of the deployment; default: the model's.")
    shape: str | None = setting("Machine shape, in a cloud.")
    image: str | None = setting("Image with vLLM, in a cloud; default: the service's own.")
    replicas: int | None = setting("Machines, in a cloud; default: one.", minimum=1)
    max_length: int | None = setting("Tokens of a prompt and its answer, in a cloud; default: the model's.", minimum=1)
    infrastructure: str | None = setting(
        "In a cloud, network and logs: a profile or a job's file; default: that of the job that trained the model."
    )


def wrong_hub_name(name: str) -> Wrong | None:
    """Return why a text cannot be the name of a model on the Hub, with its owner; None if it can.

    The rules are those that huggingface_hub 2.4 checks, and that there is an owner, without whom no file is reached.
    """
    owner, slash, short = name.partition("/")
    message = f"{name!r} cannot be the name of a model on the Hub"
    if not slash:
        hint = f"put your name there, or your organization's, before it: you/{name or 'model'}"
        return f"{message}: it has no owner", hint
    wrong = not _HUB_PART.fullmatch(owner) or not _HUB_PART.fullmatch(short) or "--" in name or ".." in name
    if wrong or len(name) > 96 or owner.lower() in _HUB_KINDS or short.lower().endswith(".git"):
        hint = "owner/name of letters, digits, dots, dashes and underscores, no two dots or dashes in a row; 96 at most"
        return message, hint
    return None


def wrong_hub_version(version: str) -> Wrong | None:
    """Return why a text cannot be the version of a model on the Hub, which is a tag of git; None if it can."""
    if not _HUB_TAG.fullmatch(version) or version.endswith((".", ".lock")) or version in {"main", "HEAD"}:
        return f"{version!r} cannot be the version of a model on the Hub", "it becomes a tag of git: v1.0 or 2026-01-31"
    return None


def wrong_bedrock_name(name: str) -> Wrong | None:
    """Return why a text cannot be the name of a model in Amazon Bedrock, or be part of one; None if it can."""
    if not _BEDROCK_NAME.fullmatch(name) or len(name) > 63:
        hint = "letters and digits with single dashes or underscores between them, no dots; 63 with the version"
        return f"{name!r} cannot be the name of a model in Bedrock", hint
    return None


def wrong_sagemaker_name(name: str) -> Wrong | None:
    """Return why a text cannot be the name of a group in SageMaker's model registry; None if it can."""
    if not _SAGEMAKER_NAME.fullmatch(name):
        return (
            f"{name!r} cannot be the name of a model in SageMaker",
            "letters, digits and dashes between them, 63 at most",
        )
    return None


def of_register(options: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str | None]]:
    """Find what cannot be in the options of a registration, which would else be said when all before it is done."""
    if options.get("to") == "hub":
        for key, rule in (("name", wrong_hub_name), ("version", wrong_hub_version)):
            value = options.get(key)
            wrong = rule(value) if isinstance(value, str) else None
            if wrong is not None:
                yield (key,), *wrong
    elif options.get("to") == "bedrock":
        parts = [options[key] for key in ("name", "version") if isinstance(options.get(key), str)]
        wrong = wrong_bedrock_name("-".join(parts)) if parts else None
        if wrong is not None:
            yield ("name",), *wrong
    elif options.get("to") == "sagemaker":
        named = options.get("name")
        wrong = wrong_sagemaker_name(named) if isinstance(named, str) else None
        if wrong is not None:
            yield ("name",), *wrong
        if options.get("version") is not None:
            yield ("version",), "SageMaker numbers versions itself", "leave it out"
    if options.get("public") and options.get("to") != "hub":
        yield ("public",), "'public' is for the Hub only", "leave it out, or write `to: hub`"
    yield from _of_clouds(options, ("infrastructure",), {None, "folder", "hub"})


def of_deploy(options: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str | None]]:
    """Find what cannot be in the options of a deployment."""
    yield from _of_clouds(options, ("shape", "image", "replicas", "maxLength", "infrastructure"), {None, "local"})
    if options.get("to") == "sagemaker" and not options.get("shape"):
        yield ("to",), "SageMaker wants to know on which machines: 'shape' is missing", "e.g. shape: ml.g5.xlarge"
    if options.get("to") == "oci" and not options.get("shape"):
        yield ("to",), "OCI wants to know on which machines: 'shape' is missing", "e.g. shape: VM.GPU.A10.1"


def _of_clouds(
    options: Mapping[str, Any], keys: tuple[str, ...], here: set[str | None]
) -> Iterator[tuple[tuple[str, ...], str, str | None]]:
    for key in keys:
        if options.get(key) is not None and options.get("to") in here:
            yield (key,), f"{key!r} is for clouds only", "leave it out, or write `to: oci`"
