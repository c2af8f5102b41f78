"""Models filed in a folder of this machine."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloudtune import registries
from cloudtune.checksums import checksums
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.registries import folder as registry
from cloudtune.store import Store


def filed_at(place):
    """Return the record in a version's folder, and the checksums of what lies beside it."""
    sums = checksums(place)
    del sums[registry.RECORD]
    return json.loads((place / registry.RECORD).read_text()), sums


@pytest.fixture
def model(tmp_path):
    """Return a folder as merge leaves it, with the logs of a run in it."""
    place = tmp_path / "merged"
    (place / "logs").mkdir(parents=True)
    (place / "logs" / "node-0.log").write_text("line")
    (place / "config.json").write_text("{}")
    (place / "model.safetensors").write_bytes(b"tensors")
    record = {"base": "org/base", "run": "abc12345", "metrics": {"eval_loss_before": 3.0, "eval_loss": 1.0}}
    (place / "cloudtune.json").write_text(json.dumps(record))
    return place


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
    (outputs / "model" / "model.safetensors").touch()
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
    assert list((home / "models" / "m").iterdir()) == []


def test_a_copy_that_differs_is_refused(model, home, monkeypatch):
    def spoil(path, copy):
        copy.write_bytes(b"other")
        return False

    monkeypatch.setattr(registry, "_copy", spoil)
    with pytest.raises(CloudtuneError, match="is not equal to it"):
        registry.register(model, name="mine", home=home)
    assert list((home / "models" / "mine").iterdir()) == []


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
