"""Data sets of rows with images: found in files or on the Hub, checked, and made into conversations when asked for."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from conversations import EXPECTED, KINDS, Conversation, DataError, Row, RowError, conversation, kind_of, opened
from flags import called
from places import looks_local, nothing_at

SHOWN_FAULTS = 5
#: Rows that are tried in the place of one whose image turns out to be bad only when it is opened.
SPARE = 8
SUFFIXES = (".jsonl", ".parquet")
EVALUATION_NAMES = ("eval", "test", "valid", "dev")


class Pictures:
    """The rows of a data set, each made into a conversation with images when it is asked for."""

    def __init__(self, rows: Any, kind: str, *, named: str, folder: Path, system_message: str = "") -> None:
        self.rows, self.kind, self.named, self.folder = rows, kind, named, folder
        self.system_message = system_message
        self.chosen: Sequence[int] = range(len(rows))
        self.skips = False

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, at: int) -> tuple[Conversation, list[Any]]:
        """Return the messages of a row, and its images; of the next one, if this has a bad one and such are skipped.

        Raises:
            DataError: its images cannot be read, nor those of the rows behind it if such are skipped.
        """
        for number in range(SPARE if self.skips else 1):
            one = self.chosen[(at + number) % len(self.chosen)]
            try:
                found, images = conversation(self.rows[one], self.kind, self.system_message)
                return found, [opened(image, self.folder) for image in images]
            except RowError as error:
                told = f"{self.place(one)} {error}"
                print(f"data: {told}", flush=True)
        raise DataError(told)

    def place(self, at: int) -> str:
        """Return where a row is, for people."""
        return f"{self.named}:{at + 1}" if self.named.endswith(".jsonl") else f"{self.named} row {at}"

    def check(self, bad_rows: str, tell: Callable[[str], object]) -> None:
        """Look at all rows, their images only as far as that they are there; leave out what is not as expected.

        Raises:
            DataError: there are such rows, and they are not to be left out, or no other.
        """
        self.skips = bad_rows == "skip"
        kept, faults = [], []
        for at, row in enumerate(_without_pixels(self.rows)):
            try:
                _, images = conversation(row, self.kind, self.system_message)
                self._look(images)
                kept.append(at)
            except RowError as error:
                faults.append(f"{self.place(at)} {error}")
        if faults and (bad_rows == "fail" or not kept):
            shown = "\n".join(faults[:SHOWN_FAULTS])
            more = f"\n  and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
            raise DataError(
                f"{shown}{more}\n  expected: {EXPECTED}\n  hint: leave such rows out with {called('bad_rows', 'skip')}"
            )
        if not kept:
            raise DataError(f"no row in {self.named}\n  expected: {EXPECTED}")
        if faults:
            tell(f"data: {len(faults)} rows are left out; the first: {faults[0]}")
        self.chosen = kept

    def _look(self, images: list[Any]) -> None:
        for image in images:
            path = image if isinstance(image, str) and not image.startswith("data:") else None
            if path is not None and not (self.folder / path).is_file():
                raise RowError(f"names an image that is not there: {self.folder / path}")
            if image is None:
                raise RowError("has no image")


def load(
    source: str, split: str, config: str, *, evaluation: bool, named_for_it: bool = False, **words: Any
) -> Pictures | None:
    """Return the rows of a file, a folder or a data set of the Hub; None for a folder without any for evaluation.

    ``named_for_it``: the source was named for evaluation, so all of its rows are.
    """
    paths = _files(source, evaluation=evaluation, named_for_it=named_for_it)
    if paths is not None:
        return _of_files(paths, **words) if paths else None
    if evaluation and not split:
        return None
    import datasets

    data = datasets.load_dataset(source, config or None, split=split)
    kind = kind_of(data.column_names)
    return Pictures(_columns(data, kind), kind, named=f"{source}[{split}]", folder=Path(), **words)


def _files(source: str, *, evaluation: bool, named_for_it: bool) -> list[Path] | None:
    """Return the files of a local source, perhaps none; None for something on the Hub."""
    path = Path(source)
    if path.is_file():
        return [path] if named_for_it or not evaluation else []
    if not path.is_dir():
        if looks_local(source):
            raise DataError(nothing_at(source, "a data set"))
        return None
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    chosen = [file for file in found if file.name.lower().startswith(EVALUATION_NAMES) == evaluation]
    if not chosen and (named_for_it or not evaluation):
        chosen = found if named_for_it else []
        if not chosen:
            raise DataError(f"{path}: no .jsonl or .parquet file for training in this folder\n  expected: {EXPECTED}")
    return chosen


def _of_files(paths: list[Path], **words: Any) -> Pictures:
    named = str(paths[0]) if len(paths) == 1 else str(paths[0].parent)
    if all(path.suffix == ".jsonl" for path in paths):
        rows = [row for path in paths for row in _lines(path)]
        columns = sorted(set().union(*(row.keys() for row in rows)))
        return Pictures(rows, kind_of(columns), named=named, folder=paths[0].parent, **words)
    if any(path.suffix == ".jsonl" for path in paths):
        raise DataError(f"{paths[0].parent} has .jsonl and .parquet files: give one kind")
    import datasets

    data = datasets.load_dataset("parquet", data_files=[str(path) for path in paths], split="train")
    kind = kind_of(data.column_names)
    return Pictures(_columns(data, kind), kind, named=named, folder=paths[0].parent, **words)


def _lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}: not JSON: {error.msg}\n  expected: {EXPECTED}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: is {type(row).__name__}, not a JSON object\n  expected: {EXPECTED}")
            yield row


def _columns(data: Any, kind: str) -> Any:
    needed, others = KINDS[kind]
    return data.select_columns([name for name in (*needed, *others) if name in data.column_names])


def _without_pixels(rows: Any) -> Iterator[Row]:
    """Yield the rows of a data set, with a mark in the place of what is an image: reading all of those takes hours."""
    kinds = {name: type(feature).__name__ for name, feature in (getattr(rows, "features", None) or {}).items()}
    pixels = [name for name, kind in kinds.items() if kind == "Image"]
    if not pixels:
        yield from rows
        return
    absent = {name: rows.data.column(name).is_null().to_pylist() for name in pixels}
    for at, row in enumerate(rows.select_columns([name for name in kinds if name not in pixels])):
        yield {**row, **{name: None if absent[name][at] else b"an image" for name in pixels}}
