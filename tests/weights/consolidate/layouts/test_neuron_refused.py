"""What is wrong with a checkpoint that was cut for Trainium is told before anything is written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtune.errors import UsageError
from cloudtune.weights.consolidate.layouts import neuron
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.files.model import open_weights

pytestmark = pytest.mark.heavy
torch = pytest.importorskip("torch")

from tests.weights.consolidate.layouts.cut_for_neuron import Recipe, write  # noqa: E402 - it needs torch
from tests.weights.consolidate.layouts.made_whole import GROUPED, consolidated, edit_metadata, edit_rank  # noqa: E402


def without(shards: Path, name: str) -> None:
    (shards / name).unlink()


def narrowed(state):
    return {**state, "model.norm.weight": state["model.norm.weight"][:3].clone()}


def a_spec(metadata, **values):
    metadata["model_weight_transformation_specs"][0]["specs"][0][1].update(values)


def renamed(metadata):
    metadata["model_weight_transformation_specs"][0]["specs"][0][0] = "MixtureOfExpertsSpec"


FAULTS = {
    "a rank is missing": (
        lambda at: without(at, "model/dp_rank_00_tp_rank_00_pp_rank_00.pt"),
        "dp_rank_00_tp_rank_00_pp_rank_00.pt is missing: 1 x 2 ranks",
    ),
    "the last rank is missing": (
        lambda at: without(at, "model/dp_rank_00_tp_rank_01_pp_rank_00.pt"),
        "was cut for 2 ranks, and 1 have files here",
    ),
    "no metadata": (lambda at: without(at, "mp_metadata_pp_rank_0.json"), "which says how the shards were cut"),
    "a stage is missing": (
        lambda at: shutil.copy(at / "mp_metadata_pp_rank_0.json", at / "mp_metadata_pp_rank_1.json"),
        "metadata of more pipeline stages",
    ),
    "not saved to its end": (lambda at: without(at, "done"), "was not saved to its end"),
    "trn_config.json says otherwise": (
        lambda at: (at.parent / "trn_config.json").write_text('{"tensor_parallel_size": 4}'),
        "tensor_parallel_size 4, and 2 have files here",
    ),
    "a shape that does not fit": (lambda at: edit_rank(at, narrowed), "model.norm.weight of .* cannot be made whole"),
    "a type that does not fit": (
        lambda at: edit_rank(at, lambda state: {name: tensor.float() for name, tensor in state.items()}),
        "cannot be made whole: .*BF16.*F32",
    ),
    "a tensor on one rank only": (
        lambda at: edit_rank(at, lambda state: {**state, "more": state["model.norm.weight"]}),
        "more is in the files of some ranks only",
    ),
    "a tensor that nothing is known of": (
        lambda at: [edit_rank(at, lambda state: {**state, "more": torch.ones(1)}, rank) for rank in range(2)],
        "does not say how more of",
    ),
    "a tensor that is not saved": (
        lambda at: edit_metadata(at, lambda metadata: metadata["parameters"].update(more={"tensor_model_parallel": False})),
        "more is in the metadata, and not in",
    ),
    "a tensor without bytes": (
        lambda at: [edit_rank(at, lambda s: {**s, "model.norm.weight": torch.empty(8, device="meta")}, r) for r in (0, 1)],
        "model.norm.weight has no bytes in",
    ),
    "a transformation that is not known": (
        lambda at: edit_metadata(at, renamed),
        "transformation that is not known: MixtureOfExpertsSpec",
    ),
    "metadata of another release": (
        lambda at: edit_metadata(at, lambda metadata: metadata.update(version=2)),
        "is of an unknown release: it has .*version",
    ),
    "a key of another release": (
        lambda at: edit_metadata(at, lambda metadata: metadata["parameters"]["model.norm.weight"].update(twist=1)),
        "unknown release: model.norm.weight has twist",
    ),
    "metadata that is no object": (
        lambda at: edit_metadata(at, lambda metadata: metadata.update(parameters=[])),
        "cannot be understood: it has something else where names are due",
    ),
    "a number that is none": (
        lambda at: edit_metadata(at, lambda metadata: a_spec(metadata, original_dims=[16.5, 16])),
        "cannot be understood: it has 16.5",
    ),
    "a spec without a key": (
        lambda at: edit_metadata(at, lambda m: m["model_weight_transformation_specs"][0]["specs"][0][1].pop("linear_names")),
        "cannot be understood: has no 'linear_names'",
    ),
    "an adapter that is not LoRA": (
        lambda at: edit_metadata(at, lambda metadata: a_spec(metadata, peft_type="ia3")),
        "adapter of the kind 'ia3'",
    ),
    "lengths that do not add up": (
        lambda at: edit_metadata(at, lambda metadata: a_spec(metadata, original_dims=[8, 16])),
        "gate_up_proj.weight of .* cannot be made whole: .* 12 of dimension 0 are due",
    ),
    "experts": (
        lambda at: (at / "model" / "dp_rank_00_ep_rank_01_tp_rank_00_pp_rank_00.pt").touch(),
        "is of a model cut by experts",
    ),
    "no state dict": (lambda at: edit_rank(at, lambda state: [*state.values()]), "holds no tensors by name"),
    "a nested state dict": (lambda at: edit_rank(at, lambda state: {"model": state}, 0), "model is no tensor"),
    "a cut off file": (
        lambda at: os.truncate(at / "model" / "dp_rank_00_tp_rank_01_pp_rank_00.pt", 999),
        "dp_rank_00_tp_rank_01_pp_rank_00.pt",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_told_before_anything_is_written(tmp_path, fault):
    change, message = FAULTS[fault]
    write(tmp_path, Recipe())
    change(tmp_path / "shards")
    with pytest.raises(UsageError, match=message) as error:
        consolidated(tmp_path)
    assert error.value.hint


def test_a_file_of_a_tensor_that_is_missing_is_told(tmp_path):
    write(tmp_path, Recipe(xser=True))
    (tmp_path / "shards/model/dp_rank_00_tp_rank_01_pp_rank_00.pt.tensors/tensor_3.pt").unlink()
    with pytest.raises(UsageError, match=r"tensor_3.pt is missing"):
        consolidated(tmp_path)


def test_grouped_heads_that_no_ranks_can_have_are_refused(tmp_path):
    write(tmp_path, Recipe(**GROUPED))
    edit_metadata(tmp_path / "shards", lambda metadata: a_spec(metadata, kv_size_multiplier=3))
    with pytest.raises(UsageError, match="2 key heads, 3 times each, cannot be on 8 ranks"):
        consolidated(tmp_path)


def test_a_hostile_file_of_a_rank_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, ("touch hacked",)

    write(tmp_path, Recipe())
    torch.save({"x": Hostile()}, tmp_path / "shards/model/dp_rank_00_tp_rank_01_pp_rank_00.pt")
    with pytest.raises(UsageError, match=r"asks for \w+.system: it is hostile"):
        consolidated(tmp_path)
    assert not Path("hacked").exists()


def test_several_checkpoints_in_a_folder_are_asked_about(tmp_path):
    for name in ("checkpoint-9", "checkpoint-10"):
        write(tmp_path / name, Recipe(layers=1))
    assert neuron.recognise(folder_at(str(tmp_path)))
    with pytest.raises(UsageError, match="but 2 below it") as error:
        consolidated(tmp_path)
    assert "checkpoint-10" in str(error.value.hint)
    for name in ("one", "two"):
        write(tmp_path / "both", Recipe(layers=1, targets=("qkv",), adapter=name))
    with pytest.raises(UsageError, match="holds 2 adapters") as error:
        consolidated(tmp_path / "both")
    assert "adapter_two" in str(error.value.hint)


def test_a_model_with_adapters_beside_it_is_the_model(tmp_path):
    write(tmp_path, Recipe(targets=("qkv",)))
    originals = write(tmp_path, Recipe())
    found, tensors = consolidated(tmp_path)
    assert tensors.keys() == originals.keys()
    assert "adapter_default/adapter_shards holds other shards" in found.notes[0]


def test_whoever_takes_it_for_a_model_is_told_what_to_do(tmp_path):
    write(tmp_path, Recipe(layers=1))
    with pytest.raises(UsageError) as error:
        open_weights(folder_at(str(tmp_path)))
    assert "cloudtune consolidate" in str(error.value.hint)


def test_other_folders_are_not_taken_for_it(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tp_rank_00_pp_rank_00.pt").touch()
    (tmp_path / "__0_0.distcp").touch()
    assert not neuron.recognise(folder_at(str(tmp_path)))


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fused")
    write(folder, Recipe(fuse_qkv=True, layers=1, **GROUPED))
    return folder, (folder / "shards" / "mp_metadata_pp_rank_0.json").read_text()


def places(value, path=()):
    """Yield the path of everything in a JSON value."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in pairs:
        yield from places(one, (*path, key))


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 40), st.sampled_from([2**31, 2**70, -1.5, 1e300, "", "q_proj", "x" * 300]),
    st.just([]), st.just({}), st.lists(st.integers(0, 9), max_size=3),
)  # fmt: skip


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_no_metadata_does_more_than_be_refused(fused, data):
    folder, text = fused
    metadata = json.loads(text)
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from([one for one in places(metadata) if one]))
        goal = metadata
        for key in path:
            goal = goal[key]
        goal[last] = data.draw(JUNK)
    (folder / "shards" / "mp_metadata_pp_rank_0.json").write_text(json.dumps(metadata))
    try:
        consolidated(folder)
    except UsageError as error:
        assert error.hint  # noqa: PT017 - most are refused, some changes do no harm
