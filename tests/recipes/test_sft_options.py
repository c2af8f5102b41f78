"""The command line of the recipe sft."""

from __future__ import annotations

import dataclasses

import pytest

from cloudtune.launch.commands import recipe_flags
from tests.recipes.modules import module

options = module("sft", "options")
NEEDED = ["--model", "m", "--train-data", "d"]


def test_defaults_and_what_follows_from_the_method():
    assert options.parse(NEEDED).rate == 2e-4
    assert options.parse([*NEEDED, "--method", "full"]).rate == 2e-5
    assert options.parse([*NEEDED, "--method", "full", "--learning-rate", "1e-3"]).rate == 1e-3
    assert options.parse(NEEDED).bf16 is None


def test_output_folder_comes_from_the_job(monkeypatch):
    monkeypatch.setenv("CLOUDTUNE_OUTPUT_DIR", "/somewhere")
    assert options.parse(NEEDED).output_dir == "/somewhere"
    assert options.parse([*NEEDED, "--output-dir", "here"]).output_dir == "here"
    monkeypatch.delenv("CLOUDTUNE_OUTPUT_DIR")
    assert options.parse(NEEDED).output_dir == "outputs"


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--packing", "true"], "packing", True),
        (["--packing"], "packing", True),
        (["--packing", "FALSE"], "packing", False),
        (["--bf16", "auto"], "bf16", None),
        (["--bf16", "false"], "bf16", False),
        (["--per-device-train-batch-size", "3"], "batch_size", 3),
        (["--num-train-epochs", "0.5"], "epochs", 0.5),
        (["--warmup-ratio", "0.1"], "warmup", 0.1),
        (["--warmup-steps", "20"], "warmup", 20.0),
        (["--target-modules", "q_proj,v_proj"], "target_modules", ("q_proj", "v_proj")),
        (["--target-modules", "q_proj", "v_proj"], "target_modules", ("q_proj", "v_proj")),
        (["--train-data", "file:///data/rows.jsonl"], "train_data", "/data/rows.jsonl"),
        (["--model", "file:///a b/model"], "model", "/a b/model"),
    ],
)
def test_flags(flags, name, value):
    assert getattr(options.parse([*NEEDED, *flags]), name) == value


def test_recipe_arguments_of_a_job_reach_the_options():
    args = {"model": "m", "trainData": "d", "loraR": 8, "modulesToSave": ["lm_head", "embed_tokens"], "bf16": False}
    parsed = options.parse(recipe_flags(args))
    assert (parsed.lora_r, parsed.modules_to_save, parsed.bf16) == (8, ("lm_head", "embed_tokens"), False)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "m"], "--train-data is missing"),
        ([*NEEDED, "--lora-rank", "4"], "did you mean --lora-r?"),
        ([*NEEDED, "--epocs=3"], "did you mean --epochs?"),
        ([*NEEDED, "--method", "dora"], "invalid choice: 'dora'"),
        ([*NEEDED, "--packing", "yes"], "expected true or false, not 'yes'"),
        ([*NEEDED, "--batch-size", "0"], "--batch-size must be at least 1"),
        ([*NEEDED, "--batch-size", "two"], "invalid int value: 'two'"),
        ([*NEEDED, "--eval-fraction", "1"], "--eval-fraction must be"),
    ],
)
def test_a_wrong_line_ends_with_one_message_and_code_2(flags, said, capsys):
    with pytest.raises(SystemExit) as ended:
        options.parse(flags)
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert len(shown.splitlines()) == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"model": "m"}, "sft: trainData is missing in recipe.args"),
        ({"learningrate": 1e-4}, "sft: unknown option learningrate in recipe.args, did you mean learningRate?"),
        ({"learningRate": "fast"}, "sft: learningRate in recipe.args: invalid float value: 'fast'"),
        ({"batchSize": "two"}, "sft: batchSize in recipe.args: invalid int value: 'two'"),
        ({"method": "dora"}, "sft: method in recipe.args: invalid choice: 'dora'"),
        ({"maxLength": 0}, "sft: maxLength must be at least 1"),
    ],
)
def test_a_job_is_told_the_keys_of_its_file(args, said, capsys, monkeypatch):
    monkeypatch.setenv("CLOUDTUNE_RUN_ID", "abc12345")
    needed = {} if args == {"model": "m"} else {"model": "m", "trainData": "d"}
    with pytest.raises(SystemExit):
        options.parse(recipe_flags({**needed, **args}))
    shown = capsys.readouterr().err
    assert shown.startswith(said)
    assert "--" not in shown


def test_a_home_folder_is_written_out(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert options.parse([*NEEDED, "--model", "~/model"]).model == "/home/me/model"


def test_every_option_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        options.parse(["--help"])
    shown = capsys.readouterr().out
    for field in dataclasses.fields(options.Options):
        assert "--" + field.name.replace("_", "-") in shown
    assert "(default: 0.03)" in shown
    assert "(default: auto)" in shown


def test_the_record_is_plain_json_data():
    import json

    assert json.loads(json.dumps(options.parse(NEEDED).record()))["target_modules"] == ["all-linear"]
