"""The examples for AWS as they stand, rehearsed: in place of the Hub's model a very small one with random weights.

The model lies in a cache of the Hub under the name that the example gives, so the example says nothing of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs

from cloudtune import pipelines
from tests.tiny import DATA, random_model

EXAMPLES = Path(pipelines.__file__).parent / "examples"
_COMMIT = "0" * 40


@attrs.frozen(kw_only=True)
class Rehearsed:
    """What came of a rehearsal: its answer as data, what it said, and what it kept."""

    found: dict[str, Any]
    said: str
    kept: Path

    @property
    def counts(self) -> dict[str, int]:
        """How often each operation was asked for."""
        return {one["operation"]: one["count"] for one in self.found["asked"]}

    @property
    def files(self) -> Path:
        """The files of the example's bucket."""
        return self.kept / "files" / "your-bucket"

    def log(self, step: str) -> list[str]:
        """Return the lines of a step, each after its replica and rank."""
        (file,) = (self.kept / "logs").glob(f"*-{step}.log")
        return file.read_text().splitlines()


def hub(folder: Path, name: str, model: Path | None = None) -> Path:
    """Return a cache of the Hub that has a small model under a name, and nothing else."""
    repository = folder / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(_COMMIT)
    shutil.copytree(model or random_model(), repository / "snapshots" / _COMMIT)
    return folder


def rows(folder: Path, *, train: int, test: int) -> Path:
    """Return a folder with conversations in two files."""
    folder.mkdir()
    lines = (DATA / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(lines[:train]), encoding="utf-8")
    (folder / "test.jsonl").write_text("".join(lines[train : train + test]), encoding="utf-8")
    return folder


def rehearsed(example: str, folder: Path, *, model: str, data: Path, settings: tuple[str, ...]) -> Rehearsed:
    """Rehearse an example that prepares its rows, on two nodes at most, and return what came of it."""
    settings = (f"steps.prepare.prepare.data={data}", *settings)
    return rehearsed_file(EXAMPLES / example / "pipeline.yaml", folder, model=model, settings=settings)


def rehearsed_file(
    file: Path,
    folder: Path,
    *,
    model: str,
    weights: Path | None = None,
    settings: tuple[str, ...] = (),
    put: tuple[str, ...] = (),
    processes: int | None = None,
) -> Rehearsed:
    """Rehearse a file on two nodes at most, and return what came of it; it, and all its steps, have succeeded.

    ``weights`` take the place of the model; ``put`` are files in the stage's buckets.
    """
    kept = folder / "kept"
    words = ["rehearse", "-f", str(file), "--nodes", "2", "--ask", "Who was late?", "-o", str(kept), "-o", "json"]
    words += ["--processes", str(processes)] if processes is not None else []
    for flag, values in (("--set", settings), ("--put", put)):
        words += [word for value in values for word in (flag, value)]
    cache = hub(folder / "hub", model, weights)
    done = subprocess.run(
        [sys.executable, "-m", "cloudtune", *words],
        check=False,
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=500,
        env={**os.environ, "HOME": str(folder / "user"), "HF_HUB_CACHE": str(cache)},
    )
    assert done.returncode == 0, done.stderr[-20000:]
    found = json.loads(done.stdout)
    states = {step["name"]: step["state"] for step in found["run"].get("steps", ())}
    assert set(states.values()) <= {"succeeded"}, f"{states}\n{done.stderr[-20000:]}"
    assert not (folder / "user").exists()
    return Rehearsed(found=found, said=done.stderr, kept=kept)
