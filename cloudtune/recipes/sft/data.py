"""The data set of a training, made from local files or from the Hub."""

import json
from pathlib import Path
from typing import Any

import datasets
import rows
from datasets import Dataset, Features, Json, List, Value
from options import Options

#: Files up to this size are held in memory; larger ones go through the data set cache on disk.
IN_MEMORY_BYTES = 64 * 2**20
COLUMNS = ("messages", "tools", "text", "prompt", "completion", "conversations")


def features_of(sample: dict[str, Any], *, plain: bool) -> Features:
    """Return the types of the columns, so that no batch of rows can disagree with another."""
    message = {"role": Value("string"), "content": Value("string")} if plain else Json()
    return Features(
        {key: List(message) if isinstance(value, list) else Value("string") for key, value in sample.items()}
    )


def plain_row(row: rows.Row) -> bool:
    """Return whether all messages of a row have a role and a content and nothing else."""
    lists = [value for value in row.values() if isinstance(value, list)]
    return "tools" not in row and all(set(message) == {"role", "content"} for group in lists for message in group)


def generate(paths: tuple[str, ...], system_message: str, bad_rows: str, tools: bool, stamp: str) -> Any:  # noqa: ARG001
    """Yield rows for a data set on disk; ``stamp`` makes a changed file a new data set."""
    for row in rows.read_rows([Path(path) for path in paths], system_message=system_message, bad_rows=bad_rows):
        yield {**row, "tools": json.dumps(row.get("tools"))} if tools else row


def dataset_from_files(paths: list[Path], options: Options) -> Dataset:
    """Return the rows of local files as a data set, checked first."""
    settings = {"system_message": options.system_message, "bad_rows": options.bad_rows}
    sample: rows.Row = {}
    plain, tools, small = True, False, sum(path.stat().st_size for path in paths) <= IN_MEMORY_BYTES
    kept = []
    for row in rows.read_rows(paths, **settings):
        sample = sample or row
        plain, tools = plain and plain_row(row), tools or "tools" in row
        if small:
            kept.append(row)
    if tools:
        sample = {**sample, "tools": ""}
    features = features_of(sample, plain=plain)
    if small:
        kept = [{**row, "tools": json.dumps(row.get("tools"))} for row in kept] if tools else kept
        return Dataset.from_list(kept, features=features)
    stamp = ",".join(f"{path.stat().st_mtime_ns}:{path.stat().st_size}" for path in paths)
    given = {"paths": tuple(map(str, paths)), **settings, "tools": tools, "stamp": stamp}
    return Dataset.from_generator(generate, gen_kwargs=given, features=features)


def dataset_from_hub(name: str, split: str, options: Options) -> Dataset:
    """Return one split of a data set on the Hub, with the columns that training reads."""
    data = datasets.load_dataset(name, options.data_config or None, split=split)
    kept = [column for column in COLUMNS if column in data.column_names]
    if "messages" in kept:
        kept = [column for column in kept if column in ("messages", "tools")]
    if not {"messages", "text", "conversations"} & set(kept) and not {"prompt", "completion"} <= set(kept):
        found = ", ".join(data.column_names)
        raise rows.DataError(
            f"data set {name} has the columns {found}\n  expected: messages, text, or prompt and completion"
        )
    data = data.select_columns(kept)
    if options.system_message and "messages" in kept:
        data = data.map(rows.check_row, fn_kwargs={"system_message": options.system_message})
    return data


def load_data(options: Options) -> tuple[Dataset, Dataset | None]:
    """Return the rows for training and, if there are any, for evaluation."""
    files = rows.data_files(options.train_data)
    if files:
        train = dataset_from_files(files, options)
    else:
        train = dataset_from_hub(options.train_data, options.train_split, options)
    source = options.eval_data or options.train_data
    kept_apart = rows.data_files(source, evaluation=not options.eval_data or Path(source).is_dir())
    if kept_apart and (options.eval_data or kept_apart != files):
        return train, dataset_from_files(kept_apart, options)
    if options.eval_data or not files:
        names = datasets.get_dataset_split_names(source, options.data_config or None)
        split = options.eval_split or next((name for name in ("test", "validation", "eval") if name in names), "")
        if split:
            return train, dataset_from_hub(source, split, options)
    if options.eval_fraction:
        parts = train.train_test_split(test_size=options.eval_fraction, seed=options.seed)
        return parts["train"], parts["test"]
    return train, None
