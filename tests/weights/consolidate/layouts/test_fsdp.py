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
from cloudtune.ranges import Reader
from cloudtune.weights.consolidate.checkpoint import Checkpoint
from cloudtune.weights.consolidate.layouts import fsdp
from cloudtune.weights.consolidate.verb import consolidate
from cloudtune.weights.files.assembly import Made, stream
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.files.parts import Part
from cloudtune.weights.files.torchfiles import read_torch
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
    from cloudtune.weights.consolidate.casting import cast
    from cloudtune.weights.files.assembly import Span

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


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_files_of_torch_are_read(tmp_path, protocol):
    matrix = torch.arange(24.0).reshape(4, 6)
    marked = torch.nn.Parameter(torch.randn(3, 2))
    marked.tensor_model_parallel = True
    state = {
        "matrix": matrix,
        "rows": matrix[1:3],
        "marked": marked,
        "module": torch.nn.Linear(3, 5).bfloat16().state_dict(),
        "float8": torch.randn(7).to(torch.float8_e4m3fn),
        "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
        "complex": torch.randn(2, dtype=torch.complex64),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "bools": torch.tensor([True, False]),
        "values": [1, 2.5, "x", None, True, torch.bfloat16, torch.Size([1, 2]), torch.device("cpu"), b"bytes"],
    }
    torch.save(state, tmp_path / "file.pt", pickle_protocol=protocol)
    data = (tmp_path / "file.pt").read_bytes()
    with Reader(str(tmp_path / "file.pt")) as reader:
        found = read_torch(reader)
    assert found["values"][6] == (1, 2)
    assert found.pop("values")[:5] == state.pop("values")[:5]
    found |= {f"module.{name}": value for name, value in found.pop("module").items()}
    state |= {f"module.{name}": value for name, value in state.pop("module").items()}
    assert found.keys() == state.keys()
    for name, value in state.items():
        part = found[name]
        assert part.shape == tuple(value.shape), name
        assert part.contiguous
        assert data[part.offset : part.offset + part.length] == plain(value.detach()), name


def test_files_that_torch_wrote_otherwise_are_refused(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.zeros(4, 6).t()}, tmp_path / "strided.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    torch.save({"a": torch.sparse_coo_tensor([[0], [1]], [1.0], (2, 2), check_invariants=True)}, tmp_path / "sparse.pt")
    for name, reason in {
        "old.pt": "older than torch 1.6",
        "strided.pt": "not contiguous",
        "module.pt": "asks for torch.nn.modules.linear.Linear",
        "sparse.pt": "asks for torch._utils._rebuild_sparse_tensor",
    }.items():
        with pytest.raises(UsageError, match=reason):
            consolidate(str(tmp_path / name), str(tmp_path / "out"))
