"""The options of the recipe: one table from which the command line and its help come."""

import dataclasses
from collections.abc import Sequence

from flags import boolean, called, option, parser, read, settle_paths

#: The options that have no default.
NEEDED = ("model", "data")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that the recipe can be told."""

    # model
    model: str = option(
        "", "folder of the model, or its name on the Hub, whose tokenizer is used", "--model-name-or-path", "--model-id"
    )
    revision: str = option("main", "branch, tag or commit of a model on the Hub")
    fetch_model: bool = option(
        False, "fetch the weights into the Hub's cache, too (HF_HOME), for the steps that follow", kind=boolean
    )
    chat_template: str = option(
        "auto", "auto: the tokenizer's own, else a plain one; keep: its own or fail; or the path of a Jinja file"
    )

    # data
    data: str = option(
        "", "a .jsonl file, a folder with train*.jsonl, or the name of a data set on the Hub", "--dataset"
    )
    test_data: str = option(
        "", "likewise, for the rows to test on; default: test*.jsonl of a folder, a split of the Hub"
    )
    data_config: str = option("", "configuration of a Hub data set")
    train_split: str = option("train", "split of a Hub data set for training")
    test_split: str = option("", "split of a Hub data set to test on; default: test or validation, if it has one")
    system_message: str = option("", "system message for conversations that have none")
    bad_rows: str = option("fail", "what to do with rows that are not as expected", choices=("fail", "skip"))

    # tokens
    max_length: int = option(1024, "longest sequence in tokens; longer rows are cut", "--max-seq-length", kind=int)
    packing: bool = option(True, "put several short rows into one sequence, none of them parted", kind=boolean)
    answers_only: bool = option(
        False, "take the loss of the assistant's words, or of completions, alone", "--assistant-only-loss", kind=boolean
    )
    output_dir: str = option("", "where the files go; default $CLOUDTUNE_OUTPUT_DIR, else outputs")


def parse(argv: Sequence[str]) -> Options:
    """Return the options that a command line sets; a wrong one ends the program with exit code 2."""
    line = parser(Options, "pretokenize.py", "Rows for training as tokens, packed to a length.")
    values = read(line, argv, NEEDED)
    if values.max_length < 2:
        line.error(f"{called('max_length')} must be at least 2")
    settle_paths(values, "model", "data", "test_data", "chat_template")
    return Options(**vars(values))
