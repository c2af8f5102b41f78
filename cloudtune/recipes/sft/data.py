"""The data set of a training, made from local files or from the Hub."""

import json
from pathlib import Path
from typing import Any

import datasets
import rows
from datasets import Dataset, Features, Json, List, Value
from flags import called
from options import Options
from ranks import say
from tokens import read_tokens, tokens_at

#: Files up to this size are held in memory; larger ones go through the data set cache on disk.
IN_MEMORY_BYTES = 64 * 2**20
COLUMNS = ("messages", "tools", "text", "prompt", "completion", "conversations")
INSTRUCTIONS = (rows.INSTRUCTION, *rows.GIVEN, *rows.ANSWERS)


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
    for row in rows.read_rows(paths, **settings, tell=say):
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
    """Return one split of a data set on the Hub, with the columns that training reads, its rows checked."""
    data = datasets.load_dataset(name, options.data_config or None, split=split)
    kept = [column for column in COLUMNS if column in data.column_names]
    if "messages" in kept:
        kept = [column for column in kept if column in ("messages", "tools")]
    if "conversations" in kept:
        return data.select_columns(["conversations"])  # the trainer knows this older form and converts it
    if not kept and rows.INSTRUCTION in data.column_names:
        data = data.select_columns([column for column in INSTRUCTIONS if column in data.column_names])
        return checked(data, f"{name}[{split}]", options)
    if not {"messages", "text"} & set(kept) and not {"prompt", "completion"} <= set(kept):
        found = ", ".join(data.column_names)
        raise rows.DataError(
            f"data set {name} has the columns {found}\n  expected: messages, text, or prompt and completion"
        )
    return checked(data.select_columns(kept), f"{name}[{split}]", options)


def checked(data: Dataset, name: str, options: Options) -> Dataset:
    """Return the rows of a data set that are as expected, with the system message where there is none."""
    faults = {}
    for index, row in enumerate(data):
        verdict = rows.judge(row, "", options.system_message)
        if isinstance(verdict, str):
            faults[index] = verdict
    if faults and (options.bad_rows == "fail" or len(faults) == len(data)):
        shown = "\n".join(f"{name} row {index}: {faults[index]}" for index in list(faults)[: rows.SHOWN_FAULTS])
        raise rows.DataError(
            f"{shown}\n  {len(faults)} of {len(data)} rows are not as expected\n"
            f"  hint: leave such rows out with {called('bad_rows', 'skip')}"
        )
    if faults:
        say(f"data: {len(faults)} of {len(data)} rows of {name} are left out; the first: {next(iter(faults.values()))}")
        data = data.select([index for index in range(len(data)) if index not in faults])
    settings = {"system_message": options.system_message}
    if rows.INSTRUCTION in data.column_names:
        return data.map(rows.check_row, fn_kwargs=settings, remove_columns=data.column_names)
    if options.system_message and "messages" in data.column_names:
        data = data.map(rows.check_row, fn_kwargs=settings)
    return data


def evaluation_split(name: str, options: Options) -> str:
    """Return the split of a Hub data set that is meant for evaluation, or nothing if it has none."""
    names = datasets.get_dataset_split_names(name, options.data_config or None)
    return options.eval_split or next((split for split in ("test", "validation", "eval") if split in names), "")


def load_data(options: Options) -> tuple[Dataset, Dataset | None]:
    """Return the rows for training and, if there are any, for evaluation."""
    if made := tokens_at(options.train_data):
        named = options.eval_data or options.train_data
        apart = tokens_at(named, evaluation=True) or (tokens_at(named) if options.eval_data else None)
        return read_tokens(made), read_tokens(apart) if apart else None
    files = rows.data_files(options.train_data)
    train = (
        dataset_from_files(files, options)
        if files
        else dataset_from_hub(options.train_data, options.train_split, options)
    )
    source = options.eval_data or options.train_data
    beside = rows.data_files(source, evaluation=True)
    if options.eval_data:
        beside = beside or rows.data_files(source)
    if beside and (options.eval_data or beside != files):
        return train, dataset_from_files(beside, options)
    if not beside and (options.eval_data or not files) and (split := evaluation_split(source, options)):
        return train, dataset_from_hub(source, split, options)
    if options.eval_data:
        raise rows.DataError(
            f"data set {source} has no split for evaluation\n  hint: name one with {called('eval_split')}"
        )
    if options.eval_fraction and not rows.can_be_parted(len(train), options.eval_fraction):
        say(f"data: too few rows ({len(train)}) to set some apart, so training goes without evaluation")
    elif options.eval_fraction:
        parts = train.train_test_split(test_size=options.eval_fraction, seed=options.seed)
        return parts["train"], parts["test"]
    return train, None
