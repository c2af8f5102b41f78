"""The job of Oracle's guide as one pipeline, over two nodes: its own YAML, with what a laptop has in its stead.

In place of GitHub there is a repository on loopback, whose ``examples/finetuning.py`` takes the guide's own flags and
trains with the recipe ``sft``, sharded over both nodes; in place of Llama 2 a very small one with random weights.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from tests.recipes.modules import RECIPES
from tests.tiny import DATA

JOB = Path(__file__).resolve().parents[2] / "specs" / "oci-llama2-lora" / "job.yaml"
BUCKET = "oci://bucket-to-save-finetuned-weights@namespace"
MODEL = f"{BUCKET}/base"
_FINETUNING = '''"""Fine-tuning by the flags of llama-recipes."""

import argparse
import runpy
import sys
from pathlib import Path

parser = argparse.ArgumentParser()
for flag in ("enable_fsdp", "use_peft", "pure_bf16", "mixed_precision", "save_model"):
    parser.add_argument(f"--{flag}", action="store_true")
for flag in ("peft_method", "batch_size_training", "model_name", "output_dir", "num_epochs"):
    parser.add_argument(f"--{flag}")
asked = parser.parse_args()
assert asked.enable_fsdp and asked.use_peft and asked.save_model
root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root / "src"))
sys.argv = [
    "sft.py", "--model", asked.model_name, "--train-data", str(root / "rows.jsonl"), "--output-dir", asked.output_dir,
    "--method", asked.peft_method, "--sharding", "fsdp", "--batch-size", asked.batch_size_training,
    "--epochs", asked.num_epochs, "--max-length", "64", "--logging-steps", "1", "--save-strategy", "no",
    "--tensorboard", "false", "--learning-rate", "0.001",
]
runpy.run_path(str(root / "src" / "sft.py"), run_name="__main__")
'''
#: Rows of one epoch: each takes a moment of two cores.
_ROWS = 32


@contextlib.contextmanager
def repository(folder: Path) -> Iterator[str]:
    """Serve a repository with the guide's training script on loopback, by git's own daemon; give its URL."""
    work = folder / "work" / "llama-recipes.git"
    (work / "examples").mkdir(parents=True)
    (work / "examples" / "finetuning.py").write_text(_FINETUNING)
    shutil.copytree(RECIPES / "sft", work / "src", ignore=shutil.ignore_patterns("__pycache__"))
    rows = (DATA / "train.jsonl").read_text().splitlines(keepends=True)
    (work / "rows.jsonl").write_text("".join(rows[:_ROWS]))
    author = [*("-c", "user.name=nobody"), *("-c", "user.email=nobody@example.com")]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *words], cwd=work, check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})

    class OneFetch(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            command = ["git", "daemon", "--inetd", "--export-all", f"--base-path={work.parent}", str(work.parent)]
            # whoever owns the folder, it may be served
            safe = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
            end = self.request.fileno()
            subprocess.run(command, stdin=end, stdout=end, check=False, env={**os.environ, **safe})

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), OneFetch) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"git://127.0.0.1:{server.server_address[1]}/llama-recipes.git"
        server.shutdown()


def pipeline(url: str) -> dict[str, Any]:
    """Return the guide's whole way as one document; of the job only what a laptop lacks is changed."""
    job = yaml.safe_load(JOB.read_text())
    runtime = job["spec"]["runtime"]["spec"]
    runtime["git"]["url"] = url
    runtime["command"] = runtime["command"].replace("meta-llama/Llama-2-13b-hf", "base")
    runtime["command"] = runtime["command"].replace("--num_epochs 3", "--num_epochs 1")
    runtime["inputs"] = {MODEL: "base"}
    adapter, merged = f"{BUCKET}/llama2-ft-lora-13b/adapter", f"{BUCKET}/merged"
    steps = [
        {"name": "train", "job": job["spec"]},
        {"name": "merge", "merge": {"base": MODEL, "adapter": adapter, "output": merged}},
        {"name": "register", "register": {"model": merged, "to": "oci", "name": "llama2-dialogues"}},
        {"name": "deploy", "deploy": {"model": "llama2-dialogues", "to": "oci", "shape": "VM.GPU.A10.2"}},
    ]
    ordered = [{**step, "needs": [before["name"]]} for before, step in pairwise(steps)]
    return {"kind": "pipeline", "spec": {"name": "llama2-lora", "steps": [steps[0], *ordered]}}
