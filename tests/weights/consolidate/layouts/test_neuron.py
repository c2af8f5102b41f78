"""Checkpoints cut for Trainium come out whole, bit for bit; with its environment at hand, as optimum-neuron's own do.

CLOUDTUNE_NEURON_PYTHON names the Python of an environment with optimum-neuron[training], CLOUDTUNE_NEURON_OLD_PYTHON
one with release 0.2.0; docs/how-to/weights.md says how to make them. No file written by Neuron hardware could be tried.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cloudtune.errors import UsageError
from cloudtune.weights.consolidate.checkpoint import Checkpoint
from cloudtune.weights.consolidate.layouts import neuron
from cloudtune.weights.files.assembly import Made, stream
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.files.model import open_weights
from cloudtune.weights.files.parts import Part

pytestmark = pytest.mark.heavy
torch = pytest.importorskip("torch")

from tests.weights.consolidate.layouts.cut_for_neuron import Recipe, write  # noqa: E402 - it needs torch

TYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
ORACLE = os.environ.get("CLOUDTUNE_NEURON_PYTHON")
OLD_ORACLE = os.environ.get("CLOUDTUNE_NEURON_OLD_PYTHON")
GROUPED = {"tp": 8, "heads": 16, "groups": 2, "copies": 4}


def bytes_of(part: Part) -> bytes:
    return b"".join(bytes(block) for piece in part.pieces for block in stream(piece))


def plain(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], bytes]:
    return TYPES[tensor.dtype], tuple(tensor.shape), tensor.contiguous().view(torch.uint8).numpy().tobytes()


def consolidated(folder: Path, *, config: dict | None = None) -> tuple[Checkpoint, dict[str, tuple]]:
    """Return what a folder holds, with the bytes of each tensor."""
    with ExitStack() as opened:
        found = neuron.read(folder_at(str(folder)), opened, config=config or {})
        return found, {name: (part.dtype, part.shape, bytes_of(part)) for name, part in found.tensors.items()}


def check(folder: Path, recipe: Recipe) -> Checkpoint:
    """Write a checkpoint, and compare what comes out of it with what went in."""
    originals = write(folder, recipe)
    assert neuron.recognise(folder_at(str(folder)))
    found, tensors = consolidated(folder)
    assert tensors == {name: plain(tensor) for name, tensor in originals.items()}
    return found


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


# --- what is refused


def edit_metadata(shards: Path, change) -> None:
    path = shards / "mp_metadata_pp_rank_0.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def edit_rank(shards: Path, change, rank: int = 1) -> None:
    path = shards / "model" / f"dp_rank_00_tp_rank_{rank:02d}_pp_rank_00.pt"
    torch.save(change(torch.load(path)), path)


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


# --- optimum-neuron's own code

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


def theirs(folder: Path) -> dict[str, tuple]:
    """Return the tensors of the one file that optimum-neuron wrote."""
    place = next(folder.rglob("*.safetensors")).parent
    name = "adapter_model.safetensors" if (place / "adapter_model.safetensors").is_file() else "model.safetensors"
    with open_weights(folder_at(str(place)), single=name) as weights:
        return {one: (weights.tensor(one).dtype, weights.tensor(one).shape, weights.read(one)) for one in weights}
