"""What transformers makes of a model: built without memory and compared, or loaded for good and asked for a few words.

Both happen in a process of their own, offline, and without Python code that comes with a model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cloudtune import storage
from cloudtune.errors import MissingExtra
from cloudtune.uri import local_path
from cloudtune.weights.checks.findings import Finding
from cloudtune.weights.checks.subject import Subject

_TIMEOUT_S = 3600.0
#: Configs and tokenizers; what is larger, or has another name, is not needed to build a model.
_SMALL = (".json", ".model", ".txt", ".jinja", ".tiktoken")
_MOST_SMALL_BYTES = 64 << 20


def check_load(subject: Subject) -> Iterator[Finding]:
    """Yield tensors that transformers misses, does not know, or wants in another shape."""
    if not _possible(subject, "--load"):
        return
    with TemporaryDirectory(prefix="cloudtune-check-") as folder:
        _hollow(subject, Path(folder))
        answer = _asked("load", folder)
    if "error" in answer:
        yield _finding("load-failed", "error", f"transformers {answer['version']} cannot build it: {answer['error']}")
        return
    for rule, severity, message in (
        ("missing", "error", "transformers needs this tensor, and would make up its values"),
        ("mismatched", "error", "transformers wants this tensor in another shape"),
        ("unexpected", "warning", "transformers does not know this tensor, and leaves it out"),
    ):
        for name in answer[rule]:
            yield _finding(f"load-{rule}", severity, message, subject.place_of(name))


def check_generate(subject: Subject) -> Iterator[Finding]:
    """Yield what a model says, or why it cannot; one that is elsewhere is downloaded for it."""
    if not _possible(subject, "--generate"):
        return
    path = local_path(subject.folder.uri)
    if path is not None:
        answer = _asked("generate", str(path))
    else:
        with TemporaryDirectory(prefix="cloudtune-check-") as folder:
            storage.download(subject.folder.uri, Path(folder))
            answer = _asked("generate", folder)
    if "error" in answer:
        message = f"it cannot generate with transformers {answer['version']}: {answer['error']}"
        yield _finding("generate-failed", "error", message)
    else:
        hint = "read it: this is what the model answers"
        message = f"asked {answer['prompt']!r}, it goes on {answer['text']!r}"
        yield Finding(rule="generated", severity="note", message=message, hint=hint)


def _possible(subject: Subject, option: str) -> bool:
    if find_spec("transformers") is None or find_spec("torch") is None:
        raise MissingExtra("local", f"{option} of cloudtune check")
    return not subject.adapter and bool(subject.weights.shards)


def _hollow(subject: Subject, folder: Path) -> None:
    """Write a model's small files, and its shards without their bytes: headers, and holes of the right size."""
    for name, size in subject.folder.files.items():
        if "/" not in name and name.endswith(_SMALL) and size <= _MOST_SMALL_BYTES:
            (folder / name).write_bytes(subject.folder.read(name))
    for shard in subject.weights.shards:
        with (folder / shard.name).open("wb") as file:
            file.write(shard.reader.read(0, shard.header.start))
            file.truncate(shard.reader.size)


def _asked(what: str, folder: str) -> dict[str, Any]:
    """Return the answer of the process that has transformers."""
    # isolated (-I): a module beside the model, or in the folder where the user stands, must not be taken for torch
    argv = [sys.executable, "-I", "-m", "cloudtune.weights.checks.loading", what, folder]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_TIMEOUT_S, check=False, env=environment, text=True)
        answer: dict[str, Any] = json.loads(_last_line(done.stdout))
    except subprocess.TimeoutExpired:
        return {"error": f"it takes more than {_TIMEOUT_S:.0f} seconds", "version": "?"}
    except ValueError:
        return {"error": _last_line(done.stderr) or f"its process ended with {done.returncode}", "version": "?"}
    return answer


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def _finding(rule: str, severity: str, message: str, where: str = "") -> Finding:
    hint = "compare config.json and weights with those of the base model"
    return Finding(rule=rule, severity=severity, message=message, hint=hint, where=where)
