"""Pictures in a question, as OpenAI's chat completions take them: in the request itself."""

from __future__ import annotations

import base64
import mimetypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloudtune.errors import UsageError

#: What services take as one request at most is 10 MB; base64 adds a third.
MOST_BYTES = 7 << 20


def question(prompt: str, images: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """Return the body of a request with pictures, files of this machine, before the prompt.

    Raises:
        UsageError: a file is no picture, cannot be read, or all of them are too large.
    """
    urls = [_inline(Path(image)) for image in images]
    if sum(map(len, urls)) > MOST_BYTES * 4 // 3:
        raise UsageError(f"the pictures have more than {MOST_BYTES >> 20} MiB", hint="send fewer, or smaller ones")
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}]}


def _inline(path: Path) -> str:
    kind, _ = mimetypes.guess_type(path.name)
    if kind is None or not kind.startswith("image/"):
        raise UsageError(f"{path} is no picture by its name", hint="a .png, .jpg or .webp")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
