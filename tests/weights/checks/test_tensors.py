"""Names and shapes by config.json, for every family, as transformers saves it.

``layouts.json`` has been written from transformers; a heavy test writes it anew and compares.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtune.memory.families import FAMILIES, architecture
from cloudtune.weights.checks.examine import check
from cloudtune.weights.files.expected import layout_of, tensors_of
from tests.tiny import ENVIRONMENT
from tests.weights.checks.checkable import write_json, write_tensors

LAYOUTS = json.loads(Path(__file__).with_name("layouts.json").read_text())
ROOT = Path(__file__).parents[3]


def saved(folder, name, **changed):
    """Write a model of a family with tensors of zeros; ``changed`` are other tensors' shapes, None for none."""
    row = LAYOUTS[name]
    shapes = {tensor: shape for tensor, shape in {**row["tensors"], **changed}.items() if shape is not None}
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", row["config"])
    tensors = {}
    for tensor, shape in shapes.items():
        count = 2
        for length in shape:
            count *= length
        tensors[tensor] = ("BF16", tuple(shape), bytes(count))
    write_tensors(folder / "model.safetensors", tensors)
    return str(folder)


def told(place):
    rules = ("tensor", "parameters", "head", "config-incomplete")
    return [(one.rule, one.where) for one in check(place, fast=True).findings if one.rule.startswith(rules)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_transformers_saves_is_expected(tmp_path, name):
    assert told(saved(tmp_path / "m", name)) == []


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "gpt_oss"])
def test_a_tensor_less_or_another_shape_is_told(tmp_path, name):
    tensors = LAYOUTS[name]["tensors"]
    last, first = max(tensors), min(tensors)
    other = [length + 1 for length in tensors[last]]
    place = saved(tmp_path / "m", name, **{first: None, last: other})
    expected = {("tensor-missing", first), ("tensor-shape", f"model.safetensors: {last}")}
    assert set(told(place)) == expected


def test_a_family_whose_names_are_not_known_is_counted(tmp_path):
    place = saved(tmp_path / "m", "gpt_oss", extra=[3])
    assert told(place) == [("parameters", "config.json")]


@pytest.mark.parametrize("keys", [{"model_type": "t5"}, {"model_type": "falcon", "alibi": True}])
def test_families_that_are_not_known_are_said_to_be_unchecked(tmp_path, keys):
    write_json(tmp_path / "config.json", {"architectures": ["SomeModel"], "d_model": 8, **keys})
    write_tensors(tmp_path / "model.safetensors", {"shared.weight": ("BF16", (4, 8), bytes(64))})
    (found,) = (one for one in check(str(tmp_path), fast=True).findings if one.rule.startswith(("tensors", "config")))
    assert (found.rule, found.severity) == ("tensors-unchecked", "note")


def test_every_family_that_is_saved_has_as_many_parameters_as_its_architecture():
    for row in LAYOUTS.values():
        built = architecture(row["config"])
        layout = layout_of(built, row["config"])
        if layout is not None:
            shapes = tensors_of(built, layout, row["config"]).values()
            assert sum(shape[0] * (shape[1] if len(shape) == 2 else 1) for shape in shapes) == built.parameters
    assert {row["config"]["model_type"] for row in LAYOUTS.values()} == set(FAMILIES) - {"mllama", "gemma3"}


_WRITE = """
import json, sys, tempfile, warnings
from pathlib import Path
from transformers import AutoConfig, AutoModelForCausalLM
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.files.model import open_weights
found = {}
for name, row in json.load(open(sys.argv[1])).items():
    config = AutoConfig.for_model(**row["config"])
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        with open_weights(folder_at(folder)) as weights:
            found[name] = {tensor: list(weights.tensor(tensor).shape) for tensor in sorted(weights)}
print()
print(json.dumps(found))
"""


@pytest.mark.heavy
def test_the_layouts_are_those_of_transformers():
    argv = [sys.executable, "-c", _WRITE, str(Path(__file__).with_name("layouts.json"))]
    done = subprocess.run(argv, capture_output=True, check=True, text=True, env=ENVIRONMENT | {"PATH": ""}, cwd=ROOT)
    found = json.loads(done.stdout.strip().rpartition("\n")[2])
    assert found == {name: row["tensors"] for name, row in LAYOUTS.items()}
