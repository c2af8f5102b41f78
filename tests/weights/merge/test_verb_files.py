"""Merging without torch: files and names, what is refused, where things lie, and what travels along."""

from __future__ import annotations

import hashlib
import json

import fsspec
import numpy as np
import pytest

from cloudtune import storage
from cloudtune.errors import UsageError
from cloudtune.weights.files.folder import folder_at
from cloudtune.weights.merge.verb import merge
from tests.weights.plain import (
    CONFIG,
    HEAD,
    NORM,
    SHAPES,
    TABLE,
    K,
    Q,
    factors,
    numbers,
    read_model,
    with_delta,
    write_adapter,
    write_file,
    write_model,
)

SCALE = 8 / 4
UNTIED = {name: shape for name, shape in SHAPES.items() if name != HEAD}


def delta(folder, module, scale=SCALE):
    found = factors(folder)
    return scale * found[f"{module}.lora_B.weight"].astype(np.float64) @ found[f"{module}.lora_A.weight"]


def names_of(folder):
    return sorted(path.name for path in folder.iterdir())


# --- files


def test_a_single_file_stays_one_and_only_the_targets_change(tmp_path):
    base, adapter = write_model(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    result = merge(str(base), [str(adapter)], str(tmp_path / "out"))
    assert names_of(tmp_path / "out") == ["README.md", "cloudtune.json", "config.json", "model.safetensors"]
    before, after = read_model(base), read_model(tmp_path / "out")
    assert list(after) == list(before)
    for name, tensor in before.items():
        module = name.removesuffix(".weight")
        wanted = with_delta(tensor, delta(adapter, module)) if module in {Q, K} else tensor
        assert np.array_equal(after[name], wanted)
    for name, digest in result.checksums.items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
    assert set(result.checksums) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("place", ["{}/out", "memory://merged-in-the-way{}/out"])
def test_a_file_in_the_way_is_told_before_anything_is_written(tmp_path, place):
    base, adapter = write_model(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    out = place.format(tmp_path)
    with fsspec.open(f"{out}/README.md", "wb", auto_mkdir=True) as file:
        file.write(b"mine")
    with pytest.raises(UsageError, match=r"README\.md is there already"):
        merge(str(base), [str(adapter)], out)
    assert [(entry.path, entry.bytes) for entry in storage.listing(out)] == [("README.md", 4)]


def test_shards_stay_as_they_were_cut(tmp_path):
    base, adapter = write_model(tmp_path / "base", shards=3), write_adapter(tmp_path / "adapter")
    result = merge(str(base), [str(adapter)], str(tmp_path / "out"), checksums=False)
    tables = [json.loads((one / "model.safetensors.index.json").read_text()) for one in (base, tmp_path / "out")]
    assert tables[0]["weight_map"] == tables[1]["weight_map"]
    assert tables[1]["metadata"]["total_size"] == sum(2 * int(np.prod(shape)) for shape in SHAPES.values())
    assert result.checksums == {}
    assert "SHA-256" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("shards", [1, 2])
def test_a_head_of_its_own_gets_a_file_of_its_own(tmp_path, shards):
    config = {"tie_word_embeddings": True, "text_config": {"tie_word_embeddings": True, "vocab_size": 20}}
    base = write_model(tmp_path / "base", UNTIED, shards=shards, config=config)
    adapter = write_adapter(tmp_path / "adapter", {"lm_head": (20, 12)})
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    found, before = read_model(tmp_path / "out"), read_model(base)
    assert np.array_equal(found[HEAD], with_delta(before[TABLE], delta(adapter, "lm_head")))
    assert np.array_equal(found[TABLE], before[TABLE])
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["tie_word_embeddings"] is written["text_config"]["tie_word_embeddings"] is False
    table = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    assert table[HEAD] == f"model-{shards + 1:05}-of-{shards + 1:05}.safetensors"
    assert [name for name, file in table.items() if file == table[HEAD]] == [HEAD]


def test_embeddings_changed_alone_leave_the_head_as_it_was(tmp_path):
    base = write_model(tmp_path / "base", UNTIED, config={"tie_word_embeddings": True})
    more = {
        "base_model.model.model.embed_tokens.lora_embedding_A": numbers((4, 20), 1),
        "base_model.model.model.embed_tokens.lora_embedding_B": numbers((12, 4), 2),
    }
    adapter = write_adapter(tmp_path / "adapter", {}, more=more, target_modules=["embed_tokens"])
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    found, before = read_model(tmp_path / "out"), read_model(base)
    assert np.array_equal(found[HEAD], before[TABLE])
    assert not np.array_equal(found[TABLE], before[TABLE])


def test_trained_tokens_replace_rows(tmp_path):
    base = write_model(tmp_path / "base")
    rows = numbers((3, 12), 5)
    more = {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": rows}
    adapter = write_adapter(tmp_path / "adapter", more=more, trainable_token_indices={"embed_tokens": [19, 0, 7]})
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    wanted = read_model(base)[TABLE]
    wanted[[19, 0, 7]] = with_delta(rows, np.zeros_like(rows))
    assert np.array_equal(read_model(tmp_path / "out")[TABLE], wanted)


def test_what_replaces_a_tensor_takes_its_type(tmp_path):
    base = write_model(tmp_path / "base")
    head = numbers((20, 12), 9)
    adapter = write_adapter(tmp_path / "adapter", more={f"base_model.model.{HEAD}": head}, modules_to_save=["lm_head"])
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    assert np.array_equal(read_model(tmp_path / "out")[HEAD], with_delta(head, np.zeros_like(head)))


def test_both_a_replacement_and_an_adapter_of_one_tensor(tmp_path):
    base = write_model(tmp_path / "base")
    saved = {f"base_model.model.{Q}.base_layer.weight": numbers((12, 12), 9)}
    adapter = write_adapter(tmp_path / "adapter", more=saved)
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    start = with_delta(numbers((12, 12), 9), np.zeros((12, 12)))
    assert np.array_equal(read_model(tmp_path / "out")[f"{Q}.weight"], with_delta(start, delta(adapter, Q)))


def test_weights_are_factors_of_the_sum(tmp_path):
    base = write_model(tmp_path / "base", dtype="F32")
    one = write_adapter(tmp_path / "one")
    other = write_adapter(tmp_path / "other", {Q: (12, 12)}, rank=2, use_rslora=True)
    result = merge(str(base), [str(one), str(other)], str(tmp_path / "out"), weights=[2, -0.5])
    found, before = read_model(tmp_path / "out"), read_model(base)
    both = 2 * delta(one, Q) - 0.5 * delta(other, Q, 8 / 2**0.5)
    assert np.allclose(found[f"{Q}.weight"], before[f"{Q}.weight"] + both, atol=1e-6)
    assert np.allclose(found[f"{K}.weight"], before[f"{K}.weight"] + 2 * delta(one, K), atol=1e-6)
    assert result.weights == (2.0, -0.5)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "times 2 |" in card
    assert "times -0.5 |" in card


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_what_is_not_a_number_stays_none_and_the_rest_is_right(tmp_path, dtype):
    base = write_model(tmp_path / "base", {f"{Q}.weight": (12, 12)}, dtype=dtype)
    adapter = write_adapter(tmp_path / "adapter", {Q: (12, 12)})
    merge(str(base), [str(adapter)], str(tmp_path / "plain"))
    values = read_model(base)[f"{Q}.weight"]
    values[3] = np.nan
    write_file(base / "model.safetensors", {f"{Q}.weight": (dtype, values)})
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    found, plain = (read_model(tmp_path / name)[f"{Q}.weight"] for name in ("out", "plain"))
    assert np.isnan(found[3]).all()
    assert np.array_equal(np.delete(found, 3, 0), np.delete(plain, 3, 0))


def test_matrices_of_odd_sizes(tmp_path):
    shapes = {"a.x": (1, 3), "a.y": (5, 1), "b.y": (0, 4), "c.y": (4, 0), "d.y": (3000, 7), "e.y": (2, 9000)}
    base = write_model(tmp_path / "base", {f"{name}.weight": shape for name, shape in shapes.items()})
    adapter = write_adapter(tmp_path / "adapter", shapes, rank=3)
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    before, after = read_model(base), read_model(tmp_path / "out")
    for name, shape in shapes.items():
        wanted = with_delta(before[f"{name}.weight"], delta(adapter, name, 8 / 3))
        assert after[f"{name}.weight"].shape == shape
        assert np.count_nonzero(after[f"{name}.weight"] != wanted) <= 1 + wanted.size // 10_000


def test_sums_are_as_good_as_32_bits_allow(tmp_path):
    shape, rank = (2048, 2048), 8
    base = write_model(tmp_path / "base", {f"{Q}.weight": shape})
    adapter = write_adapter(tmp_path / "adapter", {Q: shape}, rank=rank, lora_alpha=0.1)
    merge(str(base), [str(adapter)], str(tmp_path / "out"), checksums=False)
    before, after = (read_model(one)[f"{Q}.weight"] for one in (base, tmp_path / "out"))
    assert np.count_nonzero(after != with_delta(before, delta(adapter, Q, 0.1 / rank))) <= 2e-6 * after.size
    assert np.count_nonzero(after != before) > after.size / 2


# --- names


@pytest.mark.parametrize(
    ("module", "tensor"),
    [
        ("model.language_model.layers.0.x.q_proj", "language_model.model.layers.0.x.q_proj"),
        ("language_model.model.layers.0.x.q_proj", "model.language_model.layers.0.x.q_proj"),
        ("model.language_model.layers.0.x.q_proj", "model.layers.0.x.q_proj"),
        ("transformer.h.0.attn.q_proj", "h.0.attn.q_proj"),
        ("model.layers.0.x.q_proj", "layers.0.x.q_proj"),
        ("model.visual.blocks.0.q_proj", "visual.blocks.0.q_proj"),
        ("model.layers.0.mlp.gate.q_proj", "model.layers.0.block_sparse_moe.gate.q_proj"),
    ],
)
def test_modules_are_found_under_the_names_of_files(tmp_path, module, tensor):
    base = write_model(tmp_path / "base", {f"{tensor}.weight": (12, 12), NORM: (12,)})
    adapter = write_adapter(tmp_path / "adapter", {module: (12, 12)})
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    before, after = (read_model(one)[f"{tensor}.weight"] for one in (base, tmp_path / "out"))
    assert np.array_equal(after, with_delta(before, delta(adapter, module)))


def test_a_name_that_could_be_two_is_refused(tmp_path):
    shapes = {"language_model.model.q_proj.weight": (12, 12), "model.q_proj.weight": (12, 12)}
    base = write_model(tmp_path / "base", shapes)
    adapter = write_adapter(tmp_path / "adapter", {"model.language_model.q_proj": (12, 12)})
    with pytest.raises(UsageError, match=r"could be language_model\.model\.q_proj\.weight or model\.q_proj"):
        merge(str(base), [str(adapter)], str(tmp_path / "out"))


@pytest.mark.parametrize("transposed", [False, True])
def test_fused_experts_in_either_direction(tmp_path, transposed):
    experts, rank, rows, columns = 3, 2, 10, 6
    shape = (columns, rows) if transposed else (rows, columns)
    base = write_model(tmp_path / "base", {"model.layers.0.mlp.experts.gate_up_proj": (experts, *shape)})
    a, b = numbers((rank * experts, columns), 1), numbers((rows, rank * experts), 2)
    path = "base_model.model.model.layers.0.mlp.experts"
    more = {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    settings = {"target_modules": None, "target_parameters": ["experts.gate_up_proj"], "lora_alpha": rank}
    adapter = write_adapter(tmp_path / "adapter", {}, rank=rank, more=more, **settings)
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    before, after = (read_model(one)["model.layers.0.mlp.experts.gate_up_proj"] for one in (base, tmp_path / "out"))
    for expert in range(experts):
        product = b.reshape(rows, rank, experts)[:, :, expert] @ a[expert * rank : (expert + 1) * rank]
        product = with_delta(np.zeros_like(product), product)
        assert np.array_equal(after[expert], with_delta(before[expert], product.T if transposed else product))


# --- what is refused, and nothing written


def with_tensors(folder, **tensors):
    """Rewrite an adapter without the tensors that are None, and with the others."""
    kept = {f"base_model.model.{name}": one for name, one in factors(folder).items()}
    for name, one in tensors.items():
        kept.pop(name, None)
        if one is not None:
            kept[name] = one
    write_file(folder / "adapter_model.safetensors", {name: ("F32", one) for name, one in kept.items()})


A_OF_Q = f"base_model.model.{Q}.lora_A.weight"


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({A_OF_Q: None}, "lora_B without lora_A"),
        ({A_OF_Q.replace("lora_A", "lora_B"): None}, "lora_A without lora_B"),
        ({A_OF_Q: numbers((4, 11))}, r"for a matrix \[12, 11\], and the base's is \[12, 12\]"),
        ({A_OF_Q: numbers((3, 12))}, "its rank is 4"),
        ({A_OF_Q: numbers((4, 3, 4))}, "is no matrix"),
        ({"base_model.model.model.other.weight": numbers((3, 3))}, "has no place for model.other.weight"),
        ({"base_model.model.model.norm.weight": numbers((3,))}, r"model.norm.weight has shape \[3\]"),
        ({f"base_model.model.{TABLE}": numbers((25, 12))}, "resize the base's embeddings first"),
        ({f"base_model.model.{Q}.lora_A.default.weight": numbers((4, 12))}, "which is not known here"),
        ({f"base_model.model.{Q}.lora_C.weight": numbers((4, 12))}, "which is not known here"),
        ({f"{Q}.lora_A.weight": numbers((4, 12))}, "which is not known here"),
        ({f"base_model.model.{Q}.lora_magnitude_vector": numbers((12,))}, "magnitudes without use_dora"),
        ({f"base_model.model.{K}.lora_B.bias": numbers((8,))}, "has none to add it to"),
        ({f"base_model.model.{Q}.lora_B.bias": numbers((8,))}, "size mismatch: the bias"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, tensors, said):
    base = write_model(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", base_model_name_or_path="org/other")
    with_tensors(adapter, **tensors)
    with pytest.raises(UsageError, match=said) as error:
        merge(str(base), [str(adapter)], str(tmp_path / "out"))
    assert error.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"target_modules": ["q_proj"]}, "no place for .*k_proj, which target_modules does not name"),
        ({"target_modules": ["q_proj", "k_proj", "lm_head"]}, "target_modules names lm_head"),
        ({"target_modules": r".*q_proj"}, "no place for .*k_proj"),
        ({"use_dora": True}, "has use_dora and no magnitudes"),
        ({"rank_pattern": {"k_proj": 2}}, "its rank is 2"),
        ({"trainable_token_indices": "all"}, "that cannot be: trainable_token_indices"),
    ],
)
def test_configs_that_do_not_fit(tmp_path, config, said):
    base, adapter = write_model(tmp_path / "base"), write_adapter(tmp_path / "adapter", **config)
    with pytest.raises(UsageError, match=said):
        merge(str(base), [str(adapter)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_is_no_sum_can_have_no_weight_and_no_second(tmp_path):
    base = write_model(tmp_path / "base")
    magnitudes = {f"base_model.model.{Q}.lora_magnitude_vector": numbers((12,), 3)}
    dora = write_adapter(tmp_path / "dora", {Q: (12, 12)}, more=magnitudes, use_dora=True)
    whole = write_adapter(tmp_path / "whole", more={f"base_model.model.{HEAD}": numbers((20, 12))})
    rows = {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": numbers((1, 12))}
    tokens = write_adapter(tmp_path / "tokens", more=rows, trainable_token_indices=[3])
    plain = write_adapter(tmp_path / "plain")
    for adapters, weights, said in (
        ([dora], [0.5], "can have no weight"),
        ([dora, plain], (), "magnitudes are no sum"),
        ([plain, dora], (), "magnitudes are no sum"),
        ([whole], [0.5], "can have no weight"),
        ([whole, whole], (), "another adapter replaces lm_head.weight"),
        ([tokens], [2], "can have no weight"),
        ([tokens, tokens], (), "token 3 of model.embed_tokens is replaced twice"),
    ):
        with pytest.raises(UsageError, match=said):
            merge(str(base), [str(one) for one in adapters], str(tmp_path / "out"), weights=weights)
    assert not (tmp_path / "out").exists()


def test_bases_that_cannot_be_merged_into(tmp_path):
    adapter = write_adapter(tmp_path / "adapter")
    base = write_model(tmp_path / "base", shards=2)
    (base / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(UsageError, match="is quantized"):
        merge(str(base), [str(adapter)], str(tmp_path / "out"))
    (base / "config.json").write_text(json.dumps(CONFIG))
    (base / "model-00002-of-00002.safetensors").rename(base / "elsewhere")
    with pytest.raises(UsageError, match="model-00002-of-00002"):
        merge(str(base), [str(adapter)], str(tmp_path / "out"))
    with pytest.raises(UsageError, match=r"no config\.json"):
        merge(str(tmp_path), [str(adapter)], str(tmp_path / "out"))
    tensors = {f"{Q}.weight": ("I8", np.zeros((12, 12), np.int8)), f"{K}.weight": ("BF16", numbers((8, 12)))}
    write_model(tmp_path / "whole")
    write_file(tmp_path / "whole" / "model.safetensors", tensors)
    with pytest.raises(UsageError, match="is I8, which nothing can be added to"):
        merge(str(tmp_path / "whole"), [str(adapter)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_calls_that_cannot_be(tmp_path):
    base, adapter = str(write_model(tmp_path / "base")), str(write_adapter(tmp_path / "trained" / "last"))
    for arguments, options, said in (
        ((base, []), {}, "no adapter to merge"),
        ((base, [adapter]), {"mode": "fast"}, "no mode 'fast'"),
        ((base, [adapter]), {"target": "moon"}, "no place 'moon'"),
        ((base, [adapter]), {"weights": [1, 2]}, "1 adapters and 2 weights"),
        ((base, [adapter, adapter]), {"mode": "peft"}, "merges one adapter"),
        ((base, [str(tmp_path / "nothing")]), {}, "there is no adapter"),
        ((base, [base]), {}, "holds no adapter"),
        ((base, [str(tmp_path)]), {}, "holds no adapter"),
    ):
        with pytest.raises(UsageError, match=said) as error:
            merge(*arguments, str(tmp_path / "out"), **options)
        assert error.value.hint
    assert str(tmp_path / "trained" / "last") in error.value.hint
    assert not (tmp_path / "out").exists()
    for place in ("adapter", "checkpoints/checkpoint-7"):
        write_adapter(tmp_path / "run" / "outputs" / place)
    with pytest.raises(UsageError, match=r"one is in \S+/run/outputs/adapter$"):
        merge(base, [str(tmp_path / "run")], str(tmp_path / "out"))


# --- places, and what travels along


@pytest.fixture
def bucket():
    files = fsspec.filesystem("memory")
    yield "memory://merging"
    files.rm("/merging", recursive=True)


def test_from_one_bucket_to_another(tmp_path, bucket):
    base, adapter = write_model(tmp_path / "base", shards=2, LICENSE="free"), write_adapter(tmp_path / "adapter")
    (adapter / "tokenizer.json").write_text("{}")
    merge(str(base), [str(adapter)], str(tmp_path / "here"))
    storage.upload(base, f"{bucket}/base")
    storage.upload(adapter, f"{bucket}/outputs/adapter")
    shown = []
    uris = f"{bucket}/base", [f"{bucket}/outputs"], f"{bucket}/out"
    result = merge(*uris, progress=lambda done, total: shown.append((done, total)))
    assert result.path == f"{bucket}/out"
    files = {entry.path for entry in storage.listing(f"{bucket}/out")}
    assert files == set(names_of(tmp_path / "here"))
    folder = folder_at(f"{bucket}/out")
    for name in files - {"cloudtune.json", "README.md"}:
        assert folder.read(name) == (tmp_path / "here" / name).read_bytes()
    assert shown[-1][0] == shown[-1][1] > 0
    with pytest.raises(UsageError, match="holds a model already"):
        merge(*uris, mode="peft")


def test_configs_for_an_older_reader(tmp_path):
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0}
    config = {"dtype": "bfloat16", "rope_parameters": rope, "transformers_version": "5.23.0", "vocab_size": 20}
    config["vision_config"] = {"dtype": "bfloat16", "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    tokenizer = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<a>"]}
    base = write_model(tmp_path / "base", config=config, tokenizer_config__json=json.dumps(tokenizer))
    (base / "chat_template.jinja").write_text("{{ messages }}")
    adapter = write_adapter(tmp_path / "adapter")
    merge(str(base), [str(adapter)], str(tmp_path / "out"), target="bedrock")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == {
        **CONFIG,
        "vocab_size": 20,
        "torch_dtype": "bfloat16",
        "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
        "transformers_version": "4.51.3",
        "vision_config": {"torch_dtype": "bfloat16", "rope_theta": 1e4, "rope_scaling": None},
    }
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text()) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["<a>"],
        "chat_template": "{{ messages }}",
    }
    merge(str(base), [str(adapter)], str(tmp_path / "as_it_is"))
    assert (tmp_path / "as_it_is" / "config.json").read_bytes() == (base / "config.json").read_bytes()


def test_a_tokenizer_that_was_trained_with_wins(tmp_path):
    base = write_model(tmp_path / "base", tokenizer__json="base", LICENSE="free", generation_config__json="{}")
    adapter = write_adapter(tmp_path / "adapter")
    (adapter / "tokenizer.json").write_text("adapter")
    (adapter / "LICENSE").write_text("not this")
    merge(str(base), [str(adapter)], str(tmp_path / "out"))
    read = {name: (tmp_path / "out" / name).read_text() for name in ("tokenizer.json", "LICENSE")}
    assert read == {"tokenizer.json": "adapter", "LICENSE": "free"}
    assert (tmp_path / "out" / "generation_config.json").exists()


def test_it_says_that_training_had_a_quantized_base(tmp_path):
    base = write_model(tmp_path / "base")
    for number, (config, training) in enumerate(
        (({"base_model_name_or_path": "unsloth/llama-bnb-4bit"}, {}), ({}, {"method": "qlora", "base": "org/llama"}))
    ):
        adapter = write_adapter(tmp_path / f"{number}" / "adapter", **config)
        (adapter.parent / "training.json").write_text(json.dumps(training))
        result = merge(str(base), [str(adapter.parent)], str(tmp_path / f"out-{number}"))
        assert len(result.notes) == 1
        assert "in 4 or 8 bits, and merged into" in result.notes[0]
        record = json.loads((tmp_path / f"out-{number}" / "cloudtune.json").read_text())
        assert record["notes"] == list(result.notes)
        assert record["trained_on"] == [training.get("base") or config["base_model_name_or_path"]]
