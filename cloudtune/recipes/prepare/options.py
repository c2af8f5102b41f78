"""The options of the recipe: one table from which the command line and its help come."""

import dataclasses
from collections.abc import Sequence

from flags import called, option, parser, read, settle_paths

#: The option that has no default.
NEEDED = ("data",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that the recipe can be told."""

    data: str = option(
        "", "a .jsonl file, a folder with train*.jsonl, or the name of a data set on the Hub", "--dataset"
    )
    test_data: str = option(
        "", "likewise, for the rows to test on; default: test*.jsonl of a folder, a split of the Hub"
    )
    data_config: str = option("", "configuration of a Hub data set")
    train_split: str = option("train", "split of a Hub data set for training")
    test_split: str = option("", "split of a Hub data set to test on; default: test or validation, if it has one")
    test_fraction: float = option(0.0, "share of the training rows set apart to test on if none are given", kind=float)
    system_message: str = option("", "system message for conversations that have none")
    bad_rows: str = option("fail", "what to do with rows that are not as expected", choices=("fail", "skip"))
    odd_turns: str = option(
        "keep",
        "skip: leave out conversations whose turns, beside the system message, are not in pairs",
        choices=("keep", "skip"),
    )
    train_file: str = option("train.jsonl", "name of the file with the rows for training")
    test_file: str = option("test.jsonl", "name of the file with the rows to test on")
    seed: int = option(42, "seed of which rows --test-fraction sets apart", kind=int)
    output_dir: str = option("", "where the files go; default $CLOUDTUNE_OUTPUT_DIR, else outputs")


def parse(argv: Sequence[str]) -> Options:
    """Return the options that a command line sets; a wrong one ends the program with exit code 2."""
    line = parser(Options, "prepare.py", "Rows for training, as JSON lines: checked, completed, parted.")
    values = read(line, argv, NEEDED)
    if not 0 <= values.test_fraction < 1:
        line.error(f"{called('test_fraction')} must be at least 0 and below 1")
    for name in ("train_file", "test_file"):
        if "/" in getattr(values, name) or not getattr(values, name).endswith((".jsonl", ".json")):
            line.error(f"{called(name)} is a file's name that ends with .jsonl or .json")
    if values.train_file == values.test_file:
        line.error(f"{called('train_file')} and {called('test_file')} are the same")
    settle_paths(values, "data", "test_data")
    return Options(**vars(values))
