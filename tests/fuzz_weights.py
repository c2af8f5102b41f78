"""Mutates checkpoints, models and adapters and reads them: each is read or an error of cloudtune, and nothing else.

    python tests/fuzz_weights.py 100000 1 [KIND]

prints for each kind how many were read, refused or worse, how long it took, and the first inputs that broke the
promise. Kinds are rows of a table in tests/weights/mutants.py.
"""

from __future__ import annotations

import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cloudtune.errors import CloudtuneError  # noqa: E402
from tests.weights.mutants import KINDS, Files, Kind, Sparse  # noqa: E402

#: Bytes of memory, those of the interpreter and its libraries among them, that no file may take.
MEMORY_BYTES = 1 << 30
#: Longer than any of these may take, on any machine.
SLOW_S = 20
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**62, 2**63, 2**64 - 1)
#: Operations of pickles, ends of names, and marks of zip files.
TOKENS = (
    *(
        bytes([code])
        for code in b"(.0123NRQ)]}abeghjkqrstuXcCBTUGJKM\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x93\x94\x95"
    ),
    b"cos\nsystem\n",
    b"ctorch\nSize\n",
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"PK\x06\x07",
)


def mutated(files: Files, kind: Kind, draw: random.Random) -> Files:
    """Return files of which one or two were changed in a few places."""
    changed = dict(files)
    for _ in range(draw.choice((1, 1, 1, 2))):
        name = kind.favourite if kind.favourite in files and draw.random() < 0.5 else draw.choice(sorted(files))
        data = changed.get(name, b"")
        if kind.changes and draw.random() < 0.7:
            changed[name] = draw.choice(kind.changes)(name, data, draw)
            continue
        altered = bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 4, 16))):
            draw.choice(CHANGES)(altered, draw)
        changed[name] = bytes(altered)
    if draw.random() < 0.03:
        del changed[draw.choice(sorted(changed))]
    return changed


def _flip(data: bytearray, draw: random.Random) -> None:
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _replace(data: bytearray, draw: random.Random) -> None:
    if data:
        data[draw.randrange(len(data))] = draw.randrange(256)


def _cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data) + 1) :]


def _remove(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    del data[at : at + draw.choice((1, 2, 8, 100))]


def _repeat(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = data[at : at + draw.choice((1, 8, 64))] * draw.choice((1, 2, 100, 3000))


def _insert(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = draw.choice(TOKENS)


def _number(data: bytearray, draw: random.Random) -> None:
    form, width = draw.choice((("<H", 2), ("<I", 4), ("<Q", 8)))
    if len(data) >= width:
        at = draw.randrange(len(data) - width + 1)
        data[at : at + width] = struct.pack(form, draw.choice(NUMBERS) % (1 << 8 * width))


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip,
    _flip,
    _replace,
    _cut,
    _remove,
    _repeat,
    _insert,
    _insert,
    _number,
)


def outcome(files: Files, folder: Path, kind: Kind) -> str:
    """Return ``read``, ``refused``, or what went wrong with files."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        with (folder / name).open("wb") as file:
            file.write(data)
            if isinstance(data, Sparse):
                file.truncate(max(data.size, len(data)))
    began = time.perf_counter()
    try:
        kind.read(folder)
        result = "read"
    except CloudtuneError as error:
        result = "refused" if str(folder) in str(error) else f"does not name the file: {error}"
    except (Exception, MemoryError):  # noqa: BLE001 - that is what is looked for
        result = traceback.format_exc()
    finally:
        shutil.rmtree(folder)
    return result if time.perf_counter() - began < SLOW_S else "slow"


def fuzz(count: int, seed: int, folder: Path, kind: str = "checkpoints") -> Iterator[tuple[str, Files]]:
    """Yield the outcome of every mutated set of files of a kind, with the files."""
    draw = random.Random(seed)
    whole = KINDS[kind].originals(folder)
    for number in range(count):
        files = mutated(draw.choice(whole), KINDS[kind], draw)
        yield outcome(files, folder / f"mutant-{number}", KINDS[kind]), files


def main() -> int:
    """Fuzz as the arguments say; return 1 if the promise was broken."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    return max([_report(count, seed, kind) for kind in sys.argv[3:] or KINDS])


def _report(count: int, seed: int, kind: str) -> int:
    began, outcomes, shown, slowest, last = time.monotonic(), Counter[str](), 0, 0.0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for result, files in fuzz(count, seed, Path(folder), kind):
            now = time.monotonic()
            slowest, last = max(slowest, now - last), now
            good = result in {"read", "refused"}
            outcomes[result if good else "broken"] += 1
            if not good and shown < 5:
                shown += 1
                print(result, {name: data for name, data in files.items() if len(data) < 4000})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    seconds = time.monotonic() - began
    print(f"{kind}: {dict(outcomes)} in {seconds:.0f} s, the slowest {slowest:.2f} s, at most {peak} MiB", flush=True)
    return 1 if outcomes["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
