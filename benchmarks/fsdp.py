"""FSDP checkpoints made into one model, beside ``cp`` of the same files and what torch and accelerate have for it.

    python benchmarks/fsdp.py [--folder DIR] [--millions 336 1100] [--rounds 5] [--without-peers]

Random weights in bfloat16, sharded by FSDP2 over 2 and 4 ranks. Each round runs every way once, each in a process of
its own, in turn and with a warm cache; medians of the rounds, and of the ratios to the round's ``cp``; peak memory is
the highest (ru_maxrss). In the end every tensor is compared with torch's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
MAKE = ROOT / "tests" / "weights" / "consolidate" / "layouts" / "make_checkpoints.py"
#: Times ``cp``, and megabytes of the whole process.
GOALS = (1.5, 50)
FUNCTION = """
import sys
from cloudtune.weights.consolidate.verb import consolidate
consolidate(sys.argv[1], sys.argv[2], base=sys.argv[3])
"""
TORCH = """
import sys, torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from safetensors.torch import save_file
dcp_to_torch_save(sys.argv[1], sys.argv[2] + ".pt")
save_file(torch.load(sys.argv[2] + ".pt", mmap=True, weights_only=True)["model"], sys.argv[2])
"""
ACCELERATE = "import sys; from accelerate.utils import merge_fsdp_weights as m; m(sys.argv[1], sys.argv[2])"
COMPARE = """
import sys, torch
from safetensors.torch import load_file
ours = load_file(sys.argv[1]); theirs = torch.load(sys.argv[2], mmap=True, weights_only=True)["model"]
assert ours.keys() == theirs.keys()
print(sum(not torch.equal(ours[name], theirs[name]) for name in ours), "of", len(ours))
"""


OURS = "`cloudtune consolidate`"


class Taken(NamedTuple):
    """What a process took: seconds of the clock, CPU seconds, and megabytes at its peak."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def taken(argv: list[str]) -> Taken:
    """Run a process and return what it took; a failing one ends the benchmark."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{argv} failed: {said.read().decode()[-2000:]}")
    return Taken(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def make(folder: Path, millions: int, ranks: int) -> Path:
    """Write a checkpoint of a model of so many million parameters, and the config of its base."""
    folder.mkdir(parents=True)
    argv = [[sys.executable, str(MAKE), str(rank), str(ranks), str(folder), str(millions)] for rank in range(ranks)]
    running = [
        subprocess.Popen(one, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}) for one in argv
    ]
    if any(one.wait() for one in running):
        sys.exit("the checkpoint could not be made")
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": False}))
    return folder / "pytorch_model_fsdp_0"


def rows(folder: Path, millions: int, ranks: int, rounds: int, *, peers: bool) -> list[str]:
    """Return the rows of the table for one checkpoint."""
    source = make(folder / f"{millions}-{ranks}", millions, ranks)
    size = sum(path.stat().st_size for path in source.iterdir()) / 1e9
    base, goal = str(source.parent / "base"), folder / "out"
    ways = {
        "`cp -r`": ["cp", "-r", str(source), str(goal)],
        OURS: [
            *(sys.executable, "-m", "cloudtune", "consolidate", str(source)),
            *("--base", base, "-o", str(goal)),
        ],
        "the function alone": [sys.executable, "-c", FUNCTION, str(source), str(goal), base],
        "`merge_fsdp_weights` of accelerate": [sys.executable, "-c", ACCELERATE, str(source), str(goal)],
        "`dcp_to_torch_save`, then safetensors": [sys.executable, "-c", TORCH, str(source), str(goal)],
    }
    if not peers:
        ways = dict(list(ways.items())[:3])
    found: dict[str, list[Taken]] = {way: [] for way in ways}
    compared = ""
    for number in range(rounds + 1):
        for way, argv in ways.items():
            one = taken(argv)
            found[way].extend([one] * (number > 0))
            if number == 0 and argv is ways[OURS] and peers:
                goal.rename(folder / "ours")
                continue
            if number == 0 and goal.is_file():
                sides = [str(folder / "ours/model.safetensors"), f"{goal}.pt"]
                said = subprocess.run(
                    [sys.executable, "-c", COMPARE, *sides], check=True, capture_output=True, text=True
                )
                compared = said.stdout.strip()
                shutil.rmtree(folder / "ours")
            shutil.rmtree(goal) if goal.is_dir() else goal.unlink()
            Path(f"{goal}.pt").unlink(missing_ok=True)
    shutil.rmtree(source.parent)
    copies = found["`cp -r`"]
    lines = []
    for way, all_of_it in found.items():
        ratio = statistics.median(one.wall_s / copy.wall_s for one, copy in zip(all_of_it, copies, strict=True))
        work = statistics.median(one.cpu_s / copy.cpu_s for one, copy in zip(all_of_it, copies, strict=True))
        wall, cpu = (statistics.median(one[place] for one in all_of_it) for place in (0, 1))
        peak = max(one.peak_mb for one in all_of_it)
        ours = way == OURS
        verdict = "met" if ratio <= GOALS[0] and peak <= GOALS[1] else "missed"
        goals = f"{GOALS[0]} x, {GOALS[1]} MB {verdict}" if ours else ""
        goals += f"; {compared} tensors differ" if ours and peers else ""
        figures = f"{wall:.2f} | {ratio:.1f} | {cpu:.2f} | {work:.1f} | {peak:.0f}"
        lines.append(f"| {size:.2f} GB, {ranks} ranks | {way} | {figures} | {goals} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where four times the model may lie for a while")
    parser.add_argument("--millions", type=int, nargs="+", default=[336, 1100])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-peers", action="store_true", help="only cp and cloudtune")
    options = parser.parse_args()
    print("| checkpoint | way | wall s | x cp | CPU s | x cp | peak MB | goal |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for millions in options.millions:
            for ranks in options.ranks:
                for row in rows(Path(folder), millions, ranks, options.rounds, peers=not options.without_peers):
                    print(row, flush=True)


if __name__ == "__main__":
    main()
