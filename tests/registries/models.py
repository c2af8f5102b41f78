"""Small models to be filed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

from cloudtune.checksums import sha256
from cloudtune.weights.files.safetensors import make_header

RECORD = {"base": "org/base", "run": "abc12345", "metrics": {"eval_loss_before": 3.0, "eval_loss": 1.0}}


def safetensors(content: bytes = b"tensors") -> bytes:
    """Return a file with one tensor of these bytes."""
    return make_header([("w", "U8", (len(content),))])[0] + content


def merged(place: Path, weights: bytes = b"tensors") -> Path:
    """Write a folder as merge leaves it, with the logs of a run in it; ``weights`` are the bytes of a tensor."""
    (place / "logs").mkdir(parents=True)
    (place / "logs" / "node-0.log").write_text("line")
    (place / "config.json").write_text("{}")
    (place / "model.safetensors").write_bytes(safetensors(weights))
    (place / "cloudtune.json").write_text(json.dumps(RECORD))
    return place


def described(place: Path, *below: str) -> Path:
    """Add the checksums of a model's files to its record."""
    files = [path.name for path in place.iterdir() if path.is_file() and path.name != "cloudtune.json"]
    sums = {name: sha256(place / name) for name in sorted((*files, *below))}
    (place / "cloudtune.json").write_text(json.dumps({**RECORD, "checksums": sums}))
    return place


@contextmanager
def in_memory(place: Path, path: str) -> Iterator[str]:
    """Put a folder into fsspec's memory for a while; returns the URI."""
    system = fsspec.filesystem("memory")
    system.put(str(place), f"/{path}", recursive=True)
    try:
        yield f"memory://{path}"
    finally:
        system.rm(f"/{path.partition('/')[0]}", recursive=True)
