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
    trust_remote_code: bool = option(False, "run Python code that the model's repository ships", kind=boolean)
    method: str = option("lora", "what is trained", choices=("full", "lora", "qlora"))
    attn_implementation: str = option(
        "auto", "attention kernel, e.g. sdpa, eager, flash_attention_2; falls back to sdpa where it is not installed"
    )
    bf16: bool | None = option(None, "compute in bfloat16; auto: where the device is fast at it", kind=boolean_or_auto)

    # data
    train_data: str = option(
        "", "a .jsonl file, a folder with train*.jsonl or tokens, or the name of a data set on the Hub", "--dataset"
    )
    eval_data: str = option("", "likewise; default: eval*/test*/valid*.jsonl of a folder given as --train-data")
    train_split: str = option("train", "split of a Hub data set for training")
    eval_split: str = option("", "split of a Hub data set for evaluation; default: test or validation, if it has one")
    data_config: str = option("", "configuration of a Hub data set")
    eval_fraction: float = option(0.0, "share of the training rows kept for evaluation if none are given", kind=float)
    bad_rows: str = option("fail", "what to do with rows that are not as expected", choices=("fail", "skip"))
    system_message: str = option("", "system message for conversations that have none")
    chat_template: str = option(
        "auto", "auto: the tokenizer's own, else a plain one; keep: its own or fail; or the path of a Jinja file"
    )
    max_length: int = option(1024, "longest sequence in tokens; longer rows are cut", "--max-seq-length", kind=int)
    packing: bool = option(False, "put several short rows into one sequence", kind=boolean)
    assistant_only_loss: bool = option(False, "take the loss of the assistant's words alone", kind=boolean)

    # training
    epochs: float = option(1.0, "passes over the training data", "--num-train-epochs", kind=float)
    max_steps: int = option(-1, "stop after so many steps; beats epochs", kind=int)
    batch_size: int = option(4, "rows a process and forward pass", "--per-device-train-batch-size", kind=int)
    eval_batch_size: int = option(
        0, "likewise for evaluation; 0: as --batch-size", "--per-device-eval-batch-size", kind=int
    )
    gradient_accumulation: int = option(
        1, "forward passes a step", "--gradient-accumulation-steps", "--grad-accumulation", kind=int
    )
    learning_rate: float = option(0.0, "peak learning rate; 0: 2e-4 for lora and qlora, 2e-5 for full", kind=float)
    scheduler: str = option("cosine", "how the learning rate changes, e.g. linear, constant", "--lr-scheduler-type")
    warmup: float = option(
        0.03, "steps (1 or more) or share of all steps (below 1)", "--warmup-steps", "--warmup-ratio", kind=float
    )
    weight_decay: float = option(0.0, "weight decay", kind=float)
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm", kind=float)
    optimizer: str = option("adamw_torch", "any optimizer name of transformers, e.g. paged_adamw_8bit", "--optim")
    gradient_checkpointing: bool | None = option(
        None, "compute activations again to save memory; auto: on accelerators", kind=boolean_or_auto
    )
    sharding: str = option(
        "none", "fsdp: each process keeps only its share of the parameters", choices=("none", "fsdp")
    )
    seed: int = option(42, "seed of everything random", kind=int)

    # LoRA
    lora_r: int = option(16, "rank of the adapter", kind=int)
    lora_alpha: int = option(0, "scale of the adapter; 0: twice the rank", kind=int)
    lora_dropout: float = option(0.05, "dropout in front of the adapter", kind=float)
    target_modules: tuple[str, ...] = option(
        ("all-linear",), "modules that get an adapter: all-linear or names", kind=words
    )
    modules_to_save: tuple[str, ...] = option((), "modules trained whole, e.g. lm_head,embed_tokens", kind=words)

    # evaluation, logs, checkpoints
    eval_strategy: str = option(
        "no", "evaluate while training, besides before and after", choices=("no", "steps", "epoch")
    )
    eval_steps: int = option(0, "steps between evaluations; 0: as --logging-steps", kind=int)
    logging_steps: int = option(10, "steps between lines of loss", kind=int)
    tensorboard: bool = option(True, "write TensorBoard logs to OUTPUT_DIR/tensorboard", kind=boolean)
    save_strategy: str = option("epoch", "when to write checkpoints", choices=("no", "steps", "epoch"))
    save_steps: int = option(500, "steps between checkpoints with --save-strategy steps", kind=int)
    save_total_limit: int = option(2, "checkpoints kept", kind=int)
    resume: str = option(
        "auto",
        "auto: from the newest checkpoint in OUTPUT_DIR, if any; never; or a checkpoint's path",
        "--resume-from-checkpoint",
    )
    output_dir: str = option("", "where results go; default $CLOUDTUNE_OUTPUT_DIR, else outputs")

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        return self.learning_rate or (2e-5 if self.method == "full" else 2e-4)

    def record(self) -> dict[str, Any]:
        """Return all options as plain JSON data."""
        return dataclasses.asdict(self)


def parse(argv: Sequence[str]) -> Options:
    """Return the options that a command line sets; a wrong one ends the program with exit code 2."""
    line = parser(Options, "sft.py", "Supervised fine-tuning on TRL and PEFT.")
    values = read(line, argv, NEEDED)
    for name in ("target_modules", "modules_to_save"):
        given = getattr(values, name)
        if isinstance(given, list):
            setattr(values, name, tuple(word for group in given for word in group))
    for name in ("batch_size", "gradient_accumulation", "logging_steps", "max_length", "lora_r", "save_steps"):
        if getattr(values, name) < 1:
            line.error(f"{called(name)} must be at least 1")
    if not 0 <= values.eval_fraction < 1:
        line.error(f"{called('eval_fraction')} must be at least 0 and below 1")
    settle_paths(values, "model", "train_data", "eval_data", "chat_template", "resume")
    return Options(**vars(values))
