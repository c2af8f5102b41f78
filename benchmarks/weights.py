"""Merging a LoRA adapter, beside ``cp`` of the base and PEFT: time, CPU, memory, and how many elements differ.

    python benchmarks/weights.py [--folder DIR] [--size 1b] [--rounds 3]
    python benchmarks/weights.py --size 8b --rounds 1 --without-peft

Random weights in bfloat16 in three shards (four for 8b), and a random adapter of rank 16 for all linear layers, of
which the product is about two in a hundred of a weight. Each round runs every way once, each in a process of its own,
in turn and with a warm cache; medians of the rounds, and of the ratios to the round's ``cp`` and PEFT; peak memory is
the highest (ru_maxrss). In the end every element is compared with PEFT's, and those of a layer with sums in 64 bits.
FSDP and Neuron checkpoints: fsdp.py and neuron.py beside this.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

#: Hidden size, layers, width of the MLP, heads, key heads, vocabulary, shards.
SIZES = {"1b": (2048, 22, 5632, 32, 4, 32000, 3), "8b": (4096, 32, 14336, 32, 8, 128256, 4)}
RANK, ALPHA, STD = 16, 32, 0.0015
OURS, SUMS = "`cloudtune merge --no-checksums`", "`cloudtune merge`"
NARROW = "the same with OpenBLAS's kernels for AVX2"
COPY, ACCURATE, SEED = "`cp -r`", "PEFT, `merge_and_unload`", "PEFT, `AutoPeftModelForCausalLM`"
PEFT = """
import sys, warnings
warnings.simplefilter("ignore")
import peft, torch, transformers
base, adapter, output, way = sys.argv[1:]
if way == "accurate":
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    model = peft.PeftModel.from_pretrained(model, adapter)
else:
    model = peft.AutoPeftModelForCausalLM.from_pretrained(adapter, dtype=torch.bfloat16, low_cpu_mem_usage=True)
model.merge_and_unload().save_pretrained(output, max_shard_size="1GB")
"""


class Taken(NamedTuple):
    """What a process took: seconds of the clock, CPU seconds, and megabytes at its peak."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def taken(argv: list[str], **variables: str) -> Taken:
    """Run a process and return what it took; a failing one ends the benchmark."""
    # a kernel of OpenBLAS that this machine's environment asks for is not what others have
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=said, env={**environment, "HF_HUB_OFFLINE": "1", **variables}
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{argv} failed: {said.read().decode()[-2000:]}")
    return Taken(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


# --- parts that need NumPy, in processes of their own: the memory of this one would count for those it starts


def shapes(size: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors of a Llama."""
    hidden, layers, width, heads, key_heads, vocabulary, _ = SIZES[size]
    keys = hidden // heads * key_heads
    attention = {"q_proj": (hidden, hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden)}
    attention["o_proj"] = (hidden, hidden)
    mlp = {"gate_proj": (width, hidden), "up_proj": (width, hidden), "down_proj": (hidden, width)}
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(layers):
        place = f"model.layers.{layer}"
        yield from ((f"{place}.self_attn.{name}.weight", shape) for name, shape in attention.items())
        yield from ((f"{place}.mlp.{name}.weight", shape) for name, shape in mlp.items())
        yield from ((f"{place}.{name}.weight", (hidden,)) for name in ("input_layernorm", "post_attention_layernorm"))
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocabulary, hidden)


def make(folder: Path, size: str) -> None:
    """Write the base and the adapter."""
    import numpy as np

    from cloudtune.weights.files.rounding import narrow
    from cloudtune.weights.files.safetensors import make_header

    random = np.random.default_rng(0)
    pool = narrow(random.standard_normal(1 << 24, dtype=np.float32) * np.float32(0.02), "BF16")
    hidden, layers, width, heads, key_heads, vocabulary, count = SIZES[size]
    tensors = list(shapes(size))
    total, done, groups = sum(math.prod(shape) for _, shape in tensors), 0, [[] for _ in range(count)]
    for name, shape in tensors:
        groups[min(done * count // total, count - 1)].append((name, shape))
        done += math.prod(shape)
    (folder / "base").mkdir(parents=True)
    table = {}
    for number, group in enumerate(groups, 1):
        file = f"model-{number:05}-of-{count:05}.safetensors"
        table |= dict.fromkeys((name for name, _ in group), file)
        with (folder / "base" / file).open("wb") as out:
            out.write(make_header([(name, "BF16", shape) for name, shape in group], {"format": "pt"})[0])
            for _, shape in group:
                left = math.prod(shape)
                while left:
                    start = int(random.integers(0, 1 << 20))
                    part = pool[start : start + min(left, pool.size - start)]
                    out.write(part.tobytes())
                    left -= part.size
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "num_hidden_layers": layers, "intermediate_size": width, "num_attention_heads": heads,
        "num_key_value_heads": key_heads, "vocab_size": vocabulary, "torch_dtype": "bfloat16",
        "tie_word_embeddings": False, "max_position_embeddings": 2048,
    }  # fmt: skip
    (folder / "base" / "config.json").write_text(json.dumps(config))
    index = {"metadata": {"total_size": 2 * total}, "weight_map": table}
    (folder / "base" / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "adapter").mkdir()
    linear = [(f"base_model.model.{name[:-7]}", shape) for name, shape in tensors if name.endswith("_proj.weight")]
    parts: list[tuple[str, tuple[int, ...], float]] = []
    for name, (outputs, inputs) in linear:
        parts += [
            (f"{name}.lora_A.weight", (RANK, inputs), inputs**-0.5),
            (f"{name}.lora_B.weight", (outputs, RANK), STD),
        ]
    with (folder / "adapter" / "adapter_model.safetensors").open("wb") as out:
        out.write(make_header([(name, "F32", shape) for name, shape, _ in parts], {"format": "pt"})[0])
        for _, shape, std in parts:
            out.write((random.standard_normal(shape, dtype=np.float32) * np.float32(std)).tobytes())
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "base_model_name_or_path": str(folder / "base"),
    }  # fmt: skip
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(settings))


def compare(one: str, other: str) -> None:
    """Print how many elements of two models differ."""
    import numpy as np

    from cloudtune.weights.files.folder import folder_at
    from cloudtune.weights.files.model import open_weights

    different = count = 0
    with open_weights(folder_at(one)) as first, open_weights(folder_at(other)) as second:
        for name in first:
            found, wanted = (np.frombuffer(weights.read(name), np.uint16) for weights in (first, second))
            different += int(np.count_nonzero(found != wanted))
            count += found.size
    print(json.dumps([different, count]))


def misrounded(base: str, adapter: str, model: str) -> None:
    """Print how many elements of the first two layers are not the sum in 64 bits, rounded as torch rounds it."""
    import numpy as np

    from cloudtune.weights.files.folder import folder_at
    from cloudtune.weights.files.model import open_weights
    from cloudtune.weights.files.rounding import narrow, view, widen

    wrong = count = 0
    tensors = open_weights(folder_at(adapter), single="adapter_model.safetensors")
    with open_weights(folder_at(base)) as before, open_weights(folder_at(model)) as after, tensors:
        for name in before:
            if not name.endswith("_proj.weight") or not name.startswith(("model.layers.0.", "model.layers.1.")):
                continue
            a, b = (
                np.frombuffer(tensors.read(f"base_model.model.{name[:-7]}.lora_{side}.weight"), np.float32)
                for side in "AB"
            )
            product = b.astype(np.float64).reshape(-1, RANK) @ a.astype(np.float64).reshape(RANK, -1)
            exact = widen(view(before.read(name), "BF16"), "BF16") + ALPHA / RANK * product.reshape(-1)
            found = np.frombuffer(after.read(name), np.uint16)
            wrong += int(np.count_nonzero(narrow(exact.astype(np.float32), "BF16") != found))
            count += found.size
    print(json.dumps([wrong, count]))


PARTS = {"make": make, "compare": compare, "misrounded": misrounded}


def part(name: str, *arguments: str) -> Any:
    """Run a part in a process of its own and return what it printed."""
    argv = [sys.executable, __file__, "--part", name, *arguments]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return json.loads(said) if said else None


# --- rounds, and the table


def ways(folder: Path, output: Path, peft: bool) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return the commands of each way, and what their environment has."""
    base, adapter = str(folder / "base"), str(folder / "adapter")
    merge = [sys.executable, "-m", "cloudtune", "merge", base, adapter, "-o", str(output)]
    by_peft = [sys.executable, "-c", PEFT, base, adapter, str(output)]
    found = {
        COPY: (["cp", "-r", base, str(output)], {}),
        OURS: ([*merge, "--no-checksums"], {}),
        SUMS: (merge, {}),
        NARROW: ([*merge, "--no-checksums"], {"OPENBLAS_CORETYPE": "Haswell"}),
        ACCURATE: ([*by_peft, "accurate"], {}),
        SEED: ([*by_peft, "seed"], {}),
    }
    return found if peft else dict(list(found.items())[:2])


def measure(folder: Path, rounds: int, peft: bool) -> dict[str, list[Taken]]:
    """Run every way in turn; the first round does not count."""
    output = folder / "out"
    found: dict[str, list[Taken]] = {}
    for number in range(rounds + 1):
        for way, (argv, variables) in ways(folder, output, peft).items():
            one = taken(argv, **variables)
            found.setdefault(way, []).extend([one] * (number > 0))
            if number == rounds and way in {ACCURATE, SEED}:
                output.rename(folder / way.strip("`").rpartition("`")[2])
            else:
                shutil.rmtree(output)
            print(f"round {number}: {way}: {one.wall_s:.1f} s, {one.cpu_s:.1f} CPU s", file=sys.stderr)
    return found


def table(found: dict[str, list[Taken]]) -> Iterator[str]:
    """Yield the rows of the table."""
    yield "| | wall s | x cp | x PEFT | CPU s | x PEFT | peak MB |"
    yield "|---|---|---|---|---|---|---|"
    for way, all_of_it in found.items():
        wall, cpu = (statistics.median(one[place] for one in all_of_it) for place in (0, 1))
        peak = max(one.peak_mb for one in all_of_it)
        by_copy = ratio(all_of_it, found[COPY], 0)
        by_peft = [ratio(all_of_it, found[ACCURATE], place) for place in (0, 1)] if ACCURATE in found else ["", ""]
        yield f"| {way} | {wall:.2f} | {by_copy} | {by_peft[0]} | {cpu:.2f} | {by_peft[1]} | {peak:.0f} |"


def ratio(ones: list[Taken], others: list[Taken], place: int) -> str:
    """Return the median of the ratios of each round."""
    return f"{statistics.median(one[place] / other[place] for one, other in zip(ones, others, strict=True)):.2f}"


def differences(folder: Path) -> Iterator[str]:
    """Merge in both modes with both kinds of kernels, and yield how they differ from PEFT's and from 64 bits."""
    base, adapter, output = str(folder / "base"), str(folder / "adapter"), folder / "out"
    for mode, way in (("accurate", ACCURATE), ("peft", SEED)):
        theirs = folder / way.strip("`").rpartition("`")[2]
        for kernels in ({}, {"OPENBLAS_CORETYPE": "Haswell"}):
            argv = [sys.executable, "-m", "cloudtune", "merge", base, adapter, "-o", str(output), "--mode", mode]
            taken([*argv, "--no-checksums"], **kernels)
            different, count = part("compare", str(output), str(theirs))
            wrong, looked_at = part("misrounded", base, adapter, str(output))
            note = " (kernels for AVX2)" if kernels else ""
            yield (
                f"mode {mode}{note}: {different} of {count:,} elements differ from PEFT's; "
                f"{wrong / looked_at:.1e} of {looked_at:,} are not the sum in 64 bits, rounded"
            )
            shutil.rmtree(output)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where three times the model may lie for a while")
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count (default: 3)")
    parser.add_argument("--without-peft", action="store_true", help="cp and cloudtune alone")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        name, *arguments = options.part
        PARTS[name](*([Path(arguments[0]), *arguments[1:]] if name == "make" else arguments))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch)
        part("make", str(folder), options.size)
        found = measure(folder, options.rounds, not options.without_peft)
        print("\n".join(table(found)))
        if not options.without_peft:
            print("\n".join(["", *differences(folder)]))
    print(f"\nload average {os.getloadavg()[1]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
