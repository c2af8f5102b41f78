"""Rows with images as data sets have them, made into conversations: read when they are needed, checked before.

A row is of one of these kinds (one kind a data set):

* Mind2Web's: ``screenshot``, ``confirmed_task``, ``action_reprs`` and which of them is to be done; all other columns,
  its pages of HTML above all, stay unread;
* ``{"image": ..., "prompt": "...", "completion": "..."}``;
* ``{"images": [...], "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", ...}]}, ...]}``;
  where no message says where the images belong, they come before the first words of the user.

An image is a path (of a file beside the rows), bytes, ``data:`` with base64, or what the library datasets makes of it.
"""

import base64
import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
Conversation = list[dict[str, Any]]

#: The columns of each kind: those that must be there, and those that may.
KINDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mind2web": (
        ("screenshot", "confirmed_task", "action_reprs"),
        ("target_action_index", "target_action_reprs", "website"),
    ),
    "messages": (("messages",), ("images", "image")),
    "prompt": (("prompt", "completion"), ("images", "image")),
}
EXPECTED = (
    "the columns of Mind2Web (screenshot, confirmed_task, action_reprs, target_action_index), or "
    '{"image": "a.png", "prompt": "...", "completion": "..."}, or {"images": [...], "messages": [...]}'
)
QUESTION = "What is the next action?"


class DataError(Exception):
    """The data cannot be used; the text says which row, what is wrong and what is expected."""


class RowError(Exception):
    """One row is not as expected."""


def kind_of(columns: Sequence[str]) -> str:
    """Return the kind of a data set by its columns.

    >>> kind_of(["image", "prompt", "completion"])
    'prompt'
    """
    for kind, (needed, _) in KINDS.items():
        if set(needed) <= set(columns):
            return kind
    raise DataError(f"the rows have {', '.join(sorted(columns)) or 'no columns'}\n  expected: {EXPECTED}")


def conversation(row: Row, kind: str, system_message: str = "") -> tuple[Conversation, list[Any]]:
    """Return a row as messages, the last of them the answer, and its images, not yet opened.

    Raises:
        RowError: a part of it is missing or of the wrong type.
    """
    if kind == "mind2web":
        found, images = _mind2web(row)
    elif kind == "prompt":
        images = _images(row)
        asked = _text(row, "prompt")
        found = [_said("user", asked, images=len(images)), _said("assistant", _text(row, "completion"))]
    else:
        images = _images(row)
        found = _placed([_message(one, at) for at, one in enumerate(_listed(row, "messages"))], len(images))
    if not images:
        raise RowError("has no image; rows of words alone are for the recipe sft")
    if not found or found[-1]["role"] != "assistant":
        raise RowError("does not end with the assistant's answer")
    if system_message and found[0]["role"] != "system":
        found = [_said("system", system_message), *found]
    return found, images


def opened(image: Any, folder: Path) -> Any:
    """Return an image, of three colours, from whatever a row has in its place."""
    from PIL import Image

    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    try:
        if isinstance(image, str) and image.startswith("data:"):
            image = base64.b64decode(image.partition(",")[2])
        if isinstance(image, bytes):
            return Image.open(io.BytesIO(image)).convert("RGB")
        if isinstance(image, str):
            with Image.open(folder / image) as file:
                return file.convert("RGB")
        if isinstance(image, Image.Image):
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        # what Pillow's readers raise of files that are broken, or far too large
        raise RowError(f"has an image that cannot be read: {error}") from None
    raise RowError(f"has {type(image).__name__} in the place of an image")


def _mind2web(row: Row) -> tuple[Conversation, list[Any]]:
    """Return a step of a task on the web: what was done so far, what the page looks like, and what is done next."""
    actions = [str(one) for one in _listed(row, "action_reprs", empty=True)]
    index = row.get("target_action_index")
    at = int(index) if isinstance(index, int) or (isinstance(index, str) and index.isdecimal()) else None
    answer = row.get("target_action_reprs")
    if not answer and at is not None and at < len(actions):
        answer = actions[at]
    if not isinstance(answer, str) or not answer.strip():
        raise RowError("does not say which action is next: no target_action_reprs, no target_action_index")
    if row.get("screenshot") is None:
        raise RowError("has no screenshot")
    done = actions[: at if at is not None else 0]
    before = "\n".join(done) if done else "none"
    asked = f"Task: {_text(row, 'confirmed_task')}\nPrevious actions:\n{before}\n{QUESTION}"
    return [_said("user", asked, images=1), _said("assistant", answer.strip())], [row["screenshot"]]


def _images(row: Row) -> list[Any]:
    several, one = row.get("images"), row.get("image")
    if several is not None and not isinstance(several, (list, tuple)):
        raise RowError(f"images is {type(several).__name__}, not a list")
    return [*(several or ()), *([one] if one is not None else [])]


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{name} is {'empty' if isinstance(value, str) else type(value).__name__ + ', not text'}")
    return value


def _listed(row: Row, name: str, *, empty: bool = False) -> list[Any]:
    value = row.get(name)
    if not isinstance(value, (list, tuple)) or not (value or empty):
        raise RowError(f"{name} is not a list with at least one item")
    return list(value)


def _said(role: str, text: str, *, images: int = 0) -> dict[str, Any]:
    return {"role": role, "content": [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}]}


def _message(message: Any, at: int) -> dict[str, Any]:
    """Return a message whose content is a list of images and texts."""
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in ("system", "user", "assistant"):
        raise RowError(f"messages[{at}].role is {role!r}, expected system, user or assistant")
    content = message.get("content")
    if isinstance(content, str):
        return _said(role, content)
    parts = []
    for part in content if isinstance(content, (list, tuple)) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "image":
            parts.append({"type": "image"})
        elif kind == "text" and isinstance(part.get("text"), str):
            parts.append({"type": "text", "text": part["text"]})
        else:
            raise RowError(f"messages[{at}].content has a part that is neither an image nor a text")
    if not parts:
        raise RowError(f"messages[{at}].content is empty")
    return {"role": role, "content": parts}


def _placed(messages: Conversation, count: int) -> Conversation:
    """Return messages that say where the images belong: as they do, or before the first words of the user."""
    told = sum(part["type"] == "image" for one in messages for part in one["content"])
    if told == count:
        return messages
    if told:
        raise RowError(f"says where {told} images belong, and has {count}")
    first = next((at for at, one in enumerate(messages) if one["role"] == "user"), None)
    if first is None:
        raise RowError("has images, and no message of the user")
    content = [*({"type": "image"} for _ in range(count)), *messages[first]["content"]]
    return [*messages[:first], {"role": "user", "content": content}, *messages[first + 1 :]]
