"""The options of the verbs that a pipeline's step may be: those of the command line, with its arguments by name.

They are read to say what is wrong with them before anything runs; a step keeps them as plain data.
"""

import attrs

from cloudtune.spec.fields import setting


@attrs.frozen(kw_only=True)
class Merge:
    """Merges LoRA adapters into their base model."""

    base: str = attrs.field(metadata={"doc": "The base model: a folder, a URI or a name on the Hub."})
    adapter: str | tuple[str, ...] = attrs.field(metadata={"doc": "The adapter, or a list of them."})
    output: str | None = setting("Where the model goes; default: the step's outputs.")
    mode: str | None = setting(
        "`accurate` keeps the adapter in fp32; `peft` rounds it to the base's dtype first.",
        choices=("accurate", "peft"),
    )
    name: str | None = setting("Name for the model card.")


@attrs.frozen(kw_only=True)
class Consolidate:
    """Makes one Hugging Face model of a sharded checkpoint."""

    checkpoint: str = attrs.field(metadata={"doc": "The checkpoint: a folder or a URI."})
    base: str | None = setting("The model that was trained: its config and tokenizer are kept.")
    output: str | None = setting("Where the model goes; default: the step's outputs.")


@attrs.frozen(kw_only=True)
class Check:
    """Checks whether a place will take a model."""

    model: str = attrs.field(metadata={"doc": "The model: a folder, a URI or a registered name."})
    for_: str | None = setting("Where it is to go.", key="for", choices=("bedrock", "vllm", "sagemaker", "oci"))


@attrs.frozen(kw_only=True)
class Register:
    """Files a model in a registry."""

    model: str = attrs.field(metadata={"doc": "The model: a folder or a URI."})
    to: str | None = setting(
        "The registry; default `folder`.", choices=("folder", "oci", "sagemaker", "bedrock", "hub")
    )
    name: str = attrs.field(metadata={"doc": "Name of the model in the registry; on the Hub `owner/name`."})
    version: str | None = setting("Version, on the Hub a tag; default: the next number.")
    public: bool | None = setting("On the Hub, everybody may see the model; default: only its owner.")


@attrs.frozen(kw_only=True)
class Deploy:
    """Makes a model answer."""

    model: str = attrs.field(metadata={"doc": "The model: a folder, a URI or a registered name."})
    to: str | None = setting("The place; default `local`.", choices=("local", "oci", "sagemaker"))
    name: str | None = setting("Name of the deployment; default: the model's.")
    shape: str | None = setting("Machine shape, in a cloud.")
