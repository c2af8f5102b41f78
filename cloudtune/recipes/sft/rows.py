"""Training rows as people write them: read, checked, and brought into one of three forms.

A row is one JSON object a line, of one of these kinds (one kind a data set):

* a conversation ``{"messages": [{"role": "user", "content": "..."}, ...]}`` as OpenAI's API has it;
* plain text ``{"text": "..."}``;
* ``{"prompt": "...", "completion": "..."}``, both texts or both lists of messages;
* ``{"instruction": "...", "context": "...", "response": "..."}`` as dolly has it, or with ``input`` and ``output`` as
  Alpaca: it becomes a conversation.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flags import called
from places import looks_local, nothing_at

Row = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
KINDS = {"messages": ("messages",), "text": ("text",), "prompt": ("prompt", "completion")}
#: Columns of data sets of instructions: what is asked, what may be given with it, what is answered.
INSTRUCTION, GIVEN, ANSWERS = "instruction", ("context", "input"), ("response", "output")
EXPECTED = (
    'one JSON object a line: {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": '
    '"..."}]}, {"text": "..."}, {"prompt": "...", "completion": "..."} or {"instruction": "...", "response": "..."}'
)
SHOWN_FAULTS = 5
EVALUATION_NAMES = ("eval", "test", "valid", "dev")


class DataError(Exception):
    """The data cannot be used; the text says which file and line, what is wrong and what is expected."""


class RowError(Exception):
    """One row is not as expected."""


def kind_of(row: Row) -> str:
    """Return the kind of a row by its keys."""
    for kind, keys in KINDS.items():
        if all(key in row for key in keys):
            return kind
    if "conversations" in row:
        raise RowError('the key is "messages", with "role" and "content" in each, not "conversations"')
    keys = ", ".join(sorted(map(str, row))) or "no keys"
    raise RowError(f"has {keys}, but neither messages, text, nor prompt and completion")


def check_text(value: Any, name: str) -> str:
    """Return a text that is not empty."""
    if not isinstance(value, str):
        raise RowError(f"{name} is {type(value).__name__}, not text")
    if not value.strip():
        raise RowError(f"{name} is empty")
    return value


def check_message(message: Any, name: str) -> Row:
    """Return one message with a known role and a text; other keys (tool calls, names) stay as they are."""
    if not isinstance(message, dict):
        raise RowError(f'{name} is {type(message).__name__}, not an object with "role" and "content"')
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise RowError(f"{name}.role is {role!r}, expected one of {', '.join(ROLES)}")
    if isinstance(content, list):
        content = joined_parts(content, name)
    if content is None and message.get("tool_calls"):
        content = ""
    elif not isinstance(content, str):
        raise RowError(f"{name}.content is {type(content).__name__}, not text")
    return {**message, "content": content}


def joined_parts(parts: list[Any], name: str) -> str:
    """Return the text of a message written in parts."""
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise RowError(
                f'{name}.content has a part that is not {{"type": "text", "text": "..."}}; this recipe reads text'
            )
        texts.append(part["text"])
    return "".join(texts)


def check_messages(messages: Any, name: str, *, ends_with_answer: bool) -> list[Row]:
    """Return the messages of a conversation."""
    if not isinstance(messages, list) or not messages:
        raise RowError(f"{name} is not a list with at least one message")
    out = [check_message(message, f"{name}[{index}]") for index, message in enumerate(messages)]
    if ends_with_answer and out[-1]["role"] != "assistant":
        raise RowError(f"{name} ends with a message of the {out[-1]['role']}, not with the assistant's answer")
    return out


def instructed(row: Row) -> Row:
    """Return an instruction and its answer as a conversation; what is given with it follows it."""
    asked = check_text(row[INSTRUCTION], INSTRUCTION)
    given = next((row[name] for name in GIVEN if row.get(name)), "")
    answer = next((name for name in ANSWERS if name in row), None)
    if answer is None:
        raise RowError(f"has an instruction, and no answer: neither {' nor '.join(ANSWERS)}")
    if given:
        asked = f"{asked}\n\n{check_text(given, 'context')}"
    return {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": check_text(row[answer], answer)},
        ]
    }


def check_row(row: Any, system_message: str = "") -> Row:
    """Return a row with only the keys that training reads.

    Raises:
        RowError: the row is of no known kind, or a part of it is missing or of the wrong type.
    """
    if not isinstance(row, dict):
        raise RowError(f"is {type(row).__name__}, not a JSON object")
    if INSTRUCTION in row and "messages" not in row:
        row = instructed(row)
    kind = kind_of(row)
    if kind == "text":
        return {"text": check_text(row["text"], "text")}
    if kind == "messages":
        messages = check_messages(row["messages"], "messages", ends_with_answer=True)
        if system_message and messages[0]["role"] not in ("system", "developer"):
            messages = [{"role": "system", "content": system_message}, *messages]
        return {"messages": messages, **({"tools": row["tools"]} if row.get("tools") else {})}
    if isinstance(row["prompt"], list):
        prompt = check_messages(row["prompt"], "prompt", ends_with_answer=False)
        return {"prompt": prompt, "completion": check_messages(row["completion"], "completion", ends_with_answer=True)}
    return {"prompt": check_text(row["prompt"], "prompt"), "completion": check_text(row["completion"], "completion")}


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that are not blank, counted from 1."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def raw_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield each row of a file with its place: lines (``FILE:LINE``) as text, items of an array (``FILE[INDEX]``)."""
    try:
        first = next(lines_of(path), (0, ""))[1].lstrip()
        if first.startswith("["):
            for index, row in enumerate(json.loads(path.read_text(encoding="utf-8-sig"))):
                yield f"{path}[{index}]", row
        else:
            for number, line in lines_of(path):
                yield f"{path}:{number}", line
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}\n  expected: {EXPECTED}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save it as UTF-8\n  expected: {EXPECTED}") from None


def judge(raw: Any, kind: str, system_message: str) -> Row | str:
    """Return the checked row, or what is wrong with it; ``kind`` is the kind of the rows before it, if any."""
    try:
        row = check_row(json.loads(raw) if isinstance(raw, str) else raw, system_message)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    except RowError as error:
        return str(error)
    if kind and kind_of(row) != kind:
        return f"is of kind {kind_of(row)}, but the rows before it are of kind {kind}"
    return row


def read_rows(
    paths: Sequence[Path],
    *,
    system_message: str = "",
    bad_rows: str = "fail",
    tell: Callable[[str], object] = print,
) -> Iterator[Row]:
    """Yield the checked rows of files, all of one kind; see :func:`checked_rows`."""
    raw = (item for path in paths for item in raw_rows(path))
    named = ", ".join(map(str, paths))
    yield from checked_rows(raw, named, system_message=system_message, bad_rows=bad_rows, tell=tell)


def checked_rows(
    raw_items: Iterable[tuple[str, Any]],
    named: str,
    *,
    system_message: str = "",
    bad_rows: str = "fail",
    tell: Callable[[str], object] = print,
) -> Iterator[Row]:
    """Yield the rows that are as expected, all of one kind, from rows with their places; ``named`` is where they are.

    With ``bad_rows="skip"`` rows that are not as expected are left out, and ``tell`` is told how many; data without
    any good row still fails.

    Raises:
        DataError: names the first places that are wrong, and how many more there are.
    """
    faults: list[str] = []
    kind = ""
    for place, raw in raw_items:
        row = judge(raw, kind, system_message)
        if isinstance(row, str):
            faults.append(f"{place}: {row}")
            continue
        kind = kind or kind_of(row)
        if not faults or bad_rows == "skip":
            yield row
    shown = "\n".join(faults[:SHOWN_FAULTS])
    if len(faults) > SHOWN_FAULTS:
        shown += f"\n  and {len(faults) - SHOWN_FAULTS} more"
    if faults and (bad_rows == "fail" or not kind):
        raise DataError(
            f"{shown}\n  expected: {EXPECTED}\n  hint: mend them, or leave them out with {called('bad_rows', 'skip')}"
        )
    if faults:
        tell(f"data: {len(faults)} rows are left out; the first: {faults[0]}")
    if not kind:
        raise DataError(f"no row in {named}\n  expected: {EXPECTED}")


def can_be_parted(count: int, fraction: float) -> bool:
    """Return whether rows are left for training when a share, rounded up, is set apart for evaluation."""
    return count - math.ceil(count * fraction) >= 1


def data_files(source: str, *, evaluation: bool = False) -> list[Path]:
    """Return the files that a local source names: itself, or those of a folder; an empty list is no local source.

    In a folder, files named eval*, test*, valid* or dev* are for evaluation and all others for training.

    Raises:
        DataError: the source is a path, but there is nothing to read.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(file for pattern in ("*.jsonl", "*.json") for file in path.glob(pattern))
        chosen = [file for file in found if file.name.lower().startswith(EVALUATION_NAMES) == evaluation]
        if not chosen and not evaluation:
            raise DataError(f"{path}: no .jsonl file for training in this folder\n  expected: {EXPECTED}")
        return chosen
    if looks_local(source):
        raise DataError(nothing_at(source, "a data set"))
    return []
