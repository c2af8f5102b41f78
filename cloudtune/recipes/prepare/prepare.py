"""Rows for training from a file, a folder or the Hub: checked, given a system message, parted, written as JSON lines.

Runs as it is: ``python prepare.py --data rows.jsonl``; ``--help`` lists all options. What it leaves in OUTPUT_DIR is
``train.jsonl`` and, if there are rows to test on, ``test.jsonl``: the keys that training reads and no others, one row a
line. The same input gives the same bytes. Rows of files are read with the standard library alone; for the Hub the
package datasets is needed.
"""

import json
import math
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# in the package, what this recipe shares with sft lies there; on a node it lies beside this file
sys.path.append(str(Path(__file__).resolve().parent.parent / "sft"))

import rows
from flags import called
from options import Options, parse

#: Splits of a Hub data set that are meant for tests.
TEST_SPLITS = ("test", "validation", "eval")


def say(text: str) -> None:
    """Print a line for people."""
    print(text, flush=True)


class Turns:
    """Leaves out conversations whose turns are not in pairs, and counts them."""

    def __init__(self, options: Options) -> None:
        self.skips = options.odd_turns == "skip"
        self.left_out = 0

    def keeps(self, row: rows.Row) -> bool:
        """Return whether a row stays."""
        turns = [message for message in row.get("messages", ()) if message["role"] not in ("system", "developer")]
        odd = self.skips and len(turns) % 2 == 1
        self.left_out += odd
        return not odd


def of_files(paths: list[Path], options: Options) -> Iterator[rows.Row]:
    """Return the rows of files."""
    return rows.read_rows(paths, system_message=options.system_message, bad_rows=options.bad_rows, tell=say)


def of_hub(name: str, split: str, options: Options) -> Iterator[rows.Row]:
    """Return the rows of one split of a data set on the Hub."""
    import datasets

    data: Any = datasets.load_dataset(name, options.data_config or None, split=split)
    named = f"{name}[{split}]"
    places = ((f"{named} row {index}", row) for index, row in enumerate(data))
    words = {"system_message": options.system_message, "bad_rows": options.bad_rows}
    return rows.checked_rows(places, named, **words, tell=say)


def sources(options: Options) -> tuple[Iterator[rows.Row], Iterator[rows.Row] | None]:
    """Return the rows for training, and those to test on if there are any of their own."""
    files = rows.data_files(options.data)
    train = of_files(files, options) if files else of_hub(options.data, options.train_split, options)
    named = options.test_data or options.data
    apart = rows.data_files(named, evaluation=True)
    if options.test_data:
        apart = apart or rows.data_files(named)
    if apart and (options.test_data or apart != files):
        return train, of_files(apart, options)
    if not apart and (options.test_data or not files) and (split := test_split(named, options)):
        return train, of_hub(named, split, options)
    return train, None


def test_split(name: str, options: Options) -> str:
    """Return the split of a Hub data set to test on, or nothing if it has none."""
    import datasets

    names = datasets.get_dataset_split_names(name, options.data_config or None)
    return options.test_split or next((split for split in TEST_SPLITS if split in names), "")


def write(path: Path, kept: Iterator[rows.Row]) -> int:
    """Write rows as JSON lines under another name first; return how many."""
    draft, count = draft_of(path), 0
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            for row in kept:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
        if not count:
            raise rows.DataError(f"no row is left for {path.name}: all conversations have an odd number of turns")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def part(path: Path, apart: Path, count: int, options: Options) -> int:
    """Move a share of the rows of a file to another one, the same ones for the same seed; return how many."""
    if not rows.can_be_parted(count, options.test_fraction):
        path.unlink()
        hint = f"give more rows, or a smaller {called('test_fraction')}"
        raise rows.DataError(f"{count} rows cannot be parted: none would be left for training\n  hint: {hint}")
    share = math.ceil(count * options.test_fraction)
    chosen = frozenset(random.Random(options.seed).sample(range(count), share))  # noqa: S311
    drafts = [draft_of(path), draft_of(apart)]
    with path.open("rb") as whole, drafts[0].open("wb") as rest, drafts[1].open("wb") as moved:
        for index, line in enumerate(whole):
            (moved if index in chosen else rest).write(line)
    for draft, final in zip(drafts, (path, apart), strict=True):
        draft.replace(final)
    return share


def draft_of(path: Path) -> Path:
    """Return the name under which a file is written until it is whole."""
    return path.with_name(f".{path.name}.part")


def prepare(options: Options) -> None:
    """Write the files."""
    train, test = sources(options)
    output, turns = Path(options.output_dir), Turns(options)
    output.mkdir(parents=True, exist_ok=True)
    train_file, test_file = output / options.train_file, output / options.test_file
    counts = {train_file: write(train_file, filter(turns.keeps, train))}
    if test is not None:
        counts[test_file] = write(test_file, filter(turns.keeps, test))
    elif options.test_fraction:
        counts[test_file] = part(train_file, test_file, counts[train_file], options)
        counts[train_file] -= counts[test_file]
    for path, count in counts.items():
        say(f"{path}: {count} rows")
    if turns.left_out:
        say(f"{turns.left_out} conversations with an odd number of turns are left out")


def main() -> int:
    """Parse the command line, prepare, and tell in plain words what went wrong."""
    options = parse(sys.argv[1:])
    if os.environ.get("RANK", "0") != "0":
        return 0  # one process does it for all
    try:
        prepare(options)
    except (rows.DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
