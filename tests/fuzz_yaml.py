"""Mutates YAML files and reads them: each is a job or a SpecError, and nothing else ever happens.

    python tests/fuzz_yaml.py 100000 1

prints how many were read, refused or worse, how long it took, and the first inputs that broke the promise. What is
read must also survive being written and read again.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cloudtune.errors import SpecError  # noqa: E402
from cloudtune.spec.document import dumps, load  # noqa: E402

TOKENS = [
    *(
        "&a ",
        "*a",
        "!!str ",
        "!x ",
        "<<: *a\n",
        "- ",
        "? ",
        ": ",
        ",",
        "[",
        "]",
        "{",
        "}",
        '"',
        "'",
        "|\n",
        ">-\n",
        "#",
    ),
    *("\t", "\0", "\r", "\n", "\x85", "\u2028", "\ufeff", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x\n", "null", "~"),
    *("true", "'false'", "yes", "0", "-1", "3.7", "1e999", "9" * 80, "0x1F", "010", "1_000", ".nan", "12:30", "''"),
    *("${A}", "$${", "${steps.train.outputs}", "${steps.x.y}", "${steps.}", "<x>", "\x1b[31m", "😀", "\\", "a" * 300),
    *("[" * 80, "{a: " * 80, "- " * 80, "? " * 80, "[[],[]]", "{a: {b: c}}", "[{name: A}]", "[1, x]", "{}"),
]
WORDS = [
    *("kind", "type", "spec", "name", "runtime", "infrastructure", "env", "value", "secret", "steps", "needs", "job"),
    *("merge", "replicas", "command", "recipe", "git", "url", "conda", "inputs", "volumes", "storageMount", "args"),
    *("pyTorchDistributed", "neuronDistributed", "notebook", "container", "eksJob", "sageMakerTrainingJob", "pipeline"),
]


def seeds() -> list[bytes]:
    """Return the files to start from: the ready specs, and the oracles where they are."""
    files = sorted((ROOT / "specs").rglob("*.yaml")) + sorted((ROOT.parent / "shared/oracle/oci").glob("*/job.yaml"))
    return [file.read_bytes() for file in files]


def mutated(start: list[bytes], dice: random.Random) -> bytes:
    """Return one of the files with a few things changed."""
    data = bytearray(dice.choice(start))
    for _ in range(dice.choice([1, 1, 2, 3, 8])):
        data = bytearray(dice.choice(_MUTATIONS)(data, dice, start))
        if len(data) > 1 << 17:
            del data[1 << 17 :]
    return bytes(data)


def _flip(data: bytearray, dice: random.Random, _: list[bytes]) -> bytearray:
    for _ in range(dice.randint(1, 4)):
        if data:
            data[dice.randrange(len(data))] = dice.randrange(256)
    return data


def _token(data: bytearray, dice: random.Random, _: list[bytes]) -> bytearray:
    place = dice.randint(0, len(data))
    data[place:place] = dice.choice(TOKENS).encode()
    return data


def _cut(data: bytearray, dice: random.Random, _: list[bytes]) -> bytearray:
    first, last = sorted((dice.randint(0, len(data)), dice.randint(0, len(data))))
    del data[first : min(last, first + dice.choice([1, 5, 40, 10**6]))]
    return data


def _lines(data: bytearray, dice: random.Random, start: list[bytes]) -> bytearray:
    """Copy, move, drop or indent a run of lines, of this file or of another."""
    lines = bytes(data).split(b"\n")
    other = dice.choice([lines, dice.choice(start).split(b"\n")])
    first = dice.randrange(len(other))
    run = other[first : first + dice.randint(1, 6)]
    if dice.random() < 0.4:
        pad = b" " * dice.randint(1, 6)
        run = [pad + line if dice.random() < 0.9 else line.lstrip() for line in run]
    place = dice.randint(0, len(lines))
    return bytearray(b"\n".join(lines[:place] + run + lines[place + dice.randint(0, 3) :]))


def _word(data: bytearray, dice: random.Random, _: list[bytes]) -> bytearray:
    """Put one word of the dialect in the place of another."""
    old, new = dice.choice(WORDS).encode(), dice.choice(WORDS + TOKENS).encode()
    return bytearray(bytes(data).replace(old, new, dice.choice([1, -1])))


def _value(data: bytearray, dice: random.Random, _: list[bytes]) -> bytearray:
    """Put something else behind a colon."""
    lines = bytes(data).split(b"\n")
    index = dice.randrange(len(lines))
    key, colon, _rest = lines[index].partition(b": ")
    if colon:
        lines[index] = key + colon + dice.choice(TOKENS + WORDS).encode()
    return bytearray(b"\n".join(lines))


def _repeat(data: bytearray, dice: random.Random, _: list[bytes]) -> bytearray:
    place, size = dice.randint(0, len(data)), dice.randint(1, 30)
    piece = data[place : place + size]
    return bytearray(data[:place] + piece * dice.choice([2, 3, 50, 400]) + data[place:])


_MUTATIONS = [_flip, _token, _token, _cut, _lines, _lines, _word, _word, _value, _value, _repeat]


def outcomes(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Read so many mutated files and yield what became of each: ``read``, ``refused`` or what went wrong."""
    dice, start = random.Random(seed), seeds()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.yaml"
        for _ in range(count):
            data = mutated(start, dice)
            yield _outcome(data, file), data


def _outcome(data: bytes, file: Path) -> str:
    file.write_bytes(data)
    try:
        spec = load(file)
    except SpecError as error:
        return "refused" if error.faults and str(error) else "refused without a fault"
    except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
        return traceback.format_exc()
    try:
        return "read" if load(dumps(spec)) == spec else "changed by writing it"
    except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
        return traceback.format_exc()


def main() -> int:
    """Run the fuzzer; the exit code says whether every file was read or refused."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    begin, slowest, last = time.perf_counter(), 0.0, time.perf_counter()
    counts: Counter[str] = Counter()
    bad: list[tuple[str, bytes]] = []
    for outcome, data in outcomes(count, seed):
        now = time.perf_counter()
        slowest, last = max(slowest, now - last), now
        counts[outcome if outcome in {"read", "refused"} else "broken"] += 1
        if outcome not in {"read", "refused"} and len(bad) < 5:
            bad.append((outcome, data))
    print(dict(counts), f"{time.perf_counter() - begin:.1f} s, slowest {slowest:.2f} s")
    for outcome, data in bad:
        print(outcome, repr(data[:3000]), sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
