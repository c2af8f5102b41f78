"""The options of the recipe: one table from which the command line, its help and the record of a training come."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from flags import boolean, boolean_or_auto, called, option, parser, read, settle_paths, words

#: The options that have no default.
NEEDED = ("model", "train_data")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that the recipe can be told."""

    # model
    model: str = option("", "folder of the base model, or its name on the Hub", "--model-name-or-path", "--model-id")
    revision: str = option("main", "branch, tag or commit of a model on the Hub")
    method: str = option("lora", "what is trained", choices=("full", "lora"))
    train_vision: bool = option(True, "train the part that sees, too; false: the language model alone", kind=boolean)
    attn_implementation: str = option("auto", "attention kernel, e.g. sdpa, eager; auto: as transformers chooses")
    bf16: bool | None = option(None, "compute in bfloat16; auto: where the device is fast at it", kind=boolean_or_auto)

    # data
    train_data: str = option(
        "", "a .jsonl or .parquet file, a folder with train*, or the name of a data set on the Hub", "--dataset"
    )
    eval_data: str = option("", "likewise; default: eval*, test* or valid* of a folder given as --train-data")
    train_split: str = option("train", "split of a Hub data set for training")
    eval_split: str = option("", "split of a Hub data set for evaluation; default: none")
    data_config: str = option("", "configuration of a Hub data set")
    bad_rows: str = option("fail", "what to do with rows that are not as expected", choices=("fail", "skip"))
    system_message: str = option("", "system message for conversations that have none")
    chat_template: str = option("auto", "auto: the processor's own; or the path of a Jinja file")
    max_length: int = option(2048, "longest sequence in tokens; longer rows are cut", "--max-seq-length", kind=int)

    # training
    epochs: float = option(1.0, "passes over the training data", "--num-train-epochs", kind=float)
    max_steps: int = option(-1, "stop after so many steps; beats epochs", kind=int)
    batch_size: int = option(1, "rows a process and forward pass", "--per-device-train-batch-size", kind=int)
    gradient_accumulation: int = option(1, "forward passes a step", "--gradient-accumulation-steps", kind=int)
    learning_rate: float = option(0.0, "peak learning rate; 0: 2e-4 for lora, 1e-5 for full", kind=float)
    scheduler: str = option("cosine", "how the learning rate changes, e.g. linear, constant", "--lr-scheduler-type")
    warmup: float = option(
        0.03, "steps (1 or more) or share of all steps (below 1)", "--warmup-steps", "--warmup-ratio", kind=float
    )
    weight_decay: float = option(0.0, "weight decay", kind=float)
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm", kind=float)
    gradient_checkpointing: bool | None = option(
        None, "compute activations again to save memory; auto: on accelerators", kind=boolean_or_auto
    )
    workers: int = option(-1, "processes that prepare images beside each trainer; -1: 4 on accelerators", kind=int)
    seed: int = option(42, "seed of everything random", kind=int)

    # LoRA
    lora_r: int = option(16, "rank of the adapter", kind=int)
    lora_alpha: int = option(0, "scale of the adapter; 0: twice the rank", kind=int)
    lora_dropout: float = option(0.05, "dropout in front of the adapter", kind=float)
    target_modules: tuple[str, ...] = option(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        "modules that get an adapter: all-linear or names",
        kind=words,
    )

    # logs, checkpoints
    logging_steps: int = option(10, "steps between lines of loss", kind=int)
    save_strategy: str = option("epoch", "when to write checkpoints", choices=("no", "steps", "epoch"))
    save_steps: int = option(500, "steps between checkpoints with --save-strategy steps", kind=int)
    save_total_limit: int = option(2, "checkpoints kept", kind=int)
    resume: str = option(
        "auto",
        "auto: from the newest whole checkpoint, if any; never; or a checkpoint's path",
        "--resume-from-checkpoint",
    )
    output_dir: str = option("", "where results go; default $CLOUDTUNE_OUTPUT_DIR, else outputs")

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        return self.learning_rate or (1e-5 if self.method == "full" else 2e-4)

    @property
    def alpha(self) -> int:
        """The scale of the adapter that is used."""
        return self.lora_alpha or 2 * self.lora_r

    def record(self) -> dict[str, Any]:
        """Return all options as plain JSON data."""
        return dataclasses.asdict(self)


def parse(argv: Sequence[str]) -> Options:
    """Return the options that a command line sets; a wrong one ends the program with exit code 2."""
    line = parser(Options, "vision.py", "Fine-tuning of models that see images, by FSDP.")
    values = read(line, argv, NEEDED)
    if isinstance(values.target_modules, list):
        values.target_modules = tuple(word for group in values.target_modules for word in group)
    for name in ("batch_size", "gradient_accumulation", "logging_steps", "max_length", "lora_r", "save_steps"):
        if getattr(values, name) < 1:
            line.error(f"{called(name)} must be at least 1")
    settle_paths(values, "model", "train_data", "eval_data", "chat_template", "resume")
    return Options(**vars(values))
