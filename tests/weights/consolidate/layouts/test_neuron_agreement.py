"""With its environment at hand, checkpoints cut for Trainium come out as optimum-neuron's own code makes them.

CLOUDTUNE_NEURON_PYTHON names the Python of an environment with optimum-neuron[training], CLOUDTUNE_NEURON_OLD_PYTHON
one with release 0.2.0; docs/how-to/weights.md says how to make them.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import attrs
import pytest

pytestmark = pytest.mark.heavy
torch = pytest.importorskip("torch")

from tests.weights.consolidate.layouts.cut_for_neuron import Recipe, write  # noqa: E402 - it needs torch
from tests.weights.consolidate.layouts.made_whole import GROUPED, consolidated, theirs  # noqa: E402

ORACLE = os.environ.get("CLOUDTUNE_NEURON_PYTHON")
OLD_ORACLE = os.environ.get("CLOUDTUNE_NEURON_OLD_PYTHON")
#: Cases, and what optimum-neuron 0.4.5 itself raises where it cannot do what it wrote.
AGREEMENT = {
    "tensor parallel": Recipe(tp=4, heads=8, groups=8),
    "one rank": Recipe(tp=1),
    "fused gate_up": Recipe(inner=64),
    "fused QKV": Recipe(fuse_qkv=True),
    "GQA": Recipe(**GROUPED),
    "GQA fused": Recipe(fuse_qkv=True, **GROUPED),
    "GQA, several key heads a rank": Recipe(tp=4, heads=12, groups=6, copies=2),
    "GQA of one key head": Recipe(tp=4, heads=8, groups=1, copies=4),
    "pipeline parallel": Recipe(pp=2, tied=True),
    "pipeline parallel GQA": Recipe(pp=2, fuse_qkv=True, **GROUPED),
    "tied embeddings": Recipe(tied=True),
    "LoRA": Recipe(targets=("mlp", "o_proj", "qkv")),
    "LoRA, embeddings too": Recipe(targets=("embed_tokens", "mlp", "qkv")),
    "LoRA fused QKV": Recipe(targets=("mlp", "o_proj", "qkv"), fuse_qkv=True),
    "LoRA GQA": Recipe(targets=("mlp", "o_proj", "qkv"), **GROUPED),
    "LoRA GQA fused": Recipe(targets=("mlp", "o_proj", "qkv"), fuse_qkv=True, **GROUPED),
    "LoRA GQA, pipeline parallel": Recipe(
        targets=("mlp", "o_proj", "qkv"), pp=2, adapter="mine", beside=("other",), **GROUPED
    ),
}
CANNOT = {
    "LoRA of attention only": (Recipe(targets=("o_proj", "qkv"), **GROUPED), "KeyError"),
    "LoRA of mlp only": (Recipe(targets=("mlp",), **GROUPED), "KeyError"),
}


#: The same for metadata of before release 0.2, which release 0.2.0 reads.
OLD_AGREEMENT = {
    "tensor parallel": Recipe(old=True),
    "GQA": Recipe(old=True, **GROUPED),
    "GQA, several key heads a rank": Recipe(old=True, tp=4, heads=12, groups=6, copies=2),
    "GQA fused, pipeline parallel": Recipe(old=True, fuse_qkv=True, pp=2, **GROUPED),
    "LoRA": Recipe(old=True, targets=("o_proj", "qkv")),
}


def compare(folder: Path, python: str, cases: dict[str, Recipe], cannot: dict[str, str]) -> None:
    """Have checkpoints made whole by optimum-neuron and by us; ``cannot`` says how its errors begin."""
    pairs: list[str] = []
    for number, recipe in enumerate(cases.values()):
        write(folder / f"{number}", recipe)
        pairs += [str(folder / f"{number}"), str(folder / f"{number}-out")]
    script = str(Path(__file__).with_name("neuron_oracle.py"))
    done = subprocess.run([python, script, *pairs], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = [json.loads(line)["error"] for line in done.stdout.splitlines()]
    for number, (name, error) in enumerate(zip(cases, said, strict=True)):
        if name in cannot:
            assert str(error).startswith(cannot[name]), name
            continue
        assert error is None, f"{name}: {error}"
        assert theirs(folder / f"{number}-out") == consolidated(folder / f"{number}")[1], name


def both_ways(cases: dict[str, Recipe]) -> dict[str, Recipe]:
    kinds = {"a file a rank": False, "a file a tensor": True}
    return {
        f"{name}, {kind}": attrs.evolve(one, xser=xser) for name, one in cases.items() for kind, xser in kinds.items()
    }


@pytest.mark.skipif(not ORACLE, reason="CLOUDTUNE_NEURON_PYTHON names no Python with optimum-neuron")
def test_optimum_neuron_makes_the_same_of_it(tmp_path):
    assert ORACLE is not None
    cases = {**both_ways(AGREEMENT), **{name: recipe for name, (recipe, _) in CANNOT.items()}}
    compare(tmp_path, ORACLE, cases, {name: error for name, (_, error) in CANNOT.items()})


@pytest.mark.skipif(not OLD_ORACLE, reason="CLOUDTUNE_NEURON_OLD_PYTHON names no Python with optimum-neuron 0.2.0")
def test_optimum_neuron_0_2_0_makes_the_same_of_old_metadata(tmp_path):
    assert OLD_ORACLE is not None
    compare(tmp_path, OLD_ORACLE, both_ways(OLD_AGREEMENT), {})
