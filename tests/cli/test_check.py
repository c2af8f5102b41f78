"""``cloudtune check``: a table for people, data for programs, and an exit code for both."""

import json

import click
import pytest
import yaml

import cloudtune
from cloudtune import display
from cloudtune.cli import meter
from cloudtune.store import Model, Store
from tests.cli.calling import call
from tests.weights.checks.checkable import change, write_model


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "m")


def test_a_good_model_ends_with_0(model):
    answer = call("check", str(model))
    assert (answer.code, answer.out) == (0, "")
    said = answer.err.splitlines()
    assert said == ["LlamaForCausalLM: 19,616 parameters, 0.0 MB BF16", "nothing was found", "ok"]


def test_warnings_and_notes_end_with_0(model):
    change(model / "tokenizer_config.json", chat_template=...)
    answer = call("check", str(model), "--for", "sagemaker", "--fast")
    assert answer.code == 0
    assert answer.err.splitlines()[-1] == "ok for sagemaker: 1 warning, 2 notes"
    rows = [line.split("\t") for line in answer.out.splitlines()]
    assert rows[0] == ["severity", "rule", "where", "finding", "what to do"]
    assert [row[:2] for row in rows[1:]] == [
        ["warning", "sagemaker-chat-template"],
        ["note", "sagemaker-machine"],
        ["note", "sagemaker-remark"],
    ]


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_errors_end_with_1_in_every_form(model, form, read):
    (model / "model-00002-of-00002.safetensors").unlink()
    change(model / "tokenizer_config.json", tokenizer_class="TokenizersBackend")
    plain = call("check", str(model), "--for", "bedrock")
    assert plain.code == 1
    assert plain.err.splitlines()[-1] == "not ok for bedrock: 2 errors, 1 note"
    answer = call("check", str(model), "--for", "bedrock", "-o", form)
    assert (answer.code, answer.err) == (1, "")
    report = read(answer.out)
    assert report["ok"] is False
    assert [one["rule"] for one in report["findings"]] == ["bedrock-tokenizer-class", "files-missing", "bedrock-remark"]
    assert set(report["findings"][0]) == {"rule", "severity", "message", "hint", "where", "source"}
    assert (report["target"], report["kind"]) == ("bedrock", "model")


def test_what_cannot_be_checked_ends_with_2(model):
    assert call("check", str(model / "none")).code == 2
    assert "azure" in call("check", str(model), "--for", "azure").err


def test_a_registered_model_is_checked_by_its_name(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for version, folder in (("1", tmp_path / "gone"), ("2", model)):
        Store().add_model(Model(name="mine", version=version, uri=f"file://{folder}"))
    assert cloudtune.check("mine:2").parameters == 19616
    assert cloudtune.check("mine", for_="oci").target == "oci"
    with pytest.raises(cloudtune.UsageError, match="gone"):
        cloudtune.check("mine:1")
    write_model(tmp_path / "mine", shards=1)
    assert cloudtune.check("./mine").model == "./mine"


def test_on_a_terminal_a_finding_is_a_paragraph(monkeypatch, capsys):
    rows = [
        ("error", "bedrock-context", "config.json", "long " * 40, "shorten it"),
        ("note", "remark", "", "[bold]good[/bold] to know", None),
    ]
    head = ("severity", "rule", "where", "finding", "what to do")
    display.findings(rows, head=head, empty="")
    assert capsys.readouterr().out.splitlines()[2] == "note\tremark\t\t[bold]good[/bold] to know\t"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    display.findings(rows, head=head, empty="")
    said = [line.rstrip() for line in click.unstyle(capsys.readouterr().out).splitlines()]
    assert said[0] == "error  bedrock-context  config.json"
    assert said[1].startswith("    long long")
    assert max(map(len, said)) <= 80
    assert said[-3:] == ["    hint: shorten it", "note  remark", "    [bold]good[/bold] to know"]


def test_the_line_of_progress(monkeypatch, capsys):
    assert meter.line("reading", 0, 2_200_000_000, 0.0, 0) == "reading 0.0 of 2.2 GB"
    assert meter.line("reading", 500_000, 2_000_000, 0.0, 0) == "reading 0.5 of 2.0 MB"
    half = meter.line("reading", 1_100_000_000, 2_200_000_000, 2.0, 1_000_000_000)
    assert half == "reading 1.1 of 2.2 GB  500 MB/s  0:02 left"
    with meter.Meter("reading") as quiet:
        quiet(1, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with meter.Meter("reading") as shown:
        shown(0, 10)
        shown(10, 10)
    said = capsys.readouterr().err
    assert said.count("reading") == 2
    assert said.endswith("\r\x1b[K")


def test_a_failing_check_ends_a_pipeline_before_what_follows(model, tmp_path):
    change(model / "config.json", max_position_embeddings=200_000)
    touched = tmp_path / "deployed"
    steps = [
        {"name": "serve", "check": {"model": str(model), "for": "vllm"}},
        {"name": "import", "check": {"model": str(model), "for": "bedrock", "fast": True, "load": False}},
        {"name": "after", "job": {"runtime": {"type": "pyTorchDistributed", "spec": {"command": f"touch {touched}"}}}},
    ]
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"kind": "pipeline", "spec": {"name": "p", "steps": steps}}))
    run = cloudtune.run(file)
    status = run.wait(60)
    assert status.state == "failed"
    assert "step import failed" in status.reason
    assert status.failure.exit_code == 1
    assert [step.status.state for step in run.steps] == ["succeeded", "failed"]
    assert any("bedrock-context" in line.text for line in run.steps[1].lines())
    assert not touched.exists()
