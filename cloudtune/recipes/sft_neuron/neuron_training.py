"""Training on Neuron cores, by optimum-neuron 0.4 (transformers 4.57, trl 0.24, peft 0.17)."""

import os
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from options import Options
from ranks import say
from resuming import checkpoint_folder
from tokens import fit, tokens_at
from transformers import AutoTokenizer

#: Set by neuron_parallel_compile: graphs are collected and nothing is computed.
COMPILING = "NEURON_EXTRACT_GRAPHS_ONLY"
#: Steps after which all graphs are known.
COMPILED_STEPS = 10


def settings_of(options: Options) -> dict[str, Any]:
    """Return the options in the words of NeuronSFTConfig."""
    compiling = os.environ.get(COMPILING) == "1"
    return {
        "output_dir": str(checkpoint_folder(options.output_dir)),
        "num_train_epochs": options.epochs,
        "max_steps": COMPILED_STEPS if compiling else options.max_steps,
        "per_device_train_batch_size": options.batch_size,
        "gradient_accumulation_steps": options.gradient_accumulation,
        "learning_rate": options.rate,
        "lr_scheduler_type": options.scheduler,
        "warmup_steps": options.warmup,
        "weight_decay": options.weight_decay,
        "max_grad_norm": options.max_grad_norm,
        "gradient_checkpointing": options.gradient_checkpointing,
        "bf16": True,
        "seed": options.seed,
        "logging_steps": options.logging_steps,
        "save_strategy": "no" if compiling else options.save_strategy,
        "save_steps": options.save_steps,
        "report_to": "none",
        "max_length": options.max_length,
        "packing": options.packing and tokens_at(options.train_data) is None,
        "tensor_parallel_size": options.tensor_parallel_size,
        "pipeline_parallel_size": options.pipeline_parallel_size,
        "kv_size_multiplier": options.kv_size_multiplier or None,
        "zero_1": options.zero_1,
    }


def adapter_of(options: Options) -> Any:
    """Return the settings of the adapter; None where the whole model is trained."""
    if options.method == "full":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=options.lora_r,
        lora_alpha=options.alpha,
        lora_dropout=options.lora_dropout,
        target_modules=list(options.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )


def train(options: Options, data: Any) -> None:
    """Train, and save the shards of every rank in OUTPUT_DIR/final."""
    from optimum.neuron import NeuronSFTConfig, NeuronSFTTrainer
    from optimum.neuron.models.training import NeuronModelForCausalLM

    arguments = NeuronSFTConfig(**settings_of(options))
    tokenizer = AutoTokenizer.from_pretrained(options.model, revision=options.revision)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if made := tokens_at(options.train_data):
        fit(made, tokenizer, options.max_length)
    if any(checkpoint_folder(options.output_dir).glob("checkpoint-*")):
        say("there are checkpoints, but optimum-neuron's trainer cannot go on from one: training starts anew")
    model = NeuronModelForCausalLM.from_pretrained(
        options.model, arguments.trn_config, revision=options.revision, torch_dtype=torch.bfloat16
    )
    trainer = NeuronSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=data if isinstance(data, Dataset) else Dataset.from_list(data),
        processing_class=tokenizer,
        peft_config=adapter_of(options),
    )
    trainer.train()
    if os.environ.get(COMPILING) == "1":
        return
    final = Path(options.output_dir) / "final"
    trainer.save_model(str(final))
    if os.environ.get("RANK", "0") == "0":
        tokenizer.save_pretrained(final)
