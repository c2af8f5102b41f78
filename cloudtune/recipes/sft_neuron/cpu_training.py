"""What a rehearsal has in place of training on Neuron cores: the same steps on processors, saved in the same shards.

Every process has the whole model; ranks that would share a row's computation compute it all, alike, and each saves its
own part of the tensors. So what comes after training is tried with real files, of a model that has really learnt.
"""

import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import rows
import shards
import torch
import torch.distributed as dist
from options import Options
from ranks import say
from tokens import IGNORED, fit, tokens_at
from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler

#: A row: its tokens, and those of which the loss is taken.
Sequence = tuple[list[int], list[int]]


def text_of(row: rows.Row, tokenizer: Any) -> str:
    """Return a row as the model reads it."""
    if "text" in row:
        return str(row["text"])
    if "messages" in row and tokenizer.chat_template:
        return str(tokenizer.apply_chat_template(row["messages"], tokenize=False))
    if isinstance(row.get("prompt"), str):
        return f"{row['prompt']}{row['completion']}"
    raise rows.DataError("the model's tokenizer has no chat template, so conversations cannot be read: give texts")


def tokens_of(row: rows.Row, tokenizer: Any, length: int) -> Sequence:
    """Return a row as tokens, with the one that ends it; one that is tokens already stays as it is."""
    if "input_ids" in row:
        return row["input_ids"], row["labels"]
    ids: list[int] = tokenizer(text_of(row, tokenizer))["input_ids"]
    ids = [*ids[: length - 1], tokenizer.eos_token_id]
    return ids, ids


def batches(options: Options, data: Any, tokenizer: Any, place: shards.Place) -> Iterator[list[Sequence]]:
    """Yield this data-parallel rank's rows of one step after the other, in an order of its own each pass."""
    sequences = [tokens_of(row, tokenizer, options.max_length) for row in data]
    share = options.batch_size * options.gradient_accumulation
    order = random.Random(options.seed)  # noqa: S311
    while True:
        chosen = order.sample(range(len(sequences)), len(sequences))
        whole = max(1, len(chosen) // (share * place.dp))
        for step in range(whole):
            start = (step * place.dp + place.dp_rank) * share
            yield [sequences[chosen[(start + at) % len(chosen)]] for at in range(share)]


def loss_of(model: Any, sequences: list[Sequence], options: Options, pad: int) -> float:
    """Compute gradients of a step's rows; return their mean loss."""
    total, parts = 0.0, len(sequences) / options.batch_size
    for start in range(0, len(sequences), options.batch_size):
        part = sequences[start : start + options.batch_size]
        length = max(len(row) for row, _ in part)
        ids = torch.tensor([row + [pad] * (length - len(row)) for row, _ in part])
        seen = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row, _ in part])
        labels = torch.tensor([told + [IGNORED] * (length - len(told)) for _, told in part])
        loss = model(input_ids=ids, attention_mask=seen, labels=labels).loss / parts
        loss.backward()
        total += float(loss.detach())
    return total


def averaged(parameters: list[Any], loss: float, world: int) -> float:
    """Make gradients the mean over all ranks, and the loss too."""
    if world == 1:
        return loss
    flat = torch.cat([one.grad.reshape(-1) for one in parameters] + [torch.tensor([loss])])
    dist.all_reduce(flat)
    flat /= world
    at = 0
    for one in parameters:
        one.grad.copy_(flat[at : at + one.numel()].view_as(one))
        at += one.numel()
    return float(flat[-1])


def adapted(model: Any, options: Options) -> Any:
    """Return the model with an adapter whose two halves of the fused layers share what optimum-neuron shares."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=options.lora_r,
        lora_alpha=options.alpha,
        lora_dropout=options.lora_dropout,
        target_modules=list(options.target_modules),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config)
    for module in model.modules():
        gate, up = getattr(module, "gate_proj", None), getattr(module, "up_proj", None)
        if hasattr(gate, "lora_A") and hasattr(up, "lora_A"):
            up.lora_A["default"].weight = gate.lora_A["default"].weight
    return model


def train(options: Options, data: Any) -> None:
    """Train, and save the shards of this rank in OUTPUT_DIR/final."""
    place = shards.place_of(options.tensor_parallel_size, options.pipeline_parallel_size)
    say(f"rehearsed: substituted: train -> PyTorch on processors, saved as {place} of optimum-neuron")
    torch.manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model, revision=options.revision)
    if made := tokens_at(options.train_data):
        fit(made, tokenizer, options.max_length)
    model: Any = AutoModelForCausalLM.from_pretrained(options.model, revision=options.revision, dtype=torch.float32)
    shards.check(model.config, place)
    if options.method == "lora":
        model = adapted(model, options)
    torch.manual_seed(options.seed + place.dp_rank)  # ranks that share a row drop the same of it
    if place.world > 1:
        dist.init_process_group("gloo")
    try:
        losses = _steps(options, data, model, tokenizer, place)
        _save(options, model, tokenizer, place, losses)
    finally:
        if place.world > 1:
            dist.destroy_process_group()


def _steps(options: Options, data: Any, model: Any, tokenizer: Any, place: shards.Place) -> list[float]:
    parameters = [one for one in model.parameters() if one.requires_grad]
    share = options.batch_size * options.gradient_accumulation * place.dp
    count = options.max_steps if options.max_steps > 0 else max(1, round(options.epochs * len(data) / share))
    optimizer = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=options.weight_decay)
    schedule = get_scheduler(options.scheduler, optimizer, options.warmup, count)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model.train()
    losses: list[float] = []
    for number, step in enumerate(islice(batches(options, data, tokenizer, place), count), 1):
        losses.append(averaged(parameters, loss_of(model, step, options, pad), place.world))
        torch.nn.utils.clip_grad_norm_(parameters, options.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if number % options.logging_steps == 0 or number == count:
            say(str({"loss": round(losses[-1], 4), "step": number}))
    return losses


def _save(options: Options, model: Any, tokenizer: Any, place: shards.Place, losses: list[float]) -> None:
    final = Path(options.output_dir) / "final"
    if options.method == "lora":
        tensors = shards.adapter_tensors(model)
        stages = shards.cut(tensors, model.config, place, adapted=options.target_modules)
        folder = final / "adapter_default" / "adapter_shards"
        folder.mkdir(parents=True, exist_ok=True)
        if place.rank == 0:
            config = model.peft_config["default"]
            config.inference_mode = True
            config.save_pretrained(str(folder.parent))
    else:
        stages = shards.cut(dict(model.state_dict()), model.config, place)
        folder = final / "shards"
    shards.write(folder, stages, place)
    if place.rank == 0:
        tokenizer.save_pretrained(str(final))
        model.config.save_pretrained(str(final))
        record = {"loss": {"first": losses[0], "last": losses[-1]}, "steps": len(losses), "substituted": ["train"]}
        (final.parent / "metrics.json").write_text(json.dumps(record, indent=2) + "\n")
    if place.world > 1:
        dist.barrier()
