"""Supervised fine-tuning on Trainium by optimum-neuron's trainer: whole models or LoRA, over tensor and pipeline ranks.

Runs under torchrun, one process a Neuron core: ``torchrun --nproc-per-node 2 sft_neuron.py --model DIR --train-data
rows.jsonl --tensor-parallel-size 2``; ``--help`` lists all options. What it leaves in OUTPUT_DIR:

* ``final/``: the shards of every tensor and pipeline rank, as optimum-neuron saves them, with the tokenizer;
  ``cloudtune consolidate`` makes a model, or an adapter, of them;
* ``checkpoints/``, if they are asked for, or these in the folder that the place keeps for them; optimum-neuron's
  trainer cannot go on from one.

In a rehearsal there is no Neuron stack: the same is computed on processors, and saved in the same shards.
"""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

# in the package, what this recipe shares with sft lies there; on a node it lies beside this file
sys.path.append(str(Path(__file__).resolve().parent.parent / "sft"))

import rows
from options import Options, parse
from places import model_fault
from tokens import read_tokens, tokens_at

#: What the trainer needs, by the names of their modules.
STACK = ("torch_neuronx", "neuronx_distributed", "optimum.neuron")
INSTRUCTIONS = (
    "use an image that has them: framework: {name: huggingface} on ml.trn1, or one of runtimes/torch-neuron; "
    "elsewhere the recipe sft trains"
)


def lacking() -> list[str]:
    """Return the modules of the Neuron stack that are not installed."""

    def found(name: str) -> bool:
        try:
            return importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:
            return False

    return [name for name in STACK if not found(name)]


def training_rows(options: Options) -> Any:
    """Return the rows for training, which every process reads itself: texts, or tokens as a data set."""
    if made := tokens_at(options.train_data):
        return read_tokens(made)
    files = rows.data_files(options.train_data)
    if not files:
        raise rows.DataError(
            f"{options.train_data} is no file: let the recipe prepare, or a step, fetch it from the Hub"
        )
    return list(rows.read_rows(files, system_message=options.system_message, bad_rows=options.bad_rows, tell=say))


def say(text: str) -> None:
    """Print a line for people, once."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


def main() -> int:
    """Train, and tell in plain words what cannot be."""
    options = parse(sys.argv[1:])
    missing = lacking()
    try:
        data = training_rows(options)
        if not missing:
            from neuron_training import train
        elif os.environ.get("CLOUDTUNE_REHEARSED"):
            from cpu_training import train
        else:
            print(f"error: no {', '.join(missing)}\n  hint: {INSTRUCTIONS}", file=sys.stderr, flush=True)
            return 1
        if fault := model_fault(options.model):
            print(f"error: {fault}", file=sys.stderr, flush=True)
            return 1
        train(options, data)
        if missing:
            from ranks import leave

            leave(0)
    except (rows.DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
