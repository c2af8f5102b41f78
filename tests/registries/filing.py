"""Filing a model on the Hub, here or in a process of its own, and what is said of it."""

from __future__ import annotations

import os
import subprocess
import sys

import cloudtune
from cloudtune.checksums import sha256
from tests.registries.hub import TOKEN

COMMIT = "POST /api/models/ann/clerk/commit"


def file(model, name="ann/clerk", **options):
    return cloudtune.register(str(model), to="hub", name=name, **options)


def weights_of(model):
    return [sha256(path) for path in sorted(model.glob("*.safetensors"))]


def everything_said(error):
    """Return the texts of an error and of all that are attached to it and shown with it."""
    said = []
    while error is not None:
        said.append(f"{error} {error!r} {error.args}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return " ".join(said)


def run(*words, code=0, **variables):
    """Run a verb in a process of its own; returns all that it said."""
    done = subprocess.run(
        [sys.executable, "-m", "cloudtune", *map(str, words)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return done.stdout + done.stderr
