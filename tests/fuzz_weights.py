"""Mutates checkpoints and reads them: each is a model or an error of cloudtune, and nothing else ever happens.

    python tests/fuzz_weights.py 100000 1

prints how many were read, refused or worse, how long it took, and the first inputs that broke the promise. Of what is
read every byte must be there.
"""

from __future__ import annotations

import random
import resource
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cloudtune.errors import CloudtuneError  # noqa: E402
from cloudtune.weights import fsdp, torchstate  # noqa: E402
from cloudtune.weights.assembly import length_of, stream  # noqa: E402
from cloudtune.weights.model import folder_at  # noqa: E402
from cloudtune.weights.safetensors import size_bytes  # noqa: E402
from tests.weights.forging import Saved, Storage, halves, save, tensor, torch_file  # noqa: E402

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

Files = dict[str, bytes]


def originals(folder: Path) -> list[Files]:
    """Return checkpoints that are whole: sharded in two ways, and a state dict in one file."""
    draw = np.random.default_rng(3)
    rows, columns = draw.standard_normal((9, 4)).astype(np.float32), draw.integers(0, 999, (5, 6)).astype(np.uint16)
    grid = [((a[0], b[1]), (n[0], m[1])) for a, n in halves((5, 6), 2) for b, m in halves((5, 6), 3, 1)]
    tensors = {
        "model.a": Saved(rows, "F32", halves((9, 4), 4), ("model", "a")),
        "model.b": Saved(columns, "BF16", grid, ("model", "b")),
        "model.c": Saved(np.float32(1.5).reshape(()), "F32", [((), ())], ("model", "c")),
        "optim.a": Saved(rows, "F32", halves((9, 4), 2), ("optim", "a")),
    }
    save(folder / "whole", tensors, others={"step": b"bytes"})
    save(folder / "small", {"a": Saved(columns, "BF16", halves((5, 6), 1))})
    shared = Storage("F32", rows.tobytes())
    state = {"model": {"a": tensor(shared, (9, 4)), "b": tensor(shared, (2, 4), offset=3)}, "step": 3, "text": "x"}
    sharded = [{path.name: path.read_bytes() for path in (folder / name).iterdir()} for name in ("whole", "small")]
    return [*sharded, {"model.pt": torch_file(state)}]


def mutated(files: Files, draw: random.Random) -> Files:
    """Return files of which one or two were changed in a few places; half of the time it is the metadata."""
    changed = dict(files)
    for _ in range(draw.choice((1, 1, 1, 2))):
        name = ".metadata" if ".metadata" in files and draw.random() < 0.5 else draw.choice(sorted(files))
        data = bytearray(changed.get(name, b""))
        for _ in range(draw.choice((1, 1, 2, 4, 16))):
            draw.choice(CHANGES)(data, draw)
        changed[name] = bytes(data)
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


def read(folder: Path) -> None:
    """Read a checkpoint as consolidating does, and every byte that it says there is."""
    found = folder_at(str(folder))
    layout = next((one for one in (fsdp, torchstate) if one.recognise(found)), None)
    if layout is None:
        return
    with ExitStack() as opened:
        checkpoint = layout.read(found, opened, config={})
        for part in checkpoint.tensors.values():
            size = sum(length_of(piece) for piece in part.pieces)
            assert size == size_bytes(part.dtype, part.shape)
            assert size == sum(len(memoryview(block)) for piece in part.pieces for block in stream(piece))


def outcome(files: Files, folder: Path) -> str:
    """Return ``read``, ``refused``, or what went wrong with a checkpoint."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    began = time.perf_counter()
    try:
        read(folder)
        result = "read"
    except CloudtuneError as error:
        result = "refused" if str(folder) in str(error) else f"does not name the file: {error}"
    except Exception:  # noqa: BLE001 - that is what is looked for
        result = traceback.format_exc()
    finally:
        for name in files:
            (folder / name).unlink()
        folder.rmdir()
    return result if time.perf_counter() - began < SLOW_S else "slow"


def fuzz(count: int, seed: int, folder: Path) -> Iterator[tuple[str, Files]]:
    """Yield the outcome of every mutated checkpoint, with its files."""
    draw = random.Random(seed)
    whole = originals(folder)
    for number in range(count):
        files = mutated(draw.choice(whole), draw)
        yield outcome(files, folder / f"mutant-{number}"), files


def main() -> int:
    """Fuzz as the arguments say; return 1 if the promise was broken."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    began, outcomes, shown = time.monotonic(), Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        for result, files in fuzz(count, seed, Path(folder)):
            good = result in {"read", "refused"}
            outcomes[result if good else "broken"] += 1
            if not good and shown < 5:
                shown += 1
                print(result, {name: data for name, data in files.items() if len(data) < 4000})
    print(dict(outcomes), f"{time.monotonic() - began:.0f} s")
    return 1 if outcomes["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
