"""Models in folders: tensors by name over all shards, and what is wrong with the files told before one is read."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtune.errors import ServiceError, UsageError
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.files.model import open_weights, shard_names, survey
from tests.processes import open_below
from tests.weights.making import shard_bytes, write_model

TENSORS = {
    "model-00001-of-00002.safetensors": {"a": ("U8", (3,), b"abc"), "empty": ("F32", (0, 5), b"")},
    "model-00002-of-00002.safetensors": {"b": ("BF16", (), b"\1\2"), "ü😀": ("I64", (1,), b"12345678")},
}
INDEX = "model.safetensors.index.json"


@pytest.fixture(params=["file", "memory"])
def uri(request, tmp_path):
    """Return the URI of a model in two shards, here and elsewhere."""
    write_model(tmp_path / "model", TENSORS)
    if request.param == "file":
        return str(tmp_path / "model")
    place = f"memory://{uuid.uuid4().hex}/model"
    files = fsspec.filesystem("memory")
    for path in (tmp_path / "model").iterdir():
        files.pipe_file(f"{place.removeprefix('memory:/')}/{path.name}", path.read_bytes())
    return place


def test_tensors_are_found_over_all_shards(uri):
    folder = folder_at(uri)
    assert shard_names(folder) == tuple(TENSORS)
    with open_weights(folder) as weights:
        assert list(weights) == ["a", "empty", "b", "ü😀"]
        assert "b" in weights
        assert "c" not in weights
        for held in TENSORS.values():
            for name, (dtype, shape, data) in held.items():
                assert (weights.tensor(name).dtype, weights.tensor(name).shape) == (dtype, shape)
                assert weights.read(name) == data
        with pytest.raises(KeyError):
            weights.tensor("c")


def test_one_file_needs_no_index(tmp_path):
    for name in ("model", "adapter_model"):
        (tmp_path / f"{name}.safetensors").write_bytes(shard_bytes({name: ("U8", (1,), b"x")}))
    with open_weights(folder_at(str(tmp_path))) as weights:
        assert list(weights) == ["model"]
    with open_weights(folder_at(f"file://{tmp_path}/"), single="adapter_model.safetensors") as weights:
        assert list(weights) == ["adapter_model"]


def test_an_index_may_name_the_single_file(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(shard_bytes({"a": ("U8", (1,), b"x")}))
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    with open_weights(folder_at(str(tmp_path))) as weights:
        assert weights.read("a") == b"x"


def change_index(folder: Path, **changes: object) -> None:
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps({**index, "weight_map": {**index["weight_map"], **changes}}))


def missing(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()


def cut(folder: Path) -> None:
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def misplaced(folder: Path) -> None:
    change_index(folder, b="model-00001-of-00002.safetensors")


def listed_only(folder: Path) -> None:
    change_index(folder, c="model-00001-of-00002.safetensors")


def unlisted(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))


def doubled(folder: Path) -> None:
    name = "model-00002-of-00002.safetensors"
    (folder / name).write_bytes(shard_bytes({**TENSORS[name], "a": ("U8", (1,), b"x")}))


def two(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(shard_bytes({"a": ("U8", (1,), b"x")}))


def upwards(folder: Path) -> None:
    (folder.parent / "other.safetensors").write_bytes(shard_bytes({"c": ("U8", (1,), b"x")}))
    change_index(folder, c="../other.safetensors")


def below(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub/other.safetensors").write_bytes(shard_bytes({"c": ("U8", (1,), b"x")}))
    change_index(folder, c="sub/other.safetensors")


def absolute(folder: Path) -> None:
    change_index(folder, c="/etc/passwd")


def config_as_shard(folder: Path) -> None:
    (folder / "config.json").write_text("{}" + " " * 100)
    change_index(folder, c="config.json")


def no_names(folder: Path) -> None:
    change_index(folder, a=1)


def nameless(folder: Path) -> None:
    change_index(folder, a="")


def no_map(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}}))


def empty_map(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {}}))


def no_object(folder: Path) -> None:
    (folder / INDEX).write_text("[]")


def no_json(folder: Path) -> None:
    (folder / INDEX).write_text("{")


def no_text(folder: Path) -> None:
    (folder / INDEX).write_bytes(b"\xff\xfe\x00")


def deep(folder: Path) -> None:
    (folder / INDEX).write_text("[" * 10**6)


def long_number(folder: Path) -> None:
    (folder / INDEX).write_text('{"a": ' + "9" * 10**5 + "}")


def much(folder: Path) -> None:
    (folder / INDEX).write_text("[" + "[]," * (2 * 10**6) + "[]]")


def huge(folder: Path) -> None:
    with (folder / INDEX).open("wb") as file:
        file.truncate(1 << 40)


def no_weights(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (missing, "names model-00002-of-00002.safetensors, which is not there"),
        (cut, "model-00002-of-00002.safetensors is no whole safetensors file"),
        (misplaced, "says that b is in model-00001-of-00002.safetensors, and it is not"),
        (listed_only, "says that c is in model-00001-of-00002.safetensors, and it is not"),
        (unlisted, "is in model-00001-of-00002.safetensors, and not in"),
        (doubled, "a is in model-00001-of-00002.safetensors and in model-00002-of-00002.safetensors"),
        (two, "model.safetensors is there, and model.safetensors.index.json names other files"),
        (upwards, "names ../other.safetensors, which is not there"),
        (below, "names sub/other.safetensors, which is not there"),
        (absolute, "names /etc/passwd, which is not there"),
        (config_as_shard, "config.json is no whole safetensors file"),
        (no_names, "has no weight_map"),
        (nameless, "names , which is not there"),
        (no_map, "has no weight_map"),
        (empty_map, "has no weight_map"),
        (no_object, "holds no JSON object"),
        (no_json, "cannot be read"),
        (no_text, "cannot be read"),
        (deep, "nested too deep"),
        (long_number, "cannot be read"),
        (much, "holds too much"),
        (huge, "has 1099511627776 bytes"),
        (no_weights, "has no model.safetensors and no model.safetensors.index.json"),
    ],
)
def test_what_is_wrong_with_the_files_is_told_and_nothing_stays_open(tmp_path, change, said):
    folder = tmp_path / "model"
    write_model(folder, TENSORS)
    change(folder)
    with pytest.raises(UsageError) as raised:
        open_weights(folder_at(str(folder)))
    assert said in str(raised.value)
    assert raised.value.hint
    weights, flaws = survey(folder_at(str(folder)))
    assert said in " ".join(flaw.message for flaw in flaws)
    weights.close()
    assert open_below(tmp_path) == []


def test_all_faults_are_told_at_once_and_what_is_whole_is_open(tmp_path):
    write_model(tmp_path / "model", TENSORS)
    cut(tmp_path / "model")
    misplaced(tmp_path / "model")
    change_index(tmp_path / "model", c="gone.safetensors")
    weights, flaws = survey(folder_at(str(tmp_path / "model")))
    with weights:
        assert [flaw.kind for flaw in flaws] == ["missing", "header", "misplaced"]
        assert weights.read("a") == b"abc"


def test_an_index_of_a_hundred_thousand_missing_files_takes_no_hours(tmp_path):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {str(number): str(number) for number in range(10**5)}}))
    assert len(survey(folder_at(str(tmp_path)))[1]) == 10**5


def test_a_place_that_fails_is_a_fault_of_the_place(tmp_path):
    write_model(tmp_path / "model", TENSORS)
    folder = folder_at(str(tmp_path / "model"))
    missing(tmp_path / "model")  # after it was listed
    with pytest.raises(ServiceError, match="nothing at"):
        open_weights(folder)
    assert open_below(tmp_path) == []


def test_what_to_do_about_a_folder_without_safetensors(tmp_path):
    assert "name the folder of a model" in hint(tmp_path)
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/config.json").write_text("{}")
    assert f"a model is in {tmp_path / 'a/b'}" in hint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert "pickles" in hint(tmp_path)
    (tmp_path / "__0_0.distcp").write_bytes(b"")
    assert "cloudtune consolidate" in hint(tmp_path)


def hint(folder: Path) -> str:
    with pytest.raises(UsageError) as raised:
        open_weights(folder_at(str(folder)))
    return raised.value.hint or ""


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_INDEX = st.fixed_dictionaries(
    {}, optional={"weight_map": st.dictionaries(st.sampled_from(["a", "b"]), _ANY, max_size=2) | _ANY, "metadata": _ANY}
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=_INDEX | _ANY)
def test_any_index_is_read_or_refused(tmp_path, index):
    folder = tmp_path / "any"
    if not folder.is_dir():
        write_model(folder, TENSORS)
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(UsageError):
        open_weights(folder_at(str(folder)))
