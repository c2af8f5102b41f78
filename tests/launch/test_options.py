"""The options of a recipe are checked before anything is sent."""

from __future__ import annotations

import runpy
from typing import Any

import pytest

from cloudtune.errors import SpecError
from cloudtune.launch.commands import command_of
from cloudtune.launch.options import faults, settled
from cloudtune.spec.runtimes import PythonRuntime, Recipe
from tests.recipes.modules import RECIPES, module

PATH = "spec.runtime.spec.recipe.args"
MAKER = runpy.run_path(str(RECIPES.parent.parent / "docs" / "reference" / "make_recipes.py"))


def found(**args: Any) -> tuple[Any, ...]:
    return faults(Recipe(name="sft", args=args))


@pytest.mark.parametrize("recipe", MAKER["recipes"]())
def test_the_table_of_a_recipe_is_fresh(recipe: str) -> None:
    table = (RECIPES / recipe / "options.json").read_text(encoding="utf-8")
    assert table == MAKER["table_file"](recipe), "run: python docs/reference/make_recipes.py"


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        ({"learningrate": 1e-4}, "unknown option 'learningrate'", "did you mean learningRate?"),
        ({"perDeviceBatchSize": 1}, "unknown option", "did you mean perDevice"),
        ({"zzz": 1}, "unknown option 'zzz'", "recipes.md"),
        ({"learningRate": "fast"}, "expected a number, not 'fast'", None),
        ({"learningRate": True}, "expected a number, not true", None),
        ({"epochs": [1]}, "expected a number, not [1]", None),
        ({"batchSize": 1.5}, "expected a whole number, not 1.5", None),
        ({"packing": "yes"}, "expected true or false, not 'yes'", None),
        ({"bf16": "maybe"}, "expected true, false or auto", None),
        ({"method": "dora"}, "expected full, lora or qlora, not 'dora'", None),
        ({"saveStrategy": False}, "expected no, steps or epoch, not false", "'no' in quotes"),
        ({"model": ["a", "b"]}, "expected one value", None),
        ({"model": {"a": 1}}, "expected one value", None),
        ({"targetModules": []}, "expected a list of words", None),
    ],
)
def test_a_wrong_option_is_a_fault(args: dict[str, Any], message: str, hint: str | None) -> None:
    ((path, said, remedy),) = found(**args)
    assert path == f"{PATH}.{next(iter(args))}"
    assert message in said
    assert remedy is None if hint is None else hint in remedy


def test_a_command_is_refused_with_all_its_faults() -> None:
    runtime = PythonRuntime(recipe=Recipe(name="sft", args={"learningrate": 1, "epochs": "many", "loraR": 8}))
    with pytest.raises(SpecError) as caught:
        command_of(runtime)
    assert [fault.path for fault in caught.value.faults] == [f"{PATH}.learningrate", f"{PATH}.epochs"]


@pytest.mark.parametrize(
    "args",
    [
        {
            "learningRate": "1e-4",
            "lora_r": "8",
            "num-train-epochs": 1,
            "maxSteps": -1,
            "bf16": "auto",
            "packing": "TRUE",
        },
        {"targetModules": ["q_proj", "v_proj"], "modulesToSave": "lm_head", "evalData": None, "revision": 3},
        {"evalStrategy": "no", "method": "qlora", "resumeFromCheckpoint": "never", "dataset": "imdb"},
    ],
)
def test_what_the_recipe_can_read_is_no_fault(args: dict[str, Any]) -> None:
    assert found(**args) == ()
    needed = {} if "dataset" in args else {"trainData": "d"}
    runtime = PythonRuntime(recipe=Recipe(name="sft", args={"model": "m", **needed, **args}))
    module("sft", "options").parse(command_of(runtime).command[3:])


def test_what_is_filled_in_later_passes() -> None:
    assert found(model="${steps.prepare.outputs}/model", learningRate="$RATE", targetModules=["$A", "b"]) == ()


def test_a_recipe_without_a_table_takes_any_option() -> None:
    assert faults(Recipe(name="quickstart", args={"whatever": 1})) == ()
    assert faults(Recipe(name="../sft", args={"whatever": 1})) == ()


def test_options_are_settled_as_the_recipe_reads_them() -> None:
    args = {"max_seq_length": "512", "bf16": "auto", "packing": "true", "targetModules": ["q_proj,v_proj", "o_proj"]}
    found = settled(Recipe(name="sft", args={**args, "loraDropout": 0, "batchSize": "$SIZE", "method": None}))
    assert found is not None
    assert found["maxLength"] == 512
    assert (found["bf16"], found["packing"]) == (None, True)
    assert found["targetModules"] == ("q_proj", "v_proj", "o_proj")
    assert found["loraDropout"] == 0.0
    assert (found["batchSize"], found["method"]) == ("$SIZE", "lora")
    assert settled(Recipe(name="quickstart", args={})) is None
