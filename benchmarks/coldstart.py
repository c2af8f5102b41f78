"""How much a command costs before it does anything: CPU seconds of its process and children, against `python -c pass`.

    python benchmarks/coldstart.py                       cloudtune of the Python that runs this
    python benchmarks/coldstart.py --peers VENV          torchx and hf of a virtual environment, in the same run
    python benchmarks/coldstart.py --with-peers          the same, installed into a temporary environment first

Commands take turns, so that a busy moment of the machine meets all of them; the first round does not count. CPU time is
user and system time from wait4; on a busy machine it swells too, so the ratios are what to compare.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SEED = ROOT / "specs" / "oci-llama2-lora" / "job.yaml"
BASE = "python -c pass"
#: CPU seconds that cloudtune's commands should stay below on a machine of 2026.
GOALS = {"cloudtune --help": 0.10, "cloudtune run --dry-run": 0.25}

#: The same job in torchx's words: six nodes, two processes each.
TORCHX_RUN = ["run", "--dryrun", "--workspace=", "-s"]
TORCHX_JOB = ["dist.ddp", "-j", "6x2", "--image", "pytorch:latest", "--script", "train.py"]


class Command(NamedTuple):
    """A command to measure: its name in the table and its argv."""

    name: str
    argv: list[str]


class Sample(NamedTuple):
    """What one run took: seconds of CPU, seconds on the clock, and the largest memory of a process in MB."""

    cpu_s: float
    wall_s: float
    memory_mb: float


def own_commands(python: str) -> list[Command]:
    """Return the interpreter alone and cloudtune's commands, by the same Python."""
    start = [python, "-m", "cloudtune"]
    return [
        Command(BASE, [python, "-c", "pass"]),
        Command("cloudtune --help", [*start, "--help"]),
        Command("cloudtune run --dry-run", [*start, "run", "--dry-run", "-f", str(SEED), "-o", "json"]),
    ]


def peer_commands(environment: Path) -> list[Command]:
    """Return the peers' commands that an environment has."""
    known = [
        Command("torchx --help", ["torchx", "--help"]),
        Command("torchx run --dryrun (local)", ["torchx", *TORCHX_RUN, "local_cwd", *TORCHX_JOB]),
        Command(
            "torchx run --dryrun (kubernetes)", ["torchx", *TORCHX_RUN, "kubernetes", "-cfg", "queue=q", *TORCHX_JOB]
        ),
        Command("hf --help", ["hf", "--help"]),
    ]
    found = []
    for name, argv in known:
        program = environment / "bin" / argv[0]
        if program.exists():
            found.append(Command(name, [str(program), *argv[1:]]))
    return found


def measure(argv: list[str], home: str) -> Sample:
    """Run a command once and return what it took; a failing one ends the benchmark."""
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": home,
        "CLOUDTUNE_HOME": home,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_COLOR": "1",
    }
    with tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=environment, cwd=home
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(
                f"{' '.join(argv)} ended with {process.returncode}:\n{errors.read().decode(errors='replace')[-2000:]}"
            )
    kib = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return Sample(usage.ru_utime + usage.ru_stime, wall_s, kib / 1024)


def take_turns(commands: list[Command], rounds: int) -> dict[str, list[Sample]]:
    """Measure all commands in turn; the round that fills the caches is left out."""
    samples: dict[str, list[Sample]] = {command.name: [] for command in commands}
    with tempfile.TemporaryDirectory() as home:
        for number in range(rounds + 1):
            for command in commands:
                sample = measure(command.argv, home)
                if number:
                    samples[command.name].append(sample)
    return samples


def rows_of(samples: dict[str, list[Sample]]) -> list[dict[str, Any]]:
    """Return one row a command: medians, range, ratio to the interpreter alone, and whether its goal is met."""
    base = statistics.median(sample.cpu_s for sample in samples[BASE])
    rows: list[dict[str, Any]] = []
    for name, taken in samples.items():
        cpu = [sample.cpu_s for sample in taken]
        median = statistics.median(cpu)
        goal = GOALS.get(name)
        rows.append(
            {
                "command": name,
                "cpuSeconds": round(median, 3),
                "cpuRange": [round(min(cpu), 3), round(max(cpu), 3)],
                "ratio": round(median / base, 1),
                "wallSeconds": round(statistics.median(sample.wall_s for sample in taken), 3),
                "memoryMB": round(statistics.median(sample.memory_mb for sample in taken)),
                "goal": goal,
                "met": None if goal is None else median <= goal,
            }
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a Markdown table."""
    print("| command | CPU s | range | x python | wall s | MB | goal |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        low, high = row["cpuRange"]
        goal = "" if row["goal"] is None else f"{row['goal']:.2f} {'met' if row['met'] else 'missed'}"
        print(
            f"| `{row['command']}` | {row['cpuSeconds']:.3f} | {low:.3f}-{high:.3f} | {row['ratio']} "
            f"| {row['wallSeconds']:.2f} | {row['memoryMB']} | {goal} |"
        )


@contextmanager
def peers_installed() -> Iterator[Path]:
    """Yield a temporary environment with torchx and huggingface_hub."""
    with tempfile.TemporaryDirectory() as name:
        environment = Path(name) / "peers"
        venv.create(environment, with_pip=True)
        print("installing torchx and huggingface_hub ...", file=sys.stderr)
        pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "torchx[kubernetes]", "huggingface_hub"], check=True)
        yield environment


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="runs of each command that count (default: 9)")
    parser.add_argument("--python", default=sys.executable, help="Python that has cloudtune's packages")
    parser.add_argument("--peers", type=Path, metavar="VENV", help="an environment that has torchx or hf")
    parser.add_argument("--with-peers", action="store_true", help="install them into a temporary environment")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    commands = own_commands(options.python)
    if options.with_peers:
        with peers_installed() as environment:
            samples = take_turns([*commands, *peer_commands(environment)], options.rounds)
    else:
        commands += peer_commands(options.peers) if options.peers else []
        samples = take_turns(commands, options.rounds)
    rows = rows_of(samples)
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        show(rows)


if __name__ == "__main__":
    main()
