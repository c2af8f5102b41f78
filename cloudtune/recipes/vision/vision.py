"""Fine-tuning of models that see images (Llama 3.2 Vision and others): whole or LoRA, on one process or by FSDP2.

Runs as it is, alone or under torchrun: ``python vision.py --model DIR --train-data rows.jsonl``; ``--help`` lists all
options. What it leaves in OUTPUT_DIR:

* ``adapter/`` (LoRA), ``model/`` (one process), or ``sharded/``: what every process holds of the model, of which
  ``cloudtune consolidate`` makes one;
* ``metrics.json``: losses before and after, steps, tokens a second; ``training.json``: base, options, versions;
* ``checkpoints/``.

Ended by SIGTERM it saves a checkpoint first and ends with exit code 143; started again it goes on from there.
"""

import os
import sys
from pathlib import Path

# in the package, what this recipe shares with sft lies there; on a node it lies beside this file
sys.path.append(str(Path(__file__).resolve().parent.parent / "sft"))

import torch
from batches import Collator
from faults import RecipeError
from model import load_model, load_processor, told
from options import Options, parse
from pictures import Pictures, load
from places import model_fault
from ranks import RANK, leave, say
from running import run
from saving import peak_memory_bytes, record_of, save_result, write_json
from steps import Trainer, begin


def rows_of(options: Options) -> tuple[Pictures, Pictures | None]:
    """Return the rows to train on, and those to evaluate on if there are any."""
    words = {"system_message": options.system_message}
    data = load(options.train_data, options.train_split, options.data_config, evaluation=False, **words)
    assert data is not None
    named = options.eval_data or options.train_data
    split = options.eval_split or ("test" if options.eval_data else "")
    apart = load(named, split, options.data_config, evaluation=True, named_for_it=bool(options.eval_data), **words)
    for one in (data, apart):
        if one is not None:
            one.check(options.bad_rows, say)
    return data, apart


def train(options: Options) -> int:
    """Carry out the training; return the exit code."""
    if fault := model_fault(options.model):
        raise RecipeError(fault)
    begin(options)
    data, apart = rows_of(options)
    say(f"data: {len(data)} rows for training, {len(apart) if apart is not None else 0} for evaluation")
    processor = load_processor(options)
    model, sharding = load_model(options)
    say(sharding)
    told(model)
    trainer = Trainer(model, data, apart, Collator(processor, options.max_length), options)
    if not trainer.run():
        say(f"stopped by SIGTERM after step {trainer.step}; a checkpoint is in {trainer.folder}")
        return 143
    metrics = measures(trainer)
    final = save_result(model, processor, options)
    if RANK == 0:
        output = Path(options.output_dir)
        write_json(output / "metrics.json", metrics)
        write_json(output / "training.json", record_of(options, model, sharding, os.environ.get("CLOUDTUNE_RUN_ID")))
    if apart is not None:
        say(f"eval_loss before: {metrics['eval_loss_before']:.4f} after: {metrics['eval_loss']:.4f}")
    say(f"saved {final}")
    return 0


def measures(trainer: Trainer) -> dict[str, object]:
    """Return what the training came to; every rank must call it."""
    accelerated = torch.cuda.is_available()
    return {
        "eval_loss_before": trainer.eval_before,
        "eval_loss": trainer.evaluate() if trainer.apart is not None else None,
        "train_loss": trainer.losses / max(trainer.step, 1),
        "steps": trainer.step,
        "epochs": trainer.step / trainer.once,
        "tokens": trainer.tokens,
        "tokens_per_second": trainer.tokens / trainer.seconds if trainer.seconds else None,
        "train_seconds": trainer.seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        "peak_accelerator_bytes": torch.cuda.max_memory_allocated() if accelerated else None,
    }


def main() -> int:
    """Parse the command line, train, and tell in plain words what went wrong."""
    return run(train, parse(sys.argv[1:]))


if __name__ == "__main__":
    leave(main())
