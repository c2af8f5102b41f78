"""Make a small language model and a data set, with no network: the material of the quickstart.

Writes OUTPUT_DIR/model (a Llama of under a million parameters with a tokenizer of its own) and
OUTPUT_DIR/data/{train,eval}.jsonl (conversations in the OpenAI messages format). The model is built from a config and
trained for some seconds on plain notes, so it knows the facts of its little world but has never seen a conversation:
that is left to fine-tuning.
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

DATA = Path(__file__).resolve().parent / "data"
END, PAD = "<|end|>", "<|pad|>"
BATCH = 16
ROLES = ("system", "user", "assistant")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def read_rows(name: str) -> list[dict]:
    """Return the rows of one of the shipped files."""
    with (DATA / f"{name}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def build_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on the texts, with a chat template."""
    special = [END, PAD, *(f"<|{role}|>" for role in ROLES)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, model_max_length=512)
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return a small Llama with random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def pretrain(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str], steps: int) -> float:
    """Train the model on plain texts for a few seconds; return the last loss."""
    encoded = tokenizer([text + END for text in texts], padding=True, return_tensors="pt")
    labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    order = torch.Generator().manual_seed(0)
    model.train()
    loss = torch.tensor(0.0)
    for step in range(1, steps + 1):
        chosen = torch.randint(len(texts), (BATCH,), generator=order)
        mask = encoded["attention_mask"][chosen]
        width = int(mask.sum(1).max())
        loss = model(
            input_ids=encoded["input_ids"][chosen, :width],
            attention_mask=mask[:, :width],
            labels=labels[chosen, :width],
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0 or step == steps:
            epoch = round(step * BATCH / len(texts), 2)
            print({"loss": round(loss.item(), 4), "epoch": epoch, "step": step, "max_steps": steps}, flush=True)
    return loss.item()


def main() -> None:
    """Prepare the model and the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("CLOUDTUNE_OUTPUT_DIR", "outputs")
    parser.add_argument("--output-dir", type=Path, default=Path(default), help="where model/ and data/ go")
    parser.add_argument("--steps", type=int, default=400, help="steps of pretraining on the notes")
    parser.add_argument("--vocabulary", type=int, default=1024, help="size of the tokenizer's vocabulary")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()

    start = time.monotonic()
    torch.manual_seed(arguments.seed)
    # at this size more threads only wait for each other
    torch.set_num_threads(1)
    notes = [row["text"] for row in read_rows("notes")]
    said = [message["content"] for row in read_rows("train") for message in row["messages"]]
    tokenizer = build_tokenizer(notes + said, arguments.vocabulary)
    model = build_model(tokenizer)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"model: {count} parameters, vocabulary {len(tokenizer)}, {len(notes)} notes", flush=True)
    pretrain(model, tokenizer, notes, arguments.steps)

    output = arguments.output_dir
    (output / "data").mkdir(parents=True, exist_ok=True)
    for name in ("train", "eval"):
        shutil.copyfile(DATA / f"{name}.jsonl", output / "data" / f"{name}.jsonl")
    model.generation_config.max_new_tokens = 64
    logging.disable_progress_bar()
    model.to(torch.bfloat16).save_pretrained(output / "model")
    tokenizer.save_pretrained(output / "model")
    print(f"prepared {output} in {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
