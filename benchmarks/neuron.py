"""Checkpoints of optimum-neuron made whole, beside ``cp`` of the same files: memory of the whole process, and time.

    python benchmarks/neuron.py [--folder DIR] [--layers 6 22] [--rounds 3]

Random weights of TinyLlama's width (22 layers are 1.1B parameters, 2.2 GB) for 8 ranks, grouped-query attention with
repeated key heads, fused gate and up projections; with a file a rank and with a file a tensor. Each round copies the
files and consolidates them, each in a process of its own, with a warm cache; medians of the rounds, peak memory is the
highest of them (ru_maxrss). With CLOUDTUNE_NEURON_PYTHON set (docs/how-to/weights.md) optimum-neuron's own
consolidation runs once in the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1] / "tests" / "weights" / "consolidate" / "layouts"
#: Peak memory of the whole process, in MB.
GOAL_MB = 100


class Taken(NamedTuple):
    """What a process took: seconds of the clock, CPU seconds, and megabytes at its peak."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def taken(argv: list[str]) -> Taken:
    """Run a process and return what it took; a failing one ends the benchmark."""
    start = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{argv[0]} failed: {said[-2000:]}")
    return Taken(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def rows(folder: Path, layers: int, rounds: int) -> list[str]:
    """Return the rows of the table for a model of so many layers."""
    source, goal = folder / f"{layers}", folder / "out"
    subprocess.run([sys.executable, str(TESTS / "cut_for_neuron.py"), str(source), str(layers)], check=True)
    found = []
    for kind in ("rank", "tensor"):
        place = source / kind
        (place / "config.json").write_text('{"model_type": "llama", "tie_word_embeddings": false}')
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e9
        ours, copies = [], []
        for number in range(rounds + 1):
            for argv, into in (
                (["cp", "-r", str(place), str(goal)], copies),
                ([sys.executable, "-m", "cloudtune", "consolidate", str(place), "-o", str(goal)], ours),
            ):
                one = taken(argv)
                into.extend([one] * (number > 0))
                shutil.rmtree(goal)
        wall = [statistics.median(one.wall_s for one in side) for side in (ours, copies)]
        peak = max(one.peak_mb for one in ours)
        cpu = statistics.median(one.cpu_s for one in ours)
        verdict = "met" if peak <= GOAL_MB else "missed"
        found.append(
            f"| {size:.1f} GB, a file a {kind} | {peak:.0f} | {GOAL_MB} {verdict} "
            f"| {wall[0]:.1f} | {wall[0] / wall[1]:.1f} | {cpu:.1f} | {theirs(place, goal)} |"
        )
    shutil.rmtree(source)
    return found


def theirs(place: Path, goal: Path) -> str:
    """Return the peak memory and the time of optimum-neuron's own consolidation."""
    python = os.environ.get("CLOUDTUNE_NEURON_PYTHON")
    if not python:
        return "not run"
    one = taken([python, str(TESTS / "neuron_oracle.py"), str(place), str(goal)])
    shutil.rmtree(goal)
    return f"{one.peak_mb:.0f} MB, {one.wall_s:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where 9 GB may lie for a while; a scratch folder by default")
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 22])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print("| checkpoint of 8 ranks | peak MB | goal | wall s | x cp | CPU s | optimum-neuron |")
        print("|---|---|---|---|---|---|---|")
        for layers in options.layers:
            for row in rows(Path(folder), layers, options.rounds):
                print(row, flush=True)


if __name__ == "__main__":
    main()
