"""Patterns and numbers of adapters that would hang or spoil a merge are refused."""

import pytest

from cloudtune.errors import UsageError
from cloudtune.weights.merge.lora import read_lora

GOOD = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


@pytest.mark.parametrize("pattern", ["([a-z_.0-9]+)+!", "(a*)*b", "((x{2,})+)+y", "q" * 20_000])
@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern", "target_modules"])
def test_patterns_without_a_bound_of_time_are_refused(key, pattern):
    value = pattern if key == "target_modules" else {pattern: 4}
    with pytest.raises(UsageError, match="repeats what is repeated"):
        read_lora({**GOOD, key: value}, "adapter")


@pytest.mark.parametrize("pattern", [r".*\.layers\.\d+\.q_proj", "(q|k)_proj", r"layers\.[0-9]+\.(mlp|attn).*", "^a$"])
def test_patterns_as_people_write_them_are_taken(pattern):
    assert read_lora({**GOOD, "rank_pattern": {pattern: 2}}, "adapter").rank_pattern == {pattern: 2}


@pytest.mark.parametrize("change", [{"use_dora": []}, {"base_model_name_or_path": 5}, {"use_rslora": {}}])
def test_values_of_another_type_are_refused(change):
    with pytest.raises(UsageError, match="adapter_config"):
        read_lora({**GOOD, **change}, "adapter")
