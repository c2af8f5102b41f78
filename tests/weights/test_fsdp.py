"""Checkpoints that torch itself wrote on several ranks come out as torch itself reads them, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.errors import UsageError
from cloudtune.weights import fsdp
from cloudtune.weights.assembly import Made, stream
from cloudtune.weights.checkpoint import Checkpoint, Part
from cloudtune.weights.consolidate import consolidate
from cloudtune.weights.model import folder_at
from tests.weights.forging import TYPES, Saved, save

pytestmark = pytest.mark.heavy
torch = pytest.importorskip("torch")

from torch.distributed.checkpoint.format_utils import dcp_to_torch_save  # noqa: E402 - it needs torch

SCRIPT = Path(__file__).with_name("make_checkpoints.py")
KINDS = {"F32": np.float32, "BF16": np.uint16, "F16": np.float16, "I64": np.int64, "U8": np.uint8, "F64": np.float64}


@pytest.fixture(scope="module", params=[2, 4])
def made(request, tmp_path_factory) -> tuple[int, Path]:
    """Return a folder of checkpoints that so many ranks wrote."""
    world = request.param
    folder = tmp_path_factory.mktemp(f"ranks-{world}")
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(world), str(folder)], env=environ, stderr=subprocess.PIPE
        )
        for rank in range(world)
    ]
    for rank in ranks:
        _, said = rank.communicate(timeout=300)
        assert rank.returncode == 0, said.decode()[-3000:]
    return world, folder


def bytes_of(part: Part) -> bytes:
    return b"".join(bytes(block) for piece in part.pieces for block in stream(piece))


def plain(tensor) -> bytes:
    if not tensor.ndim:
        tensor = tensor.reshape(1)
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def as_torch_reads(folder: Path, scratch: Path) -> dict:
    dcp_to_torch_save(folder, scratch / "state.pt")
    return torch.load(scratch / "state.pt", weights_only=True)


def ours(folder: Path) -> tuple[Checkpoint, dict[str, tuple[str, tuple[int, ...], bytes]]]:
    with ExitStack() as opened:
        found = fsdp.read(folder_at(str(folder)), opened, config={})
        return found, {name: (part.dtype, part.shape, bytes_of(part)) for name, part in found.tensors.items()}


def check(folder: Path, wanted: dict) -> Checkpoint:
    found, tensors = ours(folder)
    wanted = {name: value for name, value in wanted.items() if isinstance(value, torch.Tensor)}
    assert tensors.keys() == wanted.keys()
    names = {f"torch.{name}": dtype for dtype, name in TYPES.items()} | {"torch.int8": "I8"}
    for name, value in wanted.items():
        assert tensors[name] == (names[str(value.dtype)], tuple(value.shape), plain(value)), name
    return found


@pytest.mark.parametrize("name", ["plain", "unflattened"])
def test_a_state_dict_saved_as_it_is(made, tmp_path, name):
    check(made[1] / name, as_torch_reads(made[1] / name, tmp_path))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("trainer", "trainer/checkpoint-5/pytorch_model_fsdp_0"),
        ("fsdp1", "fsdp1/pytorch_model_fsdp_0"),
        ("lora", "lora"),
    ],
)
def test_a_model_under_a_key(made, tmp_path, name, place):
    found = check(made[1] / name, as_torch_reads(made[1] / place, tmp_path)["model"])
    assert found.layout == f"PyTorch distributed checkpoint in {made[0]} files"


def test_a_model_beside_its_optimizer(made, tmp_path):
    found = check(made[1] / "app", as_torch_reads(made[1] / "app", tmp_path)["app"]["model"])
    assert any("not the model's were left out" in note for note in found.notes)


def test_wrappers_are_taken_off(made, tmp_path):
    state = as_torch_reads(made[1] / "wrapped", tmp_path)["model"]
    check(made[1] / "wrapped", {name.removeprefix("_orig_mod.module."): value for name, value in state.items()})


def test_tensors_of_all_types_cut_along_all_dimensions(made, tmp_path):
    found = check(made[1] / "tensors", as_torch_reads(made[1] / "tensors", tmp_path)["model"])
    # that rows are copied, and only columns are put together
    woven = {name for name, part in found.tensors.items() if any(isinstance(piece, Made) for piece in part.pieces)}
    assert woven
    assert not any(name.endswith((".0", ".same", ".plain")) for name in woven)


@pytest.mark.parametrize("name", ["tp_fsdp", "hsdp"])
def test_meshes_of_two_dimensions(made, tmp_path, name):
    if made[0] == 2:
        pytest.skip("a mesh of two dimensions takes four ranks")
    check(made[1] / name, as_torch_reads(made[1] / name, tmp_path)["model"])


def test_a_local_state_dict_is_refused(made):
    with pytest.raises(UsageError, match="flat parameter") as told:
        ours(made[1] / "fsdp1_local")
    assert "SHARDED_STATE_DICT" in (told.value.hint or "")


def test_an_adapter_is_found_in_a_whole_model(made, tmp_path):
    state = as_torch_reads(made[1] / "lora_with_base", tmp_path)["model"]
    consolidate(str(made[1] / "lora_with_base"), str(tmp_path / "out"))
    from safetensors.torch import load_file

    found = load_file(tmp_path / "out/adapter_model.safetensors")
    wanted = {name.replace(".default", ""): value for name, value in state.items() if ".lora_" in name}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@st.composite
def grids(draw):
    """Return a tensor and boxes that cover it: any uneven cuts of each dimension, as ranks of a mesh have them."""
    shape = tuple(draw(st.lists(st.integers(1, 7), max_size=3)))
    boxes = [((), ())]
    for length in shape:
        cuts = sorted({0, length, *draw(st.lists(st.integers(0, length), max_size=2))})
        boxes = [((*a, begin), (*n, end - begin)) for a, n in boxes for begin, end in pairwise(cuts)]
    dtype = draw(st.sampled_from(sorted(KINDS)))
    count = int(np.prod(shape)) * np.dtype(KINDS[dtype]).itemsize
    elements = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), KINDS[dtype]).reshape(shape)
    return Saved(elements, dtype, draw(st.permutations(boxes)))


@settings(max_examples=40, deadline=None)
@given(st.lists(grids(), min_size=1, max_size=4))
def test_whatever_torch_reads_is_read_alike(tmp_path_factory, tensors):
    folder = tmp_path_factory.mktemp("random")
    save(folder / "checkpoint", {f"t{number}": saved for number, saved in enumerate(tensors)})
    check(folder / "checkpoint", as_torch_reads(folder / "checkpoint", folder))


def test_casting_rounds_as_torch_does(tmp_path):
    from cloudtune.ranges import Reader
    from cloudtune.weights.assembly import Span
    from cloudtune.weights.casting import cast

    values = torch.randn(300_000, dtype=torch.float64) * 10.0 ** torch.randint(-44, 39, (300_000,), dtype=torch.float64)
    values[:4] = torch.tensor([float("inf"), float("-inf"), 0.0, -0.0])
    kinds = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
    for before, kind in kinds.items():
        (tmp_path / before).write_bytes(plain(values.to(kind)))
        with Reader(str(tmp_path / before)) as reader:
            span = Span(reader=reader, offset=0, length=reader.size)
            part = Part(dtype=before, shape=(len(values),), pieces=(span,))
            for after in ("BF16", "F16", "F32"):
                assert bytes_of(cast(part, after)) == plain(values.to(kind).to(kinds[after])), (before, after)


FAMILIES = (
    "mixtral",
    "qwen3_moe",
    "deepseek_v3",
    "granitemoe",
    "ernie4_5_moe",
    "jamba",
    "gpt_oss",
    "llama",
    "qwen2_vl",
)


@pytest.mark.parametrize("family", FAMILIES)
def test_names_in_memory_become_those_of_files(tmp_path, family):
    """What transformers itself writes of a model, and what is made of that model's state dict, are the same."""
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 32, "pad_token_id": None}
    small |= {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "moe_intermediate_size": 12}
    small |= dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4)
    small |= {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "q_lora_rank": 8, "kv_lora_rank": 8}
    if family == "qwen2_vl":
        vision = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 16, "mlp_ratio": 2}
        config = transformers.Qwen2VLConfig(text_config=small, vision_config=vision)
        model = transformers.Qwen2VLForConditionalGeneration(config)
    else:
        config = transformers.AutoConfig.for_model(family, **small)
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "base")
    torch.save({"model": model.state_dict()}, tmp_path / "state.pt")
    consolidate(str(tmp_path / "state.pt"), str(tmp_path / "out"), base=str(tmp_path / "base"))
    ours, theirs = (load_file(tmp_path / place / "model.safetensors") for place in ("out", "base"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
