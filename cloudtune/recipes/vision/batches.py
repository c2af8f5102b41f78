"""Batches of conversations with images: which rows a process takes in each step, and the tensors made of them."""

import math
import random
from collections.abc import Iterator
from typing import Any

import torch
from conversations import Conversation, DataError
from options import Options
from pictures import Pictures
from ranks import RANK, WORLD_SIZE
from torch.utils.data import DataLoader

IGNORED = -100
#: Tensors with one entry a token in their second dimension, which are cut with the tokens.
PER_TOKEN = ("input_ids", "attention_mask", "labels", "cross_attention_mask", "token_type_ids", "mm_token_type_ids")


def steps_of(options: Options, rows: int) -> tuple[int, int]:
    """Return the steps of one pass over the data, and of the whole training."""
    once = max(1, math.ceil(rows / (options.batch_size * options.gradient_accumulation * WORLD_SIZE)))
    return once, options.max_steps if options.max_steps > 0 else max(1, round(options.epochs * once))


def plan(options: Options, rows: int) -> Iterator[list[int]]:
    """Yield this rank's rows of one forward pass after the other, in an order of its own each pass over the data.

    The last step of a pass is filled up from its beginning, so that all ranks have as many.
    """
    once, _ = steps_of(options, rows)
    share = options.batch_size * options.gradient_accumulation
    chances = random.Random(options.seed)  # noqa: S311
    while True:
        order = chances.sample(range(rows), rows)
        for step in range(once):
            start = (step * WORLD_SIZE + RANK) * share
            for part in range(start, start + share, options.batch_size):
                yield [order[at % rows] for at in range(part, part + options.batch_size)]


def every_row(options: Options, rows: int) -> list[tuple[list[int], int]]:
    """Return this rank's rows for evaluation, and how many of each batch count: all ranks have as many batches."""
    whole = math.ceil(rows / (options.batch_size * WORLD_SIZE))
    batches = []
    for number in range(whole):
        start = (number * WORLD_SIZE + RANK) * options.batch_size
        own = range(start, start + options.batch_size)
        batches.append(([at % rows for at in own], sum(at < rows for at in own)))
    return batches


class Collator:
    """Makes tensors of rows: padded on the right, the loss of the last answer alone, cut to the longest length."""

    def __init__(self, processor: Any, max_length: int) -> None:
        self.processor, self.max_length = processor, max_length
        self.pad = processor.tokenizer.pad_token_id
        image = getattr(processor, "image_token_id", None)
        if image is None and isinstance(token := getattr(processor, "image_token", None), str):
            image = processor.tokenizer.convert_tokens_to_ids(token)
        self.image = image if isinstance(image, int) else -1

    def __call__(self, rows: list[tuple[Conversation, list[Any]]]) -> dict[str, torch.Tensor]:
        """Return the tensors of a batch."""
        texts = [self._text(messages, answered=True) for messages, _ in rows]
        images = [pictures for _, pictures in rows]
        batch = self._tensors(texts, images)
        labels = batch["input_ids"].clone()
        for at, begin in enumerate(self._answers(rows, texts, batch)):
            labels[at, :begin] = IGNORED
        labels[batch["attention_mask"] == 0] = IGNORED
        labels[labels == self.image] = IGNORED
        batch["labels"] = labels
        return self._cut(batch)

    def _text(self, messages: Conversation, *, answered: bool) -> str:
        return str(self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=not answered))

    def _tensors(self, texts: list[str], images: list[list[Any]]) -> dict[str, torch.Tensor]:
        words: dict[str, Any] = {"text": texts, "padding": True, "return_tensors": "pt", "add_special_tokens": False}
        if any(images):
            words["images"] = images
        return dict(self.processor(**words))

    def _answers(
        self, rows: list[tuple[Conversation, list[Any]]], texts: list[str], batch: dict[str, torch.Tensor]
    ) -> list[int]:
        """Return where the answer of each row begins, in tokens.

        Tokens of the answer alone are those at the row's end nearly always. Where they are not, since words grow
        together over the border, the question is read once more, with its images.
        """
        begins = []
        for at, (messages, pictures) in enumerate(rows):
            asked = self._text(messages[:-1], answered=False)
            ids = batch["input_ids"][at]
            ids = ids[: int(batch["attention_mask"][at].sum())]
            answer = self._alone(texts[at].removeprefix(asked)) if texts[at].startswith(asked) else []
            if answer and ids[-len(answer) :].tolist() == answer:
                begins.append(len(ids) - len(answer))
                continue
            question = self._tensors([asked], [pictures])["input_ids"][0]
            width = min(len(question), len(ids))
            begins.append(int((question[:width] == ids[:width]).long().cumprod(0).sum()))
        return begins

    def _alone(self, text: str) -> list[int]:
        return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _cut(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        ids = batch["input_ids"]
        if ids.shape[1] <= self.max_length:
            return batch
        if (ids[:, self.max_length :] == self.image).any():
            raise DataError(
                f"a row has images beyond its first {self.max_length} tokens, and cannot be cut there\n"
                f"  hint: give a larger length (maxLength); the batch has {ids.shape[1]} tokens"
            )
        return {name: one[:, : self.max_length] if name in PER_TOKEN else one for name, one in batch.items()}


def training_batches(options: Options, data: Pictures, collator: Collator, done: int, workers: int) -> Iterator[Any]:
    """Yield the batches of a training behind those of ``done`` steps."""
    _, steps = steps_of(options, len(data))
    coming = plan(options, len(data))
    chosen = [next(coming) for _ in range(steps * options.gradient_accumulation)][
        done * options.gradient_accumulation :
    ]
    yield from loader(data, chosen, collator, workers)


def loader(data: Pictures, chosen: list[list[int]], collator: Collator, workers: int) -> DataLoader[Any]:
    """Return what makes batches of chosen rows, beside the training where there are workers."""
    context = "forkserver" if workers else None
    return DataLoader(
        data,  # type: ignore[arg-type]
        batch_sampler=chosen,
        collate_fn=collator,
        num_workers=workers,
        multiprocessing_context=context,
    )
