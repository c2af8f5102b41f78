"""A very small model with random weights and the quickstart's tokenizer, for tests that need real tensors."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from tests.recipes.modules import RECIPES

DATA = RECIPES / "quickstart" / "data"
#: As many threads as a shared machine of two cores can spare.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
_MAKE = """
import sys
sys.path.insert(0, sys.argv[1])
import torch, quickstart
torch.manual_seed(0)
rows = quickstart.read_rows("train")
tokenizer = quickstart.build_tokenizer([m["content"] for row in rows for m in row["messages"]], 1024)
model = quickstart.build_model(tokenizer)
model.generation_config.max_new_tokens = 8
model.to(torch.bfloat16).save_pretrained(sys.argv[2])
tokenizer.save_pretrained(sys.argv[2])
"""


@cache
def random_model() -> Path:
    """Return the folder of a small Llama with random weights in bfloat16; made once for all tests of a process."""
    folder = Path(mkdtemp(prefix="cloudtune-tests-")) / "model"
    subprocess.run(
        [sys.executable, "-c", _MAKE, str(RECIPES / "quickstart"), str(folder)],
        check=True,
        capture_output=True,
        env={**os.environ, **ENVIRONMENT},
    )
    return folder


def python(*argv: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end; returns its exit code and all that it said."""
    return subprocess.run(
        [sys.executable, *map(str, argv)],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **ENVIRONMENT, **variables},
    )
