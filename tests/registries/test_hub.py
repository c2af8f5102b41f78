"""Models filed on the Hub: the library's own client, and a Hub on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import cloudtune
from cloudtune.checksums import sha256
from cloudtune.errors import NoCapacity, NotAllowed, ServiceError, UsageError
from cloudtune.store import Store
from tests.registries.filing import COMMIT, everything_said, file, run, weights_of
from tests.registries.hub import CUT, READ_ONLY, SIGNATURE, TOKEN
from tests.registries.models import described, in_memory, merged, safetensors

# the library hands files to its HTTP client in a way that the client calls old
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def model(tmp_path):
    return described(merged(tmp_path / "merged"))


# --- what is there afterwards


def test_a_model_is_filed_by_one_commit_and_read_back(model, hub):
    filed = file(model)
    repo = hub.repos["ann/clerk"]
    assert (filed.name, filed.version, filed.uri) == ("ann/clerk", "1", f"hf://ann/clerk@{repo.head}")
    assert (filed.base, filed.run, filed.metrics["eval_loss"]) == ("org/base", "abc12345", 1.0)
    assert filed.checksums == {name: sha256(model / name) for name in filed.checksums}
    assert cloudtune.models("ann/clerk") == (filed,)
    assert repo.private
    assert repo.tags == {"1": repo.head}
    assert hub.commits() == 1
    assert set(repo.files) == {".gitattributes", "model.json", *filed.checksums}
    assert all(repo.files[path].data == (model / path).read_bytes() for path in filed.checksums)
    record = json.loads(repo.files["model.json"].data)
    assert record["checksums"] == filed.checksums
    assert (record["name"], record["version"]) == ("ann/clerk", "1")
    assert f"GET /api/models/ann/clerk/tree/{repo.head}" in hub.requests
    assert hub.sent() == weights_of(model)


def test_the_same_model_again_is_the_same_version(model, hub):
    first, second = file(model), file(model)
    assert (second.version, second.uri) == (first.version, first.uri)
    assert (hub.commits(), len(hub.sent())) == (1, 1)


def test_a_new_version_replaces_what_was_filed_and_nothing_else(model, hub, tmp_path):
    (model / "model-2.safetensors").write_bytes(safetensors(b"more"))
    first = file(described(model))
    repo = hub.repos["ann/clerk"]
    picture = type(repo.files["config.json"])(data=b"a picture that somebody added")
    repo.commit({**repo.files, "picture.png": picture})
    (model / "model-2.safetensors").unlink()
    (model / "config.json").write_text('{"changed": 1}')
    second = file(described(model))
    assert (first.version, second.version) == ("1", "2")
    assert set(repo.files) == {".gitattributes", "picture.png", "model.json", *second.checksums}
    assert "model-2.safetensors" in repo.commits[repo.tags["1"]]
    assert len(hub.sent()) == 2
    changed = [path for path in second.checksums if second.checksums[path] != first.checksums[path]]
    assert sorted(changed) == ["cloudtune.json", "config.json"]


def test_a_version_may_be_named_and_is_never_moved(model, hub):
    first = file(model, version="v1.0")
    assert hub.repos["ann/clerk"].tags == {"v1.0": first.uri.partition("@")[2]}
    assert file(model, version="v1.0").uri == first.uri
    assert file(model, version="v1.1").uri != first.uri
    requests = len(hub.sent()), hub.commits()
    (model / "config.json").write_text("[]")
    with pytest.raises(UsageError, match=r"has a version v1\.0 already"):
        file(described(model), version="v1.0")
    assert (len(hub.sent()), hub.commits()) == requests
    hub.repos["ann/clerk"].tags["²"] = first.uri.partition("@")[2]  # a digit, and no number
    assert file(model).version == "1"


def test_a_large_file_is_sent_in_parts(model, hub):
    hub.part_bytes = 1000
    (model / "model.safetensors").write_bytes(safetensors(bytes(range(250)) * 14))
    file(described(model))
    assert sum("PUT /store/" in one for one in hub.requests) == 4
    assert hub.repos["ann/clerk"].files["model.safetensors"].data == (model / "model.safetensors").read_bytes()


def test_a_public_model_is_asked_for(model, hub):
    file(model, name="acme/open", public=True)
    assert not hub.repos["acme/open"].private
    with pytest.raises(UsageError, match="acme/open on the Hub is public"):
        file(model, name="acme/open")
    file(model)
    with pytest.raises(UsageError, match="ann/clerk on the Hub is private"):
        file(model, public=True)


def test_a_repository_of_something_else_is_left_alone(model, hub):
    repo = hub.repo("ann/clerk", files={"config.json": b"other", "model.json": b"[]"})
    with pytest.raises(UsageError, match=r"holds files that cloudtune did not file: config\.json"):
        file(model)
    assert len(repo.commits) == 2
    hub.repo("ann/empty", files={"README.md": b"soon"})
    assert file(model, name="ann/empty").version == "1"


def test_a_model_from_elsewhere_is_fetched_first(model, hub, home):
    with in_memory(model, "bucket/model") as uri:
        filed = file(uri)
    assert hub.repos["ann/clerk"].tags == {"1": filed.uri.partition("@")[2]}
    assert list((home / "hub" / "ann--clerk").iterdir()) == []


def test_what_is_filed_on_the_hub_can_be_filed_from_it(model, hub, home):
    filed = file(model)
    run("register", filed.uri, "--name", "copy")
    (copy,) = cloudtune.models("copy")
    assert copy.checksums == filed.checksums
    assert (home / "models" / "copy" / "1" / "model.safetensors").read_bytes() == safetensors()


def test_the_record_is_forgotten_and_the_hub_keeps_the_model(model, hub):
    filed = file(model)
    with pytest.raises(UsageError, match="not deleted from here") as caught:
        cloudtune.delete("ann/clerk", outputs=True)
    assert "hf repos delete ann/clerk" in str(caught.value)
    assert cloudtune.models() == (filed,)
    deleted = cloudtune.delete("ann/clerk:1")
    assert (deleted.removed, deleted.kept) == ((), (filed.uri,))
    assert cloudtune.models() == ()
    assert set(hub.repos["ann/clerk"].files) > set(filed.checksums)


def test_a_model_on_the_hub_is_fetched_before_it_is_deployed(model, hub):
    filed = file(model)
    with pytest.raises(UsageError, match="model ann/clerk is not on this machine") as caught:
        cloudtune.deploy("ann/clerk")
    assert f"cloudtune register {filed.uri} --name clerk" in str(caught.value)


# --- what is refused before anything is sent


@pytest.mark.parametrize(
    "name",
    ["a/b/c", "/b", "a/", "a b/c", "-a/b", "a/.b", "a/b.git", "a--b/c", "a/b..c", "datasets/b", "a/" + "b" * 97],
)
def test_names_that_the_hub_does_not_take(name, model, hub):
    with pytest.raises(UsageError, match="cannot be the name of a model on the Hub"):
        file(model, name=name)
    assert hub.requests == []


def test_a_name_without_an_owner_is_told_so(model, hub):
    with pytest.raises(UsageError, match="it has no owner") as caught:
        file(model, name="clerk")
    assert "you/clerk" in str(caught.value)


@pytest.mark.parametrize("version", ["", "a b", "v1/2", "main", "1..2", "1.", "x.lock"])
def test_versions_that_are_no_tags(version, model, hub):
    with pytest.raises(UsageError, match="cannot be the version of a model"):
        file(model, version=version)
    assert hub.requests == []


def test_a_model_that_is_not_what_its_record_says_is_not_sent(model, hub):
    (model / "model.safetensors").write_bytes(safetensors(b"TENSORS"))
    with pytest.raises(UsageError, match=r"model\.safetensors is not the file that cloudtune\.json"):
        file(model)
    assert hub.repos == {}


def test_a_card_that_the_hub_does_not_take_is_told_before_anything_is_sent(model, hub):
    (model / "README.md").write_text("---\ntags: no list\n---\n")
    with pytest.raises(UsageError, match=r'does not take the model.s card: .*"tags" must be an array'):
        file(described(model))
    assert hub.sent() == []


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that cannot be read is there on Linux")
def test_a_disk_that_does_not_read_is_said(model, hub):
    (model / "tokenizer.json").symlink_to("/proc/self/mem")
    with pytest.raises(ServiceError, match=r"tokenizer\.json: .*Input/output error"):
        file(model)
    assert hub.repos == {}


# --- rights


def test_who_is_not_signed_in_is_told_how(model, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    said = run("register", model, "--to", "hub", "--name", "ann/clerk", code=1)
    assert "there is no token for the Hub on this machine" in said
    assert "hf auth login" in said
    assert hub.requests == []


@pytest.mark.parametrize("token", ["hf_wrong0123456789", "hf_with a space", "hf_with\x01control", "hf_ünicode"])
def test_a_token_that_is_none_is_not_shown(token, model, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(NotAllowed, match="token") as caught:
        file(model)
    assert "HF_TOKEN" in str(caught.value)
    assert token not in everything_said(caught.value)
    assert hub.repos == {}


def test_somebody_elses_place_is_refused_early(model, hub, monkeypatch):
    with pytest.raises(NotAllowed, match="zoe on the Hub is neither you nor an organization of yours") as caught:
        file(model, name="zoe/clerk")
    assert "ann, acme" in str(caught.value)
    hub.repo("zoe/open", private=False)
    with pytest.raises(NotAllowed, match="may not upload zoe/open on the Hub: You don't have the rights"):
        file(model, name="zoe/open", public=True)
    hub.repo("ann/hidden")
    hub.faults["GET /api/models/ann/hidden"] = [404] * 3
    with pytest.raises(ServiceError, match="404"):
        file(model, name="ann/hidden")
    monkeypatch.setenv("HF_TOKEN", READ_ONLY)
    hub.users[READ_ONLY]["orgs"] = [{"name": "zoe"}]
    hub.faults["POST /api/repos/create"] = [403]
    with pytest.raises(NotAllowed, match="may not create zoe/clerk on the Hub"):
        file(model, name="zoe/clerk")
    hub.repo("zoe/secret")
    hub.users[READ_ONLY]["orgs"] = []
    hub.users[READ_ONLY]["name"] = "ZOE"
    hub.faults["POST /api/repos/create"] = [409]
    with pytest.raises(NotAllowed, match="zoe/secret on the Hub is somebody else's"):
        file(model, name="zoe/secret")
    assert all(len(repo.commits) == 1 for repo in hub.repos.values())


@pytest.mark.parametrize(
    ("request_", "status", "kind"),
    [
        ("GET /api/models", 401, NotAllowed),
        ("GET /api/models", 429, ServiceError),
        ("GET /api/whoami", 401, NotAllowed),
        ("POST /api/repos/create", 402, NoCapacity),
        ("POST /api/models/ann/clerk/preupload", 403, NotAllowed),
        ("POST /ann/clerk.git/info/lfs/objects/batch", 403, NotAllowed),
        ("PUT /store", 403, ServiceError),
        ("PUT /store", 400, ServiceError),
        (COMMIT, 400, ServiceError),
        (COMMIT, 403, NotAllowed),
        (COMMIT, 500, ServiceError),
        (COMMIT, CUT, ServiceError),
        ("/tag/", 403, NotAllowed),
        ("/tag/", 500, ServiceError),
    ],
)
def test_what_the_hub_refuses_is_in_words_without_secrets(request_, status, kind, model, hub, home, caplog, capfd):
    hub.faults[request_] = [status]
    with pytest.raises(kind) as caught:
        file(model)
    said = everything_said(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert caught.value.hint
    for secret in (TOKEN, SIGNATURE, SIGNATURE.rpartition("=")[2]):
        assert secret not in said
    assert cloudtune.models() == ()
    assert file(model).version == "1"
    assert len(set(hub.sent())) == len(hub.sent()) == 1
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert TOKEN.encode() not in kept


def test_a_commit_whose_answer_was_lost_is_not_made_twice(model, hub):
    hub.faults[COMMIT] = [CUT]
    with pytest.raises(ServiceError) as caught:
        file(model)
    assert not caught.value.definite
    assert caught.value.operation == "commit"
    assert file(model).version == "1"
    assert hub.commits() == 1


def test_a_hub_that_is_not_there(model, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ServiceError, match=r"hub\.look_up: ann/clerk"):
        file(model)
    said = run("register", model, "--to", "hub", "--name", "ann/clerk", code=2, HF_HUB_OFFLINE="1")
    assert "unset HF_HUB_OFFLINE" in said


def test_a_hub_without_xet_is_told_how_to_do_without(model, hub):
    said = run("register", model, "--to", "hub", "--name", "ann/clerk", code=1, HF_HUB_DISABLE_XET="0")
    assert "HF_HUB_DISABLE_XET=1" in said
    assert set(hub.repos["ann/clerk"].files) == {".gitattributes"}


# --- as a command


def test_the_command_files_a_model(model, hub):
    said = run("register", model, "--to", "hub", "--name", "acme/clerk", "--version", "v1", "--public", "-o", "json")
    filed = json.loads(said[said.index("{") :])
    assert filed["uri"] == f"hf://acme/clerk@{hub.repos['acme/clerk'].head}"
    assert not hub.repos["acme/clerk"].private
    assert json.loads(run("list", "--models", "-o", "json")) == [filed]


def test_without_the_library_the_extra_is_named(model):
    program = (
        "import sys; sys.modules['huggingface_hub'] = None; import cloudtune\n"
        "try: cloudtune.register(sys.argv[1], to='hub', name='a/b')\n"
        "except cloudtune.MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program, model], capture_output=True, text=True, check=True)
    assert 'pip install "cloudtune[local]"' in done.stdout


def test_a_pipeline_files_its_model(model, hub, tmp_path):
    step = {"name": "publish", "register": {"model": str(model), "to": "hub", "name": "ann/clerk", "public": True}}
    pipeline = tmp_path / "pipeline.json"
    pipeline.write_text(json.dumps({"kind": "pipeline", "spec": {"name": "p", "steps": [step]}}))
    ended = cloudtune.run(pipeline)
    assert ended.wait(120).state == "succeeded", [line.text for line in ended.steps[0].logs()]
    assert [one.name for one in Store().models()] == ["ann/clerk"]
    assert not hub.repos["ann/clerk"].private
    kept = b"".join(path.read_bytes() for path in Store().folder.rglob("*") if path.is_file())
    assert TOKEN.encode() not in kept
