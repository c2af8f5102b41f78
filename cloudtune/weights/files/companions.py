"""What lies in the folder of a model or an adapter besides tensors and configs, and travels along."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from cloudtune.ranges import LooseReader
from cloudtune.uri import join
from cloudtune.weights.files.assembly import Output, Span
from cloudtune.weights.files.filenames import UNFINISHED
from cloudtune.weights.files.folder import Folder

_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "chat_template*",
)
_COMPANIONS = (
    *_TOKENIZER,
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "*.py",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
)


def companions_of(names: Iterable[str], *, tokenizer_only: bool = False) -> tuple[str, ...]:
    """Return which files of a folder are tokenizer, chat template, generation config or licence.

    What a download has left unfinished (``tokenizer.json.part``) is none of them.
    """
    patterns = _TOKENIZER if tokenizer_only else _COMPANIONS
    whole = (name for name in names if "/" not in name and not name.endswith(UNFINISHED))
    return tuple(name for name in whole if any(fnmatchcase(name, one) for one in patterns))


def as_it_is(folder: Folder, name: str) -> Output:
    """Return a file of a folder as one to be written; it is not read yet, for a tokenizer may have 30 MB."""
    reader = LooseReader(join(folder.uri, name), folder.files[name])
    return Output(name=name, pieces=(Span(reader=reader, offset=0, length=reader.size),))
