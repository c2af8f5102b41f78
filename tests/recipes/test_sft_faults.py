"""What the recipe sft says when a training fails for a known reason."""

from __future__ import annotations

import pytest

from tests.recipes.modules import module

options = module("sft", "options")
faults = module("sft", "faults")


def given(*flags):
    return options.parse(["--model", "org/model", "--train-data", "org/data", *flags])


class OutOfMemoryError(RuntimeError):
    """Stands for torch's, which is found by its name."""


class GatedRepoError(OSError):
    """Stands for huggingface_hub's."""


class LocalEntryNotFoundError(OSError):
    """Stands for huggingface_hub's."""


def test_out_of_memory_names_what_is_left_to_try():
    said = faults.explain(OutOfMemoryError("CUDA out of memory"), given("--batch-size", "8"))
    assert "--batch-size 4 --gradient-accumulation 2" in said
    assert "--method qlora" in said
    assert "--sharding fsdp" in said
    small = faults.explain(
        OutOfMemoryError(""),
        given("--batch-size", "1", "--max-length", "256", "--method", "qlora", "--sharding", "fsdp"),
    )
    assert "--batch-size" not in small
    assert "--max-length" not in small
    assert "a shape with more memory" in small


def test_a_job_is_told_the_keys_of_its_file(monkeypatch):
    monkeypatch.setenv("CLOUDTUNE_RUN_ID", "abc12345")
    errors = [
        OutOfMemoryError(""),
        ConnectionError("couldn't reach org/data"),
        ValueError("a template, {% generation %}"),
    ]
    said = [faults.explain(error, given()) for error in errors]
    assert "batchSize: 2, gradientAccumulation: 2 (" in said[0]
    assert "give that path as trainData" in said[1]
    assert "assistantOnlyLoss: false" in said[2]
    assert "--" not in "".join(said)


def test_full_fine_tuning_out_of_memory_points_at_lora():
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
    assert "--method lora" in faults.explain(error, given("--method", "full"))


def test_a_gated_model_is_told_through_the_errors_around_it():
    error = OSError("something about a model")
    error.__cause__ = GatedRepoError("403 Client Error")
    said = faults.explain(error, given())
    assert "org/model" in said
    assert "HF_TOKEN" in said


def test_a_refusal_by_status():
    error = RuntimeError("no")
    error.response = type("Response", (), {"status_code": 401})()
    assert "gated" in faults.explain(error, given())


@pytest.mark.parametrize(
    ("error", "flag"),
    [
        (ConnectionError("Couldn't reach 'org/data' on the Hub (LocalEntryNotFoundError)"), "--train-data"),
        (LocalEntryNotFoundError("cannot find org/model"), "--model"),
    ],
)
def test_without_a_way_to_the_hub(error, flag):
    said = faults.explain(error, given())
    assert "the Hub cannot be reached" in said
    assert f"give that path as {flag}" in said


def test_a_template_without_marks():
    error = ValueError("The chat template is not training-compatible (missing {% generation %})")
    assert "--assistant-only-loss false" in faults.explain(error, given())


def test_own_errors_speak_for_themselves_and_strange_ones_keep_their_traceback():
    assert faults.explain(faults.RecipeError("do this"), given()) == "do this"
    assert faults.explain(KeyError("x"), given()) is None


def test_errors_in_a_circle_end():
    first, second = KeyError("a"), KeyError("b")
    first.__context__, second.__context__ = second, first
    assert faults.explain(first, given()) is None
