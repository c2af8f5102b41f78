"""A model that nothing is wrong with passes everywhere; each thing that can be wrong is told by its rule."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtune import storage
from cloudtune.errors import UsageError
from cloudtune.weights.checks import examine, templates
from cloudtune.weights.checks.examine import check
from cloudtune.weights.checks.findings import MOST, Finding, ordered
from tests.weights.checks.broken import BROKEN, SECOND, with_tensors
from tests.weights.checks.checkable import (
    TEMPLATE,
    change,
    llama_tensors,
    numbers,
    write_adapter,
    write_json,
    write_model,
    write_tensors,
)

ROOM = Path(examine.__file__).parent
#: What is known of every model that goes there, whatever it is.
NOTES = {
    None: [],
    "bedrock": ["bedrock-remark"],
    "vllm": [],
    "sagemaker": ["sagemaker-machine", "sagemaker-remark"],
    "oci": ["oci-machine", "oci-remark"],
}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("target", NOTES)
def test_a_good_model_passes(tmp_path, target, shards):
    report = check(str(write_model(tmp_path / "m", shards=shards)), target=target)
    assert [finding.rule for finding in report.findings] == NOTES[target]
    assert report.ok
    assert (report.kind, report.architecture, report.target) == ("model", "LlamaForCausalLM", target)
    assert report.parameters == 19616
    assert report.dtypes == {"BF16": report.bytes} == {"BF16": 2 * 19616}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_is_told(tmp_path, what):
    broken, rule, severity, where = BROKEN[what]
    folder = write_model(tmp_path / "m")
    broken(folder)
    report = check(str(folder))
    found = [finding for finding in report.findings if finding.rule == rule]
    assert found, [finding.rule for finding in report.findings]
    assert {finding.severity for finding in found} == {severity}
    assert any(where in finding.where for finding in found)
    assert all(finding.message and finding.hint for finding in report.findings)
    assert report.ok == (not any(finding.severity == "error" for finding in report.findings))
    if severity == "error":
        assert not report.ok


def test_every_rule_has_a_model_that_breaks_it():
    """Rules of adapters, places and trying have tests of their own."""
    files = ("files", "configs", "tensors", "tokenizers", "templates", "values", "subject")
    source = "".join((ROOM / f"{name}.py").read_text() for name in files)
    rules = set(re.findall(r"(?:rule=|_finding\(\s*)\"([a-z-]+)\"", source)) - {"adapter-untrained"}
    told = {rule for _, rule, _, _ in BROKEN.values()}
    kinds = set(re.findall(r"kind=\"([a-z]+)\"", (ROOM.parent / "files" / "model.py").read_text()))
    assert rules | {f"files-{kind}" for kind in kinds} == told | {"chat-template-untried", "parameters"}


@pytest.mark.parametrize(
    ("base", "words"), [("org/base", "merge org/base ADAPTER"), ("s3://a:b@c/d", "s3://***@c/d"), (None, "merge BASE")]
)
def test_an_adapter_is_told_what_it_is_and_what_to_do(tmp_path, base, words):
    report = check(str(write_adapter(tmp_path / "a", base_model_name_or_path=base)))
    (found,) = (one for one in report.findings if one.rule == "adapter-alone")
    assert report.ok
    assert found.severity == "note"
    assert "this is an adapter" in found.message
    assert words in found.hint


def test_everything_is_told_at_once(tmp_path):
    folder = write_model(tmp_path / "m")
    for what in ("a shard is cut off", "temperature below zero", "more tokens than rows", "heads that do not fit"):
        BROKEN[what][0](folder)
    report = check(str(folder), target="bedrock")
    assert {"files-header", "generation-range", "tokenizer-too-large", "config-heads"} <= {
        finding.rule for finding in report.findings
    }
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_a_missing_shard_is_told_once_and_not_tensor_by_tensor(tmp_path):
    folder = write_model(tmp_path / "m")
    (folder / SECOND).unlink()
    assert [finding.rule for finding in check(str(folder)).findings] == ["files-missing"]


@pytest.mark.parametrize("what", ["a shard is cut off", "a wrong shape", "a number that is none", "no tokenizer"])
def test_a_model_in_a_bucket_is_told_the_same(tmp_path, what):
    folder = write_model(tmp_path / "m")
    BROKEN[what][0](folder)
    uri = f"memory://{tmp_path}/m"
    storage.upload(folder, uri)
    here, there = check(str(folder), target="vllm"), check(uri, target="vllm")
    assert [(one.rule, one.where) for one in here.findings] == [(one.rule, one.where) for one in there.findings]
    assert not there.ok
    storage.remove(uri)


def test_outputs_of_a_job_hold_the_model_one_folder_down(tmp_path):
    write_model(tmp_path / "outputs" / "model")
    (tmp_path / "outputs" / "metrics.json").write_text("{}")
    assert check(str(tmp_path / "outputs"), fast=True).parameters == 19616


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UsageError, match="nothing at"):
        check(str(tmp_path / "none"))
    (tmp_path / "model.tar.gz").write_bytes(b"x")
    with pytest.raises(UsageError, match="is a file") as error:
        check(str(tmp_path / "model.tar.gz"))
    assert f"name the folder that it is in: {tmp_path};" in error.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty is empty"):
        check(str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="nothing at org/llama") as error:
        check("org/llama")
    assert "hf://org/llama" in error.value.hint
    with pytest.raises(UsageError, match="no place 'azure'"):
        check(str(write_model(tmp_path / "m")), target="azure")


def test_the_head_of_an_embedding_needs_no_tensor(tmp_path):
    folder = tmp_path / "m"
    with_tensors(lm_head__weight=None)(folder)
    change(folder / "config.json", tie_word_embeddings=True)
    assert check(str(folder)).findings == ()


def test_a_model_saved_without_its_head_and_old_buffers_pass(tmp_path):
    tensors = {name.removeprefix("model."): value for name, value in llama_tensors().items()}
    tensors["layers.0.self_attn.rotary_emb.inv_freq"] = ("BF16", (16,), numbers("BF16", (16,)))
    assert check(str(write_model(tmp_path / "m", tensors))).findings == ()


def test_templates_in_every_form_are_found(tmp_path):
    folder = write_model(tmp_path / "m")
    named = [{"name": "tool_use", "template": "{% if"}, {"name": "default", "template": TEMPLATE}]
    change(folder / "tokenizer_config.json", chat_template=named)
    (folder / "chat_template.jinja").write_text(TEMPLATE + "\n")
    write_json(folder / "chat_template.json", {"chat_template": TEMPLATE})
    assert check(str(folder), fast=True).findings == ()


@pytest.mark.parametrize("module", ["jinja2", "json", "resource"])
def test_modules_beside_a_model_are_not_run(tmp_path, monkeypatch, module):
    folder = write_model(tmp_path / "m")
    templates._in_a_process.cache_clear()
    (folder / f"{module}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.chdir(folder)
    assert check(".", fast=True).findings == ()
    assert not (tmp_path / "executed").exists()


def test_a_template_that_never_ends_is_ended(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "m")
    loops = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
    change(folder / "tokenizer_config.json", chat_template=loops)
    monkeypatch.setattr(templates, "TIMEOUT_S", 0.5)
    (found,) = check(str(folder), fast=True).findings
    assert (found.rule, "takes more than" in found.message) == ("chat-template-broken", True)


def test_many_findings_of_a_rule_are_counted():
    many = [Finding(rule="r", severity="note", message=f"m{n}", hint="h", where=f"layer.{n}") for n in range(MOST + 5)]
    found = ordered(reversed(many))
    assert [finding.where for finding in found[:11]][-1] == "layer.10"
    assert len(found) == MOST + 1
    assert found[-1].message == "and 5 more like these"


def test_names_in_files_move_no_cursor(tmp_path):
    write_tensors(tmp_path / "model.safetensors", {"\x1b[2Jx\u202e": ("BF16", (2,), bytes(4))})
    text = json.dumps(check(str(tmp_path), target="vllm").to_dict(), ensure_ascii=False)
    assert "\x1b" not in text
    assert "\u202e" not in text


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.one_of(st.integers(), st.text(max_size=2), st.none()), max_size=3),
    st.dictionaries(st.sampled_from(["content", "id", "vocab", "rope_theta", "x"]), st.integers(), max_size=2),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_config_makes_it_fall(models, data):
    """Whatever a file of the model says, there are findings, and no exception."""
    folder = write_model(models / "m")
    file = data.draw(
        st.sampled_from(["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
    )
    value = json.loads((folder / file).read_text())
    value.pop("chat_template", None)
    keys = [
        *value,
        "text_config",
        "vision_config",
        "quantization_config",
        "rope_parameters",
        "rope_scaling",
        "head_dim",
    ]
    for key in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3)):
        value[key] = data.draw(JUNK)
    write_json(folder / file, value)
    if file != "tokenizer_config.json":
        change(folder / "tokenizer_config.json", chat_template=...)
    for target in ("bedrock", "sagemaker"):
        assert check(str(folder), target=target, fast=True).model == str(folder)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_config_of_an_adapter_makes_it_fall(models, data):
    keys = st.lists(
        st.sampled_from(["peft_type", "r", "rank_pattern", "alpha_pattern", "bias", "use_dora"]), max_size=3
    )
    changed = {key: data.draw(JUNK) for key in data.draw(keys)}
    for target in ("vllm", "oci"):
        assert check(str(write_adapter(models / "a", **changed)), target=target, fast=True).kind == "adapter"


_WITHOUT = """
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numpy", "jinja2", "transformers"}:
            raise ModuleNotFoundError(name)
import importlib.util
known = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in {"numpy", "jinja2", "transformers"} else known(name)
sys.meta_path.insert(0, Blocked())
from cloudtune.weights.checks.examine import check
print([one.rule for one in check(sys.argv[1], fast=True).findings])
for options in ({}, {"fast": True, "load": True}):
    try:
        check(sys.argv[1], **options)
    except ImportError as error:
        print(error.extra)
"""


def test_packages_of_extras_are_asked_for_only_where_they_are_needed(tmp_path):
    argv = [sys.executable, "-c", _WITHOUT, str(write_model(tmp_path / "m"))]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['chat-template-untried']", "weights", "local"]
