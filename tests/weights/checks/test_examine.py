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
FIRST = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("target", NOTES)
def test_a_good_model_passes(tmp_path, target, shards):
    report = check(str(write_model(tmp_path / "m", shards=shards)), target=target)
    assert [finding.rule for finding in report.findings] == NOTES[target]
    assert report.ok
    assert (report.kind, report.architecture, report.target) == ("model", "LlamaForCausalLM", target)
    assert report.parameters == 19616
    assert report.dtypes == {"BF16": report.bytes} == {"BF16": 2 * 19616}


def set_config(**keys):
    return lambda folder: change(folder / "config.json", **keys)


def set_generation(**keys):
    return lambda folder: change(folder / "generation_config.json", **keys)


def set_tokenizer(**keys):
    return lambda folder: change(folder / "tokenizer_config.json", **keys)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def write(name, text="{}"):
    def broken(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return broken


def cut(name, count):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:count])


def with_tensors(**changed):
    """Write the model anew with tensors replaced by name (``__`` for a dot), added, or left out (None)."""

    def broken(folder):
        tensors = llama_tensors()
        for key, value in changed.items():
            name = key.replace("__", ".")
            if value is None:
                del tensors[name]
            else:
                tensors[name] = (*value, numbers(*value))
        write_model(folder, tensors)

    return broken


def index(edit):
    def broken(folder):
        path = folder / "model.safetensors.index.json"
        value = json.loads(path.read_text())
        edit(value)
        write_json(path, value)

    return broken


def vocabulary(size):
    def broken(folder):
        path = folder / "tokenizer.json"
        value = json.loads(path.read_text())
        value["model"]["vocab"] = {**value["model"]["vocab"], **{f"more{n}": n for n in range(64, size)}}
        write_json(path, value)

    return broken


def all_of(*changes):
    return lambda folder: [one(folder) for one in changes]


NORM = "model.layers.1.input_layernorm.weight"
#: How a good model is broken, the rule that tells it, how grave, and what where it is must contain.
BROKEN = {
    "a shard is gone": (remove(SECOND), "files-missing", "error", SECOND),
    "a shard is cut off": (cut(FIRST, -7), "files-header", "error", FIRST),
    "a shard is empty": (cut(FIRST, 0), "files-header", "error", FIRST),
    "a header is monstrous": (
        lambda folder: (folder / FIRST).write_bytes(b"\xff" * 7 + b"\x00" + b"{}"),
        "files-header",
        "error",
        FIRST,
    ),
    "a header is no JSON": (
        lambda folder: (folder / FIRST).write_bytes((4).to_bytes(8, "little") + b"nope"),
        "files-header",
        "error",
        FIRST,
    ),
    "tensors overlap": (
        lambda folder: (folder / FIRST).write_bytes(
            (
                len(
                    head := json.dumps(
                        {n: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for n in "ab"}
                    ).encode()
                )
            ).to_bytes(8, "little")
            + head
            + b"0000"
        ),
        "files-header",
        "error",
        FIRST,
    ),
    "the index is cut off": (cut("model.safetensors.index.json", 40), "files-index", "error", "index.json"),
    "the index has no table": (write("model.safetensors.index.json"), "files-index", "error", "index.json"),
    "a tensor twice": (
        lambda folder: write_tensors(
            folder / SECOND,
            {
                **dict(list(llama_tensors().items())[1::2]),
                NORM: llama_tensors()[NORM],
                "model.norm.weight": llama_tensors()["model.norm.weight"],
            },
        ),
        "files-doubled",
        "error",
        "",
    ),
    "the index is wrong": (
        index(lambda value: value["weight_map"].update({"model.other.weight": FIRST})),
        "files-misplaced",
        "error",
        "model.other.weight",
    ),
    "the index forgets": (
        index(lambda value: value["weight_map"].pop("model.norm.weight")),
        "files-unlisted",
        "error",
        "model.norm.weight",
    ),
    "the index sums wrongly": (
        index(lambda value: value["metadata"].update(total_size=1)),
        "files-total",
        "warning",
        "index.json",
    ),
    "no weights at all": (
        remove(FIRST, SECOND, "model.safetensors.index.json"),
        "files-weights",
        "error",
        "model.safetensors",
    ),
    "pickles alone": (
        all_of(remove(FIRST, SECOND, "model.safetensors.index.json"), write("pytorch_model.bin", "x")),
        "files-pickle",
        "error",
        "pytorch_model.bin",
    ),
    "pickles as well": (write("pytorch_model.bin", "x"), "files-pickle", "warning", "pytorch_model.bin"),
    "one file and an index": (
        lambda folder: write_tensors(folder / "model.safetensors", llama_tensors()),
        "files-two",
        "error",
        "model.safetensors",
    ),
    "a shard of another model": (
        lambda folder: write_tensors(folder / "model-00003-of-00009.safetensors", {}),
        "files-unused",
        "warning",
        "model-00003-of-00009",
    ),
    "still being written": (
        write("model-00001-of-00002.safetensors.incomplete", ""),
        "files-unfinished",
        "warning",
        ".incomplete",
    ),
    "states of the optimizer": (
        write("checkpoint-20/optimizer.pt", "x"),
        "files-of-training",
        "warning",
        "optimizer.pt",
    ),
    "no config": (remove("config.json"), "config-missing", "error", "config.json"),
    "an adapter's config": (write("adapter_config.json"), "adapter-beside", "warning", "adapter_config.json"),
    "a config that is no JSON": (write("config.json", '{"a": '), "json", "error", "config.json"),
    "a tokenizer that is no object": (write("tokenizer.json", "[]"), "json", "error", "tokenizer.json"),
    "no architecture": (set_config(architectures=...), "config-incomplete", "error", "config.json"),
    "no type": (set_config(model_type=...), "config-incomplete", "error", "config.json"),
    "no size": (set_config(hidden_size=...), "config-incomplete", "error", "config.json"),
    "a size that is a text": (set_config(hidden_size="32"), "config-incomplete", "error", "config.json"),
    "more layers than there are numbers": (set_config(num_hidden_layers=10**9), "config-size", "error", "config.json"),
    "code of its own": (set_config(auto_map={"AutoModel": "x.Y"}), "config-code", "warning", "config.json"),
    "heads that do not fit": (set_config(num_attention_heads=5), "config-heads", "error", "config.json"),
    "groups that do not fit": (set_config(num_key_value_heads=3), "config-heads", "error", "config.json"),
    "a context that is none": (set_config(max_position_embeddings=-1), "config-context", "error", "config.json"),
    "another type": (set_config(torch_dtype="float16"), "dtype-config", "warning", "config.json"),
    "two types": (with_tensors(model__norm__weight=("F32", (32,))), "dtype-mixed", "warning", "config.json"),
    "quantized in secret": (
        with_tensors(model__layers__0__mlp__up_proj__weight=("U8", (48, 32))),
        "quantized-unsaid",
        "error",
        "config.json",
    ),
    "temperature below zero": (set_generation(temperature=-1), "generation-range", "error", "generation_config"),
    "top_p above one": (set_generation(top_p=1.5), "generation-range", "error", "generation_config"),
    "top_k that is a text": (set_generation(top_k="many"), "generation-range", "error", "generation_config"),
    "sampling and not": (
        set_generation(do_sample=False, temperature=0.7),
        "generation-sampling",
        "warning",
        "generation_config",
    ),
    "an end outside of the vocabulary": (set_config(eos_token_id=[0, 64]), "token-id", "error", "config.json"),
    "an end below zero": (set_generation(pad_token_id=-1), "token-id", "warning", "generation_config.json"),
    "no lm_head": (with_tensors(lm_head__weight=None), "tensor-missing", "error", "lm_head.weight"),
    "no norm": (with_tensors(model__norm__weight=None), "tensor-missing", "error", "model.norm.weight"),
    "a wrong shape": (
        with_tensors(model__layers__1__mlp__down_proj__weight=("BF16", (48, 32))),
        "tensor-shape",
        "error",
        "model.layers.1.mlp.down_proj.weight",
    ),
    "a tensor too many": (
        with_tensors(model__layers__2__input_layernorm__weight=("BF16", (32,))),
        "tensor-unknown",
        "warning",
        "model.layers.2",
    ),
    "names of a wrapper": (
        with_tensors(_orig_mod__model__norm__weight=("BF16", (32,))),
        "tensor-wrapped",
        "error",
        "_orig_mod",
    ),
    "a head that is tied": (set_config(tie_word_embeddings=True), "head-tied", "warning", "lm_head.weight"),
    "a family that nobody knows": (set_config(model_type="nova"), "tensors-unchecked", "note", "config.json"),
    "no tokenizer": (remove("tokenizer.json"), "tokenizer-missing", "error", "tokenizer.json"),
    "no config of the tokenizer": (
        remove("tokenizer_config.json"),
        "tokenizer-config",
        "warning",
        "tokenizer_config.json",
    ),
    "a tokenizer without words": (write("tokenizer.json", '{"model": {}}'), "tokenizer-broken", "error", "tokenizer"),
    "more tokens than rows": (vocabulary(66), "tokenizer-too-large", "error", "tokenizer.json"),
    "fewer rows than the config says": (set_config(vocab_size=96), "vocabulary-size", "error", "embed_tokens"),
    "an end that no vocabulary has": (set_tokenizer(eos_token="</s>"), "token-unknown", "error", "tokenizer_config"),
    "an end that is another": (set_tokenizer(eos_token="<|user|>"), "token-differs", "warning", "tokenizer_config"),
    "padding that is another": (set_tokenizer(pad_token="<|user|>"), "token-differs", "note", "tokenizer_config"),
    "two templates": (write("chat_template.jinja", "{{ messages }}"), "chat-template-differs", "warning", "tokenizer"),
    "a template with a fault": (set_tokenizer(chat_template="{% if"), "chat-template-broken", "error", "tokenizer"),
    "a template that refuses": (
        set_tokenizer(chat_template="{{ raise_exception('never') }}"),
        "chat-template-broken",
        "error",
        "tokenizer_config.json",
    ),
    "a template that looks around": (
        set_tokenizer(chat_template="{{ ''.__class__.__mro__ }}"),
        "chat-template-broken",
        "error",
        "tokenizer_config.json",
    ),
    "a template that eats memory": (
        set_tokenizer(chat_template="{{ 'a' * 10**11 }}"),
        "chat-template-broken",
        "error",
        "tokenizer_config.json",
    ),
    "a template that drops the question": (
        set_tokenizer(chat_template="{{ messages[1].content }}"),
        "chat-template-drops",
        "warning",
        "tokenizer_config.json",
    ),
    "a matrix of zeros": (
        lambda folder: write_model(
            folder, {**llama_tensors(), "lm_head.weight": ("BF16", (64, 32), bytes(64 * 32 * 2))}
        ),
        "values-zero",
        "warning",
        "lm_head.weight",
    ),
    "a number that is none": (
        lambda folder: write_model(
            folder,
            {**llama_tensors(), NORM: ("BF16", (32,), numbers("BF16", (31,)) + b"\xc0\x7f")},
        ),
        "values-not-finite",
        "error",
        NORM,
    ),
}


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
