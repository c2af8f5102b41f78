"""Models filed in a folder of this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudtune import registries
from cloudtune.checksums import checksums
from cloudtune.errors import CloudtuneError, ServiceError, UsageError
from cloudtune.registries import folder as registry
from cloudtune.registries import source, workplace
from cloudtune.store import Store
from tests.registries.models import described, in_memory, merged, safetensors


def filed_at(place):
    """Return the record in a version's folder, and the checksums of what lies beside it."""
    sums = checksums(place)
    del sums[registry.FILED]
    return json.loads((place / registry.FILED).read_text()), sums


def on_shelf(home, name="mine"):
    """Return all names on a model's shelf, hidden ones too."""
    return sorted(path.name for path in (home / "models" / name).iterdir())


@pytest.fixture
def model(tmp_path):
    return merged(tmp_path / "merged")


def test_a_model_is_filed_with_what_is_known_of_it(model, home):
    filed = registry.register(str(model), name="mine", home=home)
    place = home / "models" / "mine" / "1"
    assert (filed.name, filed.version, filed.uri) == ("mine", "1", f"file://{place}")
    assert (filed.base, filed.run) == ("org/base", "abc12345")
    assert filed.metrics == {"eval_loss_before": 3.0, "eval_loss": 1.0}
    assert set(filed.checksums) == {"config.json", "model.safetensors", "cloudtune.json"}
    assert filed_at(place) == (filed.to_dict(), dict(filed.checksums))
    assert not (place / "logs").exists()


def test_versions_count_up_and_may_be_named(model, home):
    versions = [registry.register(model, name="mine", home=home).version for _ in range(2)]
    assert registry.register(model, name="mine", version="2.1-beta", home=home).version == "2.1-beta"
    (home / "models" / "mine" / "²").mkdir()  # a digit, and no number
    assert [*versions, registry.register(model, name="mine", home=home).version] == ["1", "2", "3"]
    with pytest.raises(UsageError, match=r"has a version 2\.1-beta already"):
        registry.register(model, name="mine", version="2.1-beta", home=home)


def test_many_at_once_get_versions_of_their_own(model, home):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: registry.register(model, name="mine", home=home), range(24)))
    assert sorted(int(one.version) for one in found) == list(range(1, 25))
    shelf = home / "models" / "mine"
    assert sorted(path.name for path in shelf.iterdir()) == sorted(one.version for one in found)
    assert all(filed_at(shelf / one.version)[0] == one.to_dict() for one in found)


def test_a_training_beside_an_adapter_or_a_full_model_is_found(tmp_path, home):
    outputs = tmp_path / "outputs"
    (outputs / "model").mkdir(parents=True)
    (outputs / "model" / "config.json").write_text("{}")
    (outputs / "model" / "model.safetensors").write_bytes(safetensors())
    (outputs / "training.json").write_text('{"base": "b", "run": "r"}')
    (outputs / "metrics.json").write_text('{"eval_loss": 2}')
    filed = registry.register(f"file://{outputs}", name="full", home=home)
    assert (filed.base, filed.run, filed.metrics) == ("b", "r", {"eval_loss": 2})


def test_the_source_may_go_and_the_model_stays(model, home):
    filed = registry.register(model, name="mine", home=home)
    (model / "model.safetensors").unlink()
    (model / "config.json").write_text("changed")
    assert filed_at(home / "models" / "mine" / "1") == (filed.to_dict(), dict(filed.checksums))


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a b", "x" * 101])
def test_names_that_are_no_folder(name, model, home):
    with pytest.raises(UsageError, match="cannot be the name of a model"):
        registry.register(model, name=name, home=home)
    with pytest.raises(UsageError, match="cannot be the version of a model"):
        registry.register(model, name="mine", version=name, home=home)
    assert not (home / "models" / "mine").exists()


def test_what_is_no_model(tmp_path, home):
    with pytest.raises(UsageError, match="there is no folder"):
        registry.register(str(tmp_path / "nothing"), name="m", home=home)
    with pytest.raises(UsageError, match=r"no config\.json"):
        registry.register(str(tmp_path), name="m", home=home)
    (tmp_path / "config.json").touch()
    with pytest.raises(UsageError, match="no weights"):
        registry.register(str(tmp_path), name="m", home=home)
    assert not (home / "models").exists()


def test_a_copy_that_differs_is_refused(model, home, monkeypatch):
    monkeypatch.setattr(workplace, "_write", lambda file, chunk: file.write(bytes(len(chunk))))
    with pytest.raises(CloudtuneError, match="is not equal to it"):
        registry.register(model, name="mine", home=home)
    assert on_shelf(home) == []


def test_a_file_that_is_not_what_its_record_says_is_refused(model, home):
    described(model)
    assert registry.register(model, name="mine", home=home).version == "1"
    for name in ("model.safetensors", "config.json"):
        kept = (model / name).read_bytes()
        (model / name).write_bytes(kept[:-1] + b"x")
        with pytest.raises(UsageError, match=rf"merged/{name} is not the file that cloudtune\.json .* records"):
            registry.register(model, name="mine", home=home)
        (model / name).write_bytes(kept)
    (model / "model.safetensors").unlink()
    (model / "other.safetensors").write_bytes(safetensors())
    with pytest.raises(UsageError, match=r"names model\.safetensors, which is not there"):
        registry.register(model, name="mine", home=home)
    assert on_shelf(home) == ["1"]


@pytest.mark.parametrize(
    "broken",
    [
        safetensors()[:-1],  # cut off, as an interrupted download leaves it
        safetensors() + b"x",
        b"",
        safetensors().replace(b"[7]", b"[9]"),
        (1 << 40).to_bytes(8, "little") + b"{}",
    ],
)
def test_tensors_that_are_not_whole_are_refused(broken, model, home):
    (model / "model-2.safetensors").write_bytes(broken)
    with in_memory(model, "bucket/broken") as uri:
        for place in (model, uri):
            with pytest.raises(UsageError, match=r"model-2\.safetensors is no whole safetensors file: ") as caught:
                registry.register(place, name="mine", home=home)
            assert "copy it again" in str(caught.value)
    assert not (home / "models").exists()


def test_what_git_lfs_leaves_in_place_of_tensors_is_told(model, home):
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n")
    with pytest.raises(UsageError, match=r"model\.safetensors is a pointer of Git LFS, .*\n  hint: .*git lfs pull"):
        registry.register(model, name="mine", home=home)


def test_a_missing_shard_is_noticed(model, home):
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match=r"index\.json names model-2\.safetensors, which is not there"):
        registry.register(model, name="mine", home=home)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "no JSON object"),
        ('{"checksums": ["a"]}', "no object"),
        ('{"checksums": {"config.json": "abc"}}', r"no sha256 for config\.json"),
        ('{"checksums": {"../config.json": "' + "a" * 64 + '"}}', "no file of a model"),
        ('{"checksums": {"/etc/passwd": "' + "a" * 64 + '"}}', "no file of a model"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(record, said, model, home):
    (model / "cloudtune.json").write_text(record)
    with pytest.raises(UsageError, match=said):
        registry.register(model, name="mine", home=home)


def test_a_folder_below_is_filed_if_the_record_names_its_files(model, home):
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text("{}")
    described(model, "1_Pooling/config.json")
    filed = registry.register(model, name="mine", home=home)
    assert "1_Pooling/config.json" in filed.checksums
    assert filed_at(home / "models" / "mine" / "1")[1] == filed.checksums


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that cannot be read is there on Linux")
def test_a_disk_that_does_not_read_is_said(model, home):
    (model / "tokenizer.json").symlink_to("/proc/self/mem")
    with pytest.raises(ServiceError, match=r"tokenizer\.json: .*Input/output error"):
        registry.register(model, name="mine", home=home)
    assert on_shelf(home) == []


KILLED = """
import os, signal, sys
from cloudtune import registries
from cloudtune.registries import source, workplace
from cloudtune.store import Store

def write(file, chunk, *, write=workplace._write, count=[]):
    count.append(1)
    if len(count) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write(file, chunk)

workplace._write = write
registries.register(sys.argv[1], to="folder", name="mine", version=None, store=Store())
"""


def test_what_a_killed_process_left_is_cleared_away(model, home):
    assert subprocess.run([sys.executable, "-c", KILLED, model], check=False).returncode == -signal.SIGKILL
    left = on_shelf(home)
    assert [Path(name).suffix for name in left] == [".journal", ".part"]
    (home / "models" / "mine" / ".cloudtune-0123456789abcdef.part").mkdir()  # also of a release without journals
    filed = registry.register(model, name="mine", home=home)
    assert on_shelf(home) == ["1"]
    assert filed_at(home / "models" / "mine" / "1") == (filed.to_dict(), dict(filed.checksums))


def test_what_a_living_process_has_is_left_alone(model, home):
    found = source.find(model)
    shelf = home / "models" / "mine"
    with workplace.claimed(shelf, found) as place:
        place.gather(found)
        assert registry.register(model, name="mine", home=home).version == "1"
        assert (place.folder / "model.safetensors").exists()
        assert len(on_shelf(home)) == 3
    assert on_shelf(home) == ["1"]


def test_a_model_is_filed_from_a_bucket(model, home):
    (model / "extra.bin").write_bytes(bytes(range(256)) * 40_000)
    described(model)
    with in_memory(model, "bucket/model") as uri:
        filed = registry.register(uri.removesuffix("/model"), name="mine", home=home)
    assert filed.base == "org/base"
    assert filed_at(home / "models" / "mine" / "1") == (filed.to_dict(), checksums_of(model))
    with pytest.raises(UsageError, match="there is nothing at memory://bucket"):
        registry.register("memory://bucket", name="mine", home=home)


def checksums_of(model):
    return {path: sum_ for path, sum_ in checksums(model).items() if "/" not in path}


def test_a_transfer_that_was_cut_off_goes_on(model, home, monkeypatch):
    for number in range(6):
        (model / f"model-{number}.safetensors").write_bytes(safetensors(bytes([number]) * 1000))
    read, broken = [], {"model.safetensors"}
    chunks = source.Source.chunks

    def counted(self, entry):
        if entry.path in broken:
            raise ServiceError("connection reset", service="storage", operation="read")
        read.append(entry.path)
        return chunks(self, entry)

    monkeypatch.setattr(source.Source, "chunks", counted)
    monkeypatch.setattr(source, "_WORKERS", 1)  # so that all before the broken one are complete
    with in_memory(model, "bucket/cut") as uri:
        with pytest.raises(ServiceError, match="connection reset"):
            registry.register(uri, name="mine", home=home)
        assert [Path(name).suffix for name in on_shelf(home)] == [".journal", ".part"]
        first = set(read)
        broken.clear()
        read.clear()
        (part,) = (home / "models" / "mine").glob("*.part")
        spoilt = min(first)
        (part / spoilt).write_bytes((part / spoilt).read_bytes()[::-1] + b"x")  # as a crash of the machine may
        filed = registry.register(uri, name="mine", home=home)
    assert set(read) & first == {spoilt}
    assert len(first) == 8
    assert filed_at(home / "models" / "mine" / "1") == (filed.to_dict(), checksums_of(model))
    assert on_shelf(home) == ["1"]


def interrupted(shelf, found):
    with workplace.claimed(shelf, found) as place:
        place.gather(found)
        raise KeyboardInterrupt


def test_another_model_does_not_go_on_with_it(model, home, tmp_path):
    with in_memory(model, "bucket/one") as uri:
        found = source.find(uri)
        with pytest.raises(KeyboardInterrupt):
            interrupted(home / "models" / "mine", found)
    assert len(on_shelf(home)) == 2
    other = merged(tmp_path / "other", weights=b"other")
    filed = registry.register(other, name="mine", home=home)
    assert on_shelf(home) == ["1"]
    assert filed_at(home / "models" / "mine" / "1")[1] == filed.checksums == checksums_of(other)


def test_what_a_record_of_elsewhere_says_is_made_fit_to_be_kept(model, home):
    odd = {"base": "org/\udcff", "run": ["abc"], "metrics": {"loss": float("nan"), "of": "\ud800"}}
    (model / "cloudtune.json").write_text(json.dumps(odd))
    filed = registries.register(str(model), to="folder", name="mine", version=None, store=Store())
    assert (filed.base, filed.run, filed.metrics) == ("org/?", None, {"loss": None, "of": "?"})
    assert Store().models("mine") == (filed,)


def test_a_model_in_a_folder_of_any_name_is_filed_and_a_file_of_it_needs_a_name_that_is_text(model, home, tmp_path):
    place = model.rename(tmp_path / os.fsdecode(b"mod\xff"))
    (place / "tokenizer.json.part").write_text("{")  # a download that is not complete
    assert "tokenizer.json.part" not in registry.register(place, name="mine", home=home).checksums
    (place / os.fsdecode(b"tokenizer\xff.json")).write_text("{}")
    with pytest.raises(UsageError, match=r"a file whose name is no text in UTF-8: 'tokenizer\\udcff.json'"):
        registry.register(place, name="mine", home=home)


def test_rights_of_the_hub_are_not_for_folders(model, home):
    with pytest.raises(UsageError, match="--public is for the Hub"):
        registry.register(model, name="mine", public=True, home=home)


def test_a_model_goes_with_its_files_or_without(model, home):
    store = Store()
    one, two = (registries.register(str(model), to="folder", name="mine", version=None, store=store) for _ in range(2))
    registries.remove(one, store, files=False)
    assert (home / "models" / "mine" / "1").is_dir()
    registries.remove(two, store, files=True)
    assert [path.name for path in (home / "models" / "mine").iterdir()] == ["1"]
    assert store.models("mine") == ()


def test_a_model_whose_folder_is_gone_can_be_forgotten(model, home):
    store = Store()
    filed = registries.register(str(model), to="folder", name="mine", version=None, store=store)
    shutil.rmtree(home / "models" / "mine")
    registries.remove(filed, store, files=True)
    assert store.models("mine") == ()


def test_what_is_filed_does_not_change_with_its_source(model, home):
    filed = registry.register(model, name="mine", home=home)
    with (model / "model.safetensors").open("r+b") as file:  # as cp and rsync --inplace write
        file.write(b"overwritten")
    assert checksums(home / "models" / "mine" / "1")["model.safetensors"] == filed.checksums["model.safetensors"]


def test_what_is_no_part_of_a_model_stays_behind(model, home):
    for name in ("train.log", "optimizer.pt", "env.txt", "scheduler.pt", "notes.md", "events.out.tfevents.1"):
        (model / name).write_text("token=secret")
    (model / "tokenizer.json").write_text("{}")
    (model / "USE_POLICY.md").write_text("fair")
    filed = registry.register(model, name="mine", home=home)
    assert set(filed.checksums) == {
        "config.json",
        "model.safetensors",
        "cloudtune.json",
        "tokenizer.json",
        "USE_POLICY.md",
    }
