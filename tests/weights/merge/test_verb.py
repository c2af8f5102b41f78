"""Adapters merged into their base: the tensors, the files around them, and what is refused."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest

from cloudtune.checksums import checksums
from cloudtune.errors import UsageError
from tests import tiny

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def tools():
    """Return torch, peft and transformers; importing them is slow and warns of its own future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft
        import torch
        import transformers
    transformers.utils.logging.disable_progress_bar()
    return torch, peft, transformers


@pytest.fixture(scope="module")
def merge(tools):
    from cloudtune.weights.merge.verb import merge as function

    return function


def tensors(folder):
    from safetensors.torch import load_file

    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def base():
    return tiny.random_model()


@pytest.fixture(scope="module")
def make_adapter(tools, base, tmp_path_factory):
    """Return a function that writes an adapter with random weights for the base."""
    torch, peft, transformers = tools

    def make(**config):
        folder = tmp_path_factory.mktemp("trained") / "adapter"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(1)
            model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
            settings = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **config}
            wrapped = peft.get_peft_model(model, peft.LoraConfig(**settings))
            for name, parameter in wrapped.named_parameters():
                if parameter.requires_grad and "lora_A" not in name:
                    parameter.data.normal_(std=0.02)
            wrapped.save_pretrained(folder)
        return folder

    return make


def logits(tools, model):
    torch = tools[0]
    tokens = torch.arange(5, 5 + 4 * 32).reshape(4, 32)
    with torch.no_grad():
        return model.eval()(tokens).logits.float()


def reference(tools, base, adapter, merged: bool = False, auto: bool = False):
    torch, peft, transformers = tools
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if auto:
            model = peft.AutoPeftModelForCausalLM.from_pretrained(adapter, dtype=torch.bfloat16, low_cpu_mem_usage=True)
        else:
            model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
            model = peft.PeftModel.from_pretrained(model, adapter)
        return model.merge_and_unload() if merged else model


@pytest.mark.parametrize("mode", ["accurate", "peft"])
def test_the_tensors_are_those_that_peft_makes(mode, tools, merge, base, make_adapter, tmp_path):
    torch, _, transformers = tools
    adapter = make_adapter()
    merge(str(base), [str(adapter)], str(tmp_path / "out"), mode=mode)
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert found.dtype == torch.bfloat16
    wanted = reference(tools, base, adapter, merged=True, auto=mode == "peft").state_dict()
    assert set(found.state_dict()) == set(wanted)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.state_dict().items())


def test_logits_equal_those_of_base_and_adapter_within_rounding(tools, merge, base, make_adapter, tmp_path):
    transformers = tools[2]
    adapter = make_adapter()
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    unmerged = logits(tools, reference(tools, base, adapter))
    merged = logits(tools, transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    plain = logits(tools, transformers.AutoModelForCausalLM.from_pretrained(base))
    # bfloat16 keeps 8 bits: one rounding is 2^-9 of a number, and some dozen add up on the way through four layers
    rounding = 2**-9 * 12 * unmerged.abs().max()
    assert (merged - unmerged).abs().max() < rounding
    assert (plain - unmerged).abs().max() > 4 * rounding


def test_what_lies_in_a_merged_model(merge, base, make_adapter, tmp_path):
    adapter = make_adapter()
    (adapter.parent / "training.json").write_text('{"run": "abc12345", "method": "lora"}')
    (adapter.parent / "metrics.json").write_text('{"eval_loss_before": 3.0, "eval_loss": 1.5}')
    (adapter / "chat_template.jinja").write_text("learnt with this")
    output = tmp_path / "outputs"
    (output / "logs").mkdir(parents=True)
    result = merge(f"file://{base}", [str(adapter.parent)], str(output), name="mine")

    assert (result.path, result.name, result.run) == (f"file://{output}", "mine", "abc12345")
    assert result.metrics["eval_loss"] == 1.5
    record = json.loads((output / "cloudtune.json").read_text())
    assert record["base"] == f"{base.parent.name}/{base.name}"
    assert result.base == f"file://{base}"
    assert record["adapters"] == [adapter.parent.name]
    assert {name: digest for name, digest in checksums(output).items() if name in result.checksums} == result.checksums
    assert {path.name for path in output.glob("*.*")} - result.checksums.keys() == {"cloudtune.json", "README.md"}
    assert record["checksums"] == result.checksums
    assert (output / "chat_template.jinja").read_text() == "learnt with this"
    assert json.loads((output / "config.json").read_text()) == json.loads((base / "config.json").read_text())
    assert (output / "generation_config.json").read_bytes() == (base / "generation_config.json").read_bytes()
    assert "| evaluation loss | 3.0000 | 1.5000 |" in (output / "README.md").read_text()
    assert {path.stat().st_mode & 0o777 for path in output.glob("*.*")} == {
        (output / "README.md").stat().st_mode & 0o777
    }
    assert not [path for path in output.iterdir() if path.name.startswith(".")]
    with pytest.raises(UsageError, match="holds a model already"):
        merge(str(base), [str(adapter)], str(output))


def test_a_head_trained_apart_from_the_embedding_stays_apart(tools, merge, base, make_adapter, tmp_path):
    torch, _, transformers = tools
    adapter = make_adapter(modules_to_save=["lm_head"])
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    wanted = reference(tools, base, adapter, merged=True)
    assert torch.equal(found.lm_head.weight, wanted.lm_head.weight)
    assert not torch.equal(found.lm_head.weight, found.model.embed_tokens.weight)


def test_of_two_adapters_the_weighted_sum_is_added_and_rounded_once(tools, merge, base, make_adapter, tmp_path):
    torch = tools[0]
    first, second = make_adapter(), make_adapter(target_modules=["q_proj"])
    result = merge(str(base), [str(first), str(second)], str(tmp_path / "both"), weights=[0.5, 2])
    assert result.weights == (0.5, 2.0)
    found, plain = tensors(tmp_path / "both"), tensors(base)
    adapters = [tensors(one) for one in (first, second)]
    for name, tensor in plain.items():
        total = tensor.double()
        for adapter, weight in zip(adapters, (0.5, 2), strict=True):
            key = f"base_model.model.{name.removesuffix('.weight')}.lora_"
            if f"{key}A.weight" in adapter:
                total += weight * 16 / 8 * adapter[f"{key}B.weight"].double() @ adapter[f"{key}A.weight"].double()
        # 32 bits in between: a few in a million are rounded to the other neighbour
        assert (found[name] != total.to(torch.bfloat16)).sum() <= 1 + tensor.numel() * 1e-4
    with pytest.raises(UsageError, match="one adapter"):
        merge(str(base), [str(first), str(second)], str(tmp_path / "x"), mode="peft")
    with pytest.raises(UsageError, match="2 adapters and 1 weights"):
        merge(str(base), [str(first), str(second)], str(tmp_path / "x"), weights=[1])


def test_what_does_not_fit_is_refused_and_nothing_is_written(merge, base, make_adapter, tmp_path):
    adapter, output = make_adapter(), tmp_path / "out"
    other = tmp_path / "other"
    shutil.copytree(base, other)
    config = json.loads((other / "config.json").read_text())

    (other / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(UsageError, match="is quantized"):
        merge(str(other), [str(adapter)], str(output))

    lost = tmp_path / "lost"
    shutil.copytree(adapter, lost)
    settings = json.loads((lost / "adapter_config.json").read_text())
    for change, said in (({"r": 4}, "size mismatch"), ({"target_modules": ["nothing"]}, "not found in it")):
        (lost / "adapter_config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(UsageError, match=said) as error:
            merge(str(base), [str(lost)], str(output))
        assert "it was trained on" in error.value.hint
    for targets, said in ((["q_proj"], "no place for"), ([*settings["target_modules"], "lm_head"], "missing adapter")):
        (lost / "adapter_config.json").write_text(json.dumps({**settings, "target_modules": targets}))
        with pytest.raises(UsageError, match=said):
            merge(str(base), [str(lost)], str(output))

    for wrong in ((str(tmp_path), [str(adapter)], "accurate"), (str(base), [], "accurate"), (str(base), ["x"], "fast")):
        with pytest.raises(UsageError):
            merge(wrong[0], wrong[1], str(output), mode=wrong[2])
    assert not output.exists()
