"""Checkpoints cut for Trainium come out whole, bit for bit. No file written by Neuron hardware could be tried."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cloudtune.errors import UsageError
from cloudtune.weights.consolidate.layouts import neuron
from cloudtune.weights.files.assembly import Made, stream
from cloudtune.weights.files.folder import folder_at

pytestmark = pytest.mark.heavy
torch = pytest.importorskip("torch")

from tests.weights.consolidate.layouts.cut_for_neuron import Recipe, write  # noqa: E402 - it needs torch
from tests.weights.consolidate.layouts.made_whole import (  # noqa: E402
    GROUPED,
    TYPES,
    bytes_of,
    check,
    consolidated,
    edit_metadata,
    edit_rank,
    plain,
    theirs,
)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    tp = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    groups = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    copies = draw(st.sampled_from([1, 2, 3, 4, 8]))
    share = draw(st.integers(1, 3))
    grouped = groups < tp or groups % tp != 0
    if grouped:
        assume(groups * copies % tp == 0 and groups * copies // tp <= groups)
        assume(groups % (groups * copies // tp) == 0)
        heads = groups * copies * share
    else:
        copies, heads = 1, groups * share
    targets = draw(
        st.one_of(
            st.just(()), st.sets(st.sampled_from(["qkv", "o_proj", "mlp", "embed_tokens"]), min_size=1).map(tuple)
        )
    )
    return Recipe(
        tp=tp,
        pp=draw(st.sampled_from([1, 1, 2])),
        heads=heads,
        groups=groups,
        copies=copies,
        head=draw(st.sampled_from([2, 3, 8])),
        hidden=draw(st.integers(1, 9)),
        inner=tp * draw(st.integers(1, 5)),
        vocabulary=tp * draw(st.integers(1, 5)),
        layers=2,
        fuse_qkv=draw(st.booleans()),
        xser=draw(st.booleans()),
        tied=draw(st.booleans()),
        bias=draw(st.booleans()),
        dtype=draw(st.sampled_from(list(TYPES))),
        seed=draw(st.integers(0, 2**31)),
        targets=tuple(sorted(targets)),
        adapter=draw(st.sampled_from(["default", "mine", "q_proj"])),
        beside=draw(st.sampled_from([(), ("other",)])),
        lora_rank=draw(st.integers(1, 3)),
    )


@given(recipe=recipes())
@settings(max_examples=120, deadline=None)
def test_whatever_was_cut_comes_out_whole(tmp_path_factory, recipe):
    folder = tmp_path_factory.mktemp("neuron")
    check(folder, recipe)
    shutil.rmtree(folder)


@pytest.mark.parametrize("fuse_qkv", [False, True])
@pytest.mark.parametrize("pp", [1, 2])
def test_checkpoints_of_before_release_0_2_are_read_too(tmp_path, fuse_qkv, pp):
    check(tmp_path / "plain", Recipe(old=True, pp=pp))
    check(tmp_path / "grouped", Recipe(old=True, pp=pp, fuse_qkv=fuse_qkv, xser=True, **GROUPED))
    check(tmp_path / "adapter", Recipe(old=True, pp=pp, targets=("qkv",)))


def test_an_old_adapter_on_repeated_heads_is_refused(tmp_path):
    write(tmp_path, Recipe(old=True, targets=("qkv",), **GROUPED))
    with pytest.raises(UsageError, match="attention whose key heads are repeated"):
        consolidated(tmp_path)


def test_embeddings_that_are_the_output_too_are_written_once(tmp_path):
    for number, recipe in enumerate(
        [Recipe(tied=True), Recipe(tied=True, pp=2, xser=True), Recipe(tied=True, old=True)]
    ):
        found = check(tmp_path / f"{number}", recipe)
        assert found.notes == ("lm_head.weight is the input embeddings, and left out as in files of Hugging Face",)
    with pytest.raises(UsageError, match=r"does not say how lm_head.weight"):
        consolidated(tmp_path / "0", config={"tie_word_embeddings": False})


def test_an_adapter_with_its_config_and_its_base(tmp_path):
    recipe = Recipe(targets=("qkv", "mlp"), adapter="mine", beside=("other",))
    found = check(tmp_path, recipe)
    assert found.adapter is not None
    assert found.adapter["r"] == 2
    assert found.base == "the/base"
    for place in (tmp_path / "adapter_mine", tmp_path / "adapter_mine" / "adapter_shards"):
        again = consolidated(place)
        assert again[0].tensors.keys() == found.tensors.keys()
        assert again[0].adapter is not None


def test_modules_that_were_trained_whole_are_kept(tmp_path):
    write(tmp_path, Recipe(targets=("qkv",), layers=1))
    shards = tmp_path / "adapter_default" / "adapter_shards"
    head = torch.randn(6, 4).bfloat16()
    for rank in range(2):
        edit_rank(shards, lambda state, rank=rank: {**state, "base_model.model.lm_head.weight": head[3 * rank :][:3].clone()}, rank)  # fmt: skip
    cut = {"tensor_model_parallel": True, "partition_dim": 0, "partition_stride": 1, "num_partitions": 2}
    name = "base_model.model.lm_head.modules_to_save.default.weight"
    edit_metadata(shards, lambda metadata: metadata["parameters"].update({name: cut}))
    assert consolidated(tmp_path)[1]["base_model.model.lm_head.weight"] == plain(head)


def test_a_parameter_cut_with_a_stride_is_put_back_in_order(tmp_path):
    write(tmp_path, Recipe())
    whole = torch.arange(24.0).reshape(12, 2)
    parts = torch.split(whole, 2)  # 2 ranks with stride 3: a rank has every second slice
    for rank in range(2):
        edit_rank(tmp_path / "shards", lambda state, rank=rank: {**state, "extra": torch.cat(parts[rank::2])}, rank)
    cut = {"tensor_model_parallel": True, "partition_dim": 0, "partition_stride": 3, "num_partitions": 2}
    edit_metadata(tmp_path / "shards", lambda metadata: metadata["parameters"].update(extra=cut))
    assert consolidated(tmp_path)[1]["extra"] == plain(whole)


def test_rows_are_merged_in_blocks_however_large_the_model_is(tmp_path):
    write(tmp_path, Recipe(hidden=512, inner=4096, layers=1))
    with ExitStack() as opened:
        found = neuron.read(folder_at(str(tmp_path)), opened, config={})
        down = found.tensors["model.layers.0.mlp.down_proj.weight"]
        assert all(isinstance(piece, Made) for piece in down.pieces)
        assert max(len(block) for piece in down.pieces for block in stream(piece)) <= 1 << 20


def test_a_store_is_read_by_ranges(tmp_path):
    import fsspec

    originals = write(tmp_path, Recipe(xser=True, pp=2, **GROUPED))
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path / "shards"), "/neuron/shards", recursive=True)
    with ExitStack() as opened:
        found = neuron.read(folder_at("memory://neuron"), opened, config={})
        assert {name: bytes_of(part) for name, part in found.tensors.items()} == {
            name: plain(tensor)[2] for name, tensor in originals.items()
        }
    store.rm("/neuron", recursive=True)


def test_a_model_is_written_with_what_belongs_to_it(tmp_path):
    from cloudtune.weights.consolidate.verb import consolidate

    originals = write(tmp_path / "job", Recipe(pp=2, xser=True, **GROUPED))
    (tmp_path / "job" / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": False}))
    result = consolidate(str(tmp_path / "job"), str(tmp_path / "out"))
    assert (result.kind, result.tensors) == ("model", len(originals))
    assert (
        result.layout
        == "checkpoint of optimum-neuron for 8 tensor-parallel ranks in 2 pipeline stages, a file a tensor"
    )
    assert theirs(tmp_path / "out") == {name: plain(tensor) for name, tensor in originals.items()}


def test_an_adapter_is_written_as_peft_has_it(tmp_path):
    from cloudtune.weights.consolidate.verb import consolidate

    originals = write(tmp_path / "job", Recipe(targets=("embed_tokens", "mlp", "o_proj", "qkv"), xser=True, **GROUPED))
    for number, place in enumerate(["job", "job/adapter_default", "job/adapter_default/adapter_shards"]):
        result = consolidate(str(tmp_path / place), str(tmp_path / f"out{number}"))
        assert (result.kind, result.base) == ("adapter", "the/base")
        assert theirs(tmp_path / f"out{number}") == {name: plain(tensor) for name, tensor in originals.items()}
        assert json.loads((tmp_path / f"out{number}" / "adapter_config.json").read_text())["r"] == 2
