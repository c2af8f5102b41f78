"""Rows that are tokens already, as the recipe pretokenize leaves them: found, and held against the model in training.

In a folder lie ``train.arrow``, perhaps ``test.arrow``, and ``tokens.json``, which says what they were made with. Each
row has ``input_ids`` and ``labels``, which are the same but where no loss is taken (-100).
"""

import json
from pathlib import Path
from typing import Any

from flags import called
from rows import DataError

SUFFIX, RECORD = ".arrow", "tokens.json"
TRAIN, TEST = f"train{SUFFIX}", f"test{SUFFIX}"
IGNORED = -100
#: Files up to this size are held in memory; larger ones go through the data set cache on disk.
IN_MEMORY_BYTES = 64 * 2**20
#: What a tokenizer is known by: the tokens of this.
PROBE = "Tokens: 3.14 ≠ ½, naïve café\n\tdef f(x): return x**2  # 数"


def tokens_at(source: str, *, evaluation: bool = False) -> Path | None:
    """Return the file of tokens that a source names, or of its folder; None where there is none."""
    path = Path(source).expanduser()
    if path.is_dir():
        found = path / (TEST if evaluation else TRAIN)
        return found if found.is_file() else None
    named = path.suffix == SUFFIX and path.is_file() and not evaluation
    return path if named else None


def probe(tokenizer: Any) -> list[int]:
    """Return what a tokenizer is known by."""
    return list(tokenizer(PROBE, add_special_tokens=False)["input_ids"])


def read_tokens(path: Path) -> Any:
    """Return the rows of a file as a data set, which writes nothing beside it: that folder may not be writable."""
    import datasets

    if path.stat().st_size <= IN_MEMORY_BYTES:
        return datasets.Dataset.from_file(str(path), in_memory=True)
    return datasets.load_dataset("arrow", data_files=str(path), split="train")


def record_of(path: Path) -> dict[str, Any]:
    """Return what a file of tokens was made with.

    Raises:
        DataError: nothing beside it says so.
    """
    try:
        told: dict[str, Any] = json.loads((path.parent / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            f"{path} has no {RECORD} beside it, so nothing says which model its tokens are for\n"
            "  hint: give the whole folder that the recipe pretokenize has left"
        ) from None
    return told


def fit(path: Path, tokenizer: Any, max_length: int) -> None:
    """Give a tokenizer the chat template that the rows were made with.

    Raises:
        DataError: they are tokens of another tokenizer, or longer than what is trained.
    """
    told = record_of(path)
    if told.get("probe") != probe(tokenizer):
        raise DataError(
            f"{path} has tokens for {told.get('model')}, whose tokenizer is another than that of the model given\n"
            "  hint: make them again, with the model that is trained (recipe pretokenize)"
        )
    if told.get("maxLength", 0) > max_length:
        raise DataError(
            f"{path} has rows of up to {told['maxLength']} tokens, and {called('max_length')} is {max_length}\n"
            f"  hint: {called('max_length', told['maxLength'])}, or make shorter ones"
        )
    if told.get("chatTemplate"):
        tokenizer.chat_template = told["chatTemplate"]
