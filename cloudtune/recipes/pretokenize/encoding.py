"""Rows made into tokens: by the model's chat template or as they are, cut to a length, packed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flags import called
from options import Options
from rows import DataError, Row
from templates import PLAIN_TEMPLATE, portable
from tokens import IGNORED

#: A row of tokens, and which of them the loss is taken of.
Tokens = tuple[list[int], list[int]]
#: Sequences that are filled up at a time.
OPEN = 64


def load_tokenizer(options: Options) -> Any:
    """Return the model's tokenizer, with a chat template unless it is to keep its own, or none."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model, revision=options.revision)
    if tokenizer.eos_token is None:
        raise DataError(f"the tokenizer of {options.model} has no end-of-sequence token, so no answer would ever end")
    if options.chat_template not in ("auto", "keep"):
        path = Path(options.chat_template)
        if not path.is_file():
            raise DataError(f"{called('chat_template', path)}: no such file\n  hint: auto, keep, or a Jinja template")
        tokenizer.chat_template = path.read_text(encoding="utf-8")
    elif not tokenizer.chat_template and options.chat_template == "auto":
        tokenizer.chat_template = portable(PLAIN_TEMPLATE)
    return tokenizer


@dataclass
class Encoder:
    """Makes tokens of rows, and counts what it has cut."""

    tokenizer: Any
    options: Options
    rows: int = 0
    tokens: int = 0
    learnt: int = 0
    cut: int = 0

    def encoded(self, rows: Iterable[Row]) -> Iterator[Tokens]:
        """Yield rows as tokens; one of whose tokens none would be learnt is left out."""
        for row in rows:
            ids, labels = self.one(row)
            self.rows += 1
            if len(ids) > self.options.max_length:
                self.cut += 1
                ids, labels = ids[: self.options.max_length], labels[: self.options.max_length]
            learnt = sum(label != IGNORED for label in labels)
            if learnt:
                self.tokens += len(ids)
                self.learnt += learnt
                yield ids, labels

    def one(self, row: Row) -> Tokens:
        """Return the tokens of a row, and of these those that are learnt."""
        if "text" in row:
            ids = [*self.tokenizer(row["text"])["input_ids"], self.tokenizer.eos_token_id]
            return ids, list(ids)
        if isinstance(row.get("prompt"), str):
            asked = list(self.tokenizer(row["prompt"])["input_ids"])
            answer = list(self.tokenizer(row["completion"], add_special_tokens=False)["input_ids"])
            answer.append(self.tokenizer.eos_token_id)
            unlearnt = [IGNORED] * len(asked) if self.options.answers_only else asked
            return asked + answer, unlearnt + answer
        messages = row["messages"] if "messages" in row else [*row["prompt"], *row["completion"]]
        return self._conversation(messages, row.get("tools"))

    def _conversation(self, messages: list[Row], tools: Any) -> Tokens:
        text = self._rendered(messages, tools)
        given = {"add_special_tokens": False, "return_offsets_mapping": self.options.answers_only}
        made = self.tokenizer(text, **given)
        ids = list(made["input_ids"])
        if not self.options.answers_only:
            return ids, list(ids)
        spans = list(self._answers(messages, tools, text))
        learnt = (any(begin <= at < end for begin, end in spans) for at, _ in made["offset_mapping"])
        return ids, [one if kept else IGNORED for one, kept in zip(ids, learnt, strict=True)]

    def _answers(self, messages: list[Row], tools: Any, text: str) -> Iterator[tuple[int, int]]:
        """Yield where the assistant's words begin and end in a conversation.

        Raises:
            DataError: the template writes a conversation's beginning otherwise than the same in a longer one.
        """
        for at, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._rendered(messages[:at], tools, answering=True) if at else ""
            after = text if at == len(messages) - 1 else self._rendered(messages[: at + 1], tools)
            if not text.startswith(before) or not text.startswith(after):
                raise DataError(
                    f"the chat template of {self.options.model} does not show where answers begin\n"
                    f"  hint: {called('answers_only', 'false')} learns all words; or give another "
                    f"{called('chat_template')}"
                )
            yield len(before), len(after)

    def _rendered(self, messages: list[Row], tools: Any, *, answering: bool = False) -> str:
        if not self.tokenizer.chat_template:
            raise DataError(
                f"the tokenizer of {self.options.model} has no chat template, and the data are conversations\n"
                f"  hint: {called('chat_template', 'auto')} for a plain one, or the path of a Jinja file"
            )
        given = {"tools": tools} if tools else {}
        return str(
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answering, **given)
        )


def packed(rows: Iterable[Tokens], length: int) -> Iterator[Tokens]:
    """Yield sequences of whole rows, each put where it leaves the least room.

    >>> [ids for ids, _ in packed([([1] * 3, [1] * 3), ([2] * 3, [2] * 3), ([3], [3])], 4)]
    [[1, 1, 1, 3], [2, 2, 2]]
    """
    bins: list[list[Tokens]] = []
    for row in rows:
        fitting = [one for one in bins if _size(one) + len(row[0]) <= length]
        if fitting:
            max(fitting, key=_size).append(row)
        else:
            bins.append([row])
        if len(bins) > OPEN:
            fullest = max(range(len(bins)), key=lambda at: _size(bins[at]))
            yield _joined(bins.pop(fullest))
    yield from map(_joined, bins)


def _size(rows: list[Tokens]) -> int:
    return sum(len(ids) for ids, _ in rows)


def _joined(rows: list[Tokens]) -> Tokens:
    """Return rows as one; the first token of each follows from nothing before it, so no loss is taken of it."""
    ids = [one for row, _ in rows for one in row]
    return ids, [one for _, row in rows for one in (IGNORED, *row[1:])]
