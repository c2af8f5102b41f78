"""Each thing that can be wrong with a model: how a good one is broken, and what is to be told of it."""

import json

from tests.weights.checks.checkable import (
    change,
    llama_tensors,
    numbers,
    write_json,
    write_model,
    write_tensors,
)

FIRST = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"


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
