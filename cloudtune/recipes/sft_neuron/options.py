"""The options of the recipe: one table from which the command line and its help come."""

import dataclasses
import os
from collections.abc import Sequence

from flags import boolean, called, option, parser, read, settle_paths, words

#: The options that have no default.
NEEDED = ("model", "train_data")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that the recipe can be told."""

    # model
    model: str = option("", "folder of the base model, or its name on the Hub", "--model-name-or-path", "--model-id")
    revision: str = option("main", "branch, tag or commit of a model on the Hub")
    method: str = option("lora", "what is trained", choices=("full", "lora"))
    tensor_parallel_size: int = option(0, "cores that share each layer; 0: as the job has it, else 1", kind=int)
    pipeline_parallel_size: int = option(0, "stages of layers; 0: as the job has it, else 1", kind=int)
    kv_size_multiplier: int = option(0, "copies of the key heads among cores; 0: as many as are needed", kind=int)
    zero_1: bool = option(True, "spread the optimizer's state over the data-parallel cores", kind=boolean)

    # data
    train_data: str = option("", "a .jsonl file, or a folder with train*.jsonl or with tokens", "--dataset")
    system_message: str = option("", "system message for conversations that have none")
    bad_rows: str = option("fail", "what to do with rows that are not as expected", choices=("fail", "skip"))
    max_length: int = option(1024, "length of every sequence in tokens; graphs are compiled for it", kind=int)
    packing: bool = option(False, "put several short rows into one sequence", kind=boolean)

    # training
    epochs: float = option(1.0, "passes over the training data", "--num-train-epochs", kind=float)
    max_steps: int = option(-1, "stop after so many steps; beats epochs", kind=int)
    batch_size: int = option(1, "rows a process and forward pass", "--per-device-train-batch-size", kind=int)
    gradient_accumulation: int = option(1, "forward passes a step", "--gradient-accumulation-steps", kind=int)
    learning_rate: float = option(0.0, "peak learning rate; 0: 2e-4 for lora, 2e-5 for full", kind=float)
    scheduler: str = option("cosine", "how the learning rate changes, e.g. linear, constant", "--lr-scheduler-type")
    warmup: int = option(0, "steps in which the learning rate rises", "--warmup-steps", kind=int)
    weight_decay: float = option(0.0, "weight decay", kind=float)
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm", kind=float)
    gradient_checkpointing: bool = option(True, "compute activations again to save memory", kind=boolean)
    seed: int = option(42, "seed of everything random", kind=int)

    # LoRA
    lora_r: int = option(16, "rank of the adapter", kind=int)
    lora_alpha: int = option(0, "scale of the adapter; 0: twice the rank", kind=int)
    lora_dropout: float = option(0.05, "dropout in front of the adapter", kind=float)
    target_modules: tuple[str, ...] = option(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        "modules that get an adapter",
        kind=words,
    )

    # logs, checkpoints
    logging_steps: int = option(10, "steps between lines of loss", kind=int)
    save_strategy: str = option("no", "when to write checkpoints", choices=("no", "steps", "epoch"))
    save_steps: int = option(500, "steps between checkpoints with --save-strategy steps", kind=int)
    output_dir: str = option("", "where results go; default $CLOUDTUNE_OUTPUT_DIR, else outputs")

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        return self.learning_rate or (2e-5 if self.method == "full" else 2e-4)

    @property
    def alpha(self) -> int:
        """The scale of the adapter that is used."""
        return self.lora_alpha or 2 * self.lora_r


def parse(argv: Sequence[str]) -> Options:
    """Return the options that a command line sets; a wrong one ends the program with exit code 2."""
    line = parser(Options, "sft_neuron.py", "Supervised fine-tuning on Trainium by optimum-neuron.")
    values = read(line, argv, NEEDED)
    if isinstance(values.target_modules, list):
        values.target_modules = tuple(word for group in values.target_modules for word in group)
    for name in ("tensor", "pipeline"):
        told = os.environ.get(f"CLOUDTUNE_{name.upper()}_PARALLEL_SIZE") or "1"
        key = f"{name}_parallel_size"
        setattr(values, key, getattr(values, key) or int(told))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    degrees = values.tensor_parallel_size * values.pipeline_parallel_size
    if world % degrees:
        line.error(
            f"{called('tensor_parallel_size')} x {called('pipeline_parallel_size')} = {degrees}: {world} processes"
        )
    for name in ("batch_size", "gradient_accumulation", "logging_steps", "max_length", "lora_r", "save_steps"):
        if getattr(values, name) < 1:
            line.error(f"{called(name)} must be at least 1")
    settle_paths(values, "model", "train_data")
    return Options(**vars(values))
