"""Supervised fine-tuning on TRL and PEFT: full, LoRA or QLoRA, on one process or many.

Runs as it is, alone or under torchrun: ``python sft.py --model DIR --train-data rows.jsonl``; ``--help`` lists all
options. What it leaves in OUTPUT_DIR:

* ``adapter/`` (LoRA, QLoRA) or ``model/`` (full), with the tokenizer;
* ``metrics.json``: losses before and after, steps, tokens a second; ``training.json``: base, options, versions;
* ``checkpoints/`` and ``tensorboard/``.

Ended by SIGTERM it saves a checkpoint first and ends with exit code 143; started again it goes on from there.
"""

import os
import sys
from pathlib import Path
from typing import Any

import model as models
from data import load_data
from faults import RecipeError
from options import Options, parse
from places import model_fault
from progress import (
    ListFiles,
    LossLines,
    Sharding,
    StopOnSignal,
    checkpoint_to_resume,
)
from ranks import RANK, device_kind, is_shared, leave, nodes, say
from results import measure, record_of, save_result, write_json
from resuming import checkpoint_folder
from running import run
from tokens import fit, tokens_at
from transformers import PrinterCallback
from transformers.integrations import TensorBoardCallback
from trl import SFTConfig, SFTTrainer


def settings_of(options: Options, route: str, *, evaluates: bool) -> SFTConfig:
    """Return the options in the words of the current TRL and transformers."""
    on_cpu = device_kind() == "cpu"
    recompute = not on_cpu if options.gradient_checkpointing is None else options.gradient_checkpointing
    # not FSDP's own recomputing: it renames modules, and PEFT then writes checkpoints without a single tensor
    wrapped = {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"}
    # transformers 5.20 renamed gradient checkpointing and warns of the old name
    renamed = "activation_checkpointing" in SFTConfig.__dataclass_fields__
    return SFTConfig(
        output_dir=str(checkpoint_folder(options.output_dir)),
        num_train_epochs=options.epochs,
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.eval_batch_size or options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation,
        learning_rate=options.rate,
        lr_scheduler_type=options.scheduler,
        warmup_steps=options.warmup,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        optim=options.optimizer,
        **{"activation_checkpointing" if renamed else "gradient_checkpointing": recompute},
        bf16=models.uses_bf16(options),
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        max_length=options.max_length,
        packing=options.packing,
        assistant_only_loss=options.assistant_only_loss,
        seed=options.seed,
        data_seed=options.seed,
        eval_strategy=options.eval_strategy if evaluates else "no",
        eval_steps=options.eval_steps or options.logging_steps,
        logging_steps=options.logging_steps,
        save_strategy=options.save_strategy,
        save_steps=options.save_steps,
        save_total_limit=options.save_total_limit,
        save_only_model=route == "loaded",
        fsdp=True if route == "wrapped" else None,
        fsdp_config=wrapped if route == "wrapped" else None,
        ddp_find_unused_parameters=False,
        report_to="none",
        disable_tqdm=True,
    )


def tensorboard(options: Options) -> list[Any]:
    """Return what writes TensorBoard logs on the first rank, if TensorBoard is installed."""
    if not options.tensorboard or RANK != 0:
        return []
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(Path(options.output_dir) / "tensorboard")
    try:
        return [TensorBoardCallback()]
    except (ImportError, RuntimeError):
        say("tensorboard: not installed, so no logs are written for it")
        return []


def train(options: Options) -> int:
    """Carry out the training; return the exit code."""
    if fault := model_fault(options.model):
        raise RecipeError(fault)
    output = Path(options.output_dir)
    checkpoints = checkpoint_folder(options.output_dir)
    for folder in (output, checkpoints):
        folder.mkdir(parents=True, exist_ok=True)
    route = models.sharding_route(options)
    train_data, eval_data = load_data(options)
    conversational = bool({"messages", "conversations"} & set(train_data.column_names)) or isinstance(
        train_data[0].get("prompt"), list
    )
    say(f"data: {len(train_data)} rows for training, {len(eval_data) if eval_data else 0} for evaluation")
    tokenizer = models.load_tokenizer(options, conversational=conversational)
    settings = settings_of(options, route, evaluates=eval_data is not None)
    if made := tokens_at(options.train_data):
        fit(made, tokenizer, options.max_length)
        settings.packing = False  # they are as they are to be
    settings.save_on_each_node = nodes() > 1 and not is_shared(checkpoints)
    checkpoint = checkpoint_to_resume(options, route)
    settings.eval_on_start = eval_data is not None and checkpoint is None
    model = models.load_model(options, route)
    stop, sharding = StopOnSignal(), Sharding(route)
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=train_data,
        eval_dataset=eval_data,
        processing_class=tokenizer,
        peft_config=models.adapter(options),
        callbacks=[sharding, LossLines(), ListFiles(), stop, *tensorboard(options)],
    )
    trainer.remove_callback(PrinterCallback)
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    if stop.stopped:
        say(f"stopped by SIGTERM after step {trainer.state.global_step}; a checkpoint is in {checkpoints}")
        return 143
    metrics = measure(trainer, trained, evaluates=eval_data is not None)
    final = save_result(trainer, options, route)
    if RANK == 0:
        write_json(output / "metrics.json", metrics)
        write_json(output / "training.json", record_of(options, trainer, sharding.line))
    if eval_data is not None:
        say(f"eval_loss before: {metrics['eval_loss_before']:.4f} after: {metrics['eval_loss']:.4f}")
    say(f"saved {final}")
    return 0


def main() -> int:
    """Parse the command line, train, and tell in plain words what went wrong."""
    return run(train, parse(sys.argv[1:]))


if __name__ == "__main__":
    leave(main())
