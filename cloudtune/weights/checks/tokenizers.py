"""Whether the tokenizer is there, fits the embedding, and ends texts with the tokens that generation stops at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cloudtune.weights.checks.configs import token_ids
from cloudtune.weights.checks.findings import Finding
from cloudtune.weights.checks.subject import Subject, natural
from cloudtune.weights.files.filenames import CONFIG, GENERATION, TOKENIZER, TOKENIZER_CONFIG

#: What a tokenizer may consist of; one of these sets is enough.
VOCABULARIES = (
    (TOKENIZER,),
    ("tokenizer.model",),
    ("spiece.model",),
    ("tekken.json",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
)
#: The input embedding, as the families name it; behind any prefix.
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "shared.weight")


def check_tokenizer(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong with the tokenizer of a model; an adapter may leave it to its base."""
    if subject.adapter:
        return
    if not any(all(name in subject.folder for name in names) for names in VOCABULARIES):
        hint = "copy tokenizer.json and tokenizer_config.json of the base model beside the weights"
        yield _finding("tokenizer-missing", "error", "there is no tokenizer", hint)
        return
    if TOKENIZER_CONFIG not in subject.folder:
        message = f"there is no {TOKENIZER_CONFIG}: special tokens and chat template are unknown"
        yield _finding("tokenizer-config", "warning", message, "copy it from the base model", TOKENIZER_CONFIG)
    if TOKENIZER not in subject.documents:
        return
    ids = vocabulary(subject.documents[TOKENIZER])
    if ids is None:
        message = "the tokenizer has no vocabulary, or one that no program reads"
        yield _finding("tokenizer-broken", "error", message, "copy it again from the base model")
        return
    yield from _sizes(subject, ids)
    yield from _ends(subject, ids)


def vocabulary(tokenizer: Mapping[str, Any]) -> dict[str, int] | None:
    """Return the tokens of a ``tokenizer.json`` with their ids, added ones too; None if there are none."""
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens")
    words = model.get("vocab") if isinstance(model, dict) else None
    pairs: list[tuple[Any, Any]]
    if isinstance(words, list):  # Unigram: pairs of token and score, in the order of their ids
        pairs = [(item[0], index) for index, item in enumerate(words) if isinstance(item, list) and item]
    elif isinstance(words, dict):
        pairs = list(words.items())
    else:
        return None
    if isinstance(added, list):
        pairs += [(item.get("content"), item.get("id")) for item in added if isinstance(item, dict)]
    found = {word: index for word, index in pairs if isinstance(word, str) and natural(index) is not None}
    return found if found and len(found) == len({word for word, _ in pairs if isinstance(word, str)}) else None


def embedding_of(subject: Subject) -> str | None:
    """Return the name of the matrix of the input embedding, if one can be told by its name."""
    names = [name for name in subject.weights if name.endswith(_EMBEDDINGS) and "vision" not in name]
    return min(names, key=len, default=None)


def _sizes(subject: Subject, ids: Mapping[str, int]) -> Iterator[Finding]:
    highest = max(ids, key=lambda word: ids[word])
    said = natural(subject.text_config.get("vocab_size"))
    name = embedding_of(subject)
    shape = subject.weights.tensor(name).shape if name is not None else ()
    rows = shape[0] if len(shape) == 2 else said
    if rows is not None and ids[highest] >= rows:
        message = f"the tokenizer has the id {ids[highest]} ({highest!r}), and the embedding has {rows} rows"
        hint = "use the tokenizer that the model was trained with, or resize the embedding: tokens were added"
        yield _finding("tokenizer-too-large", "error", message, hint)
    # Mllama has rows of its own for the image's tokens
    more = 8 if (subject.model_type or "").startswith("mllama") else 0
    if name is not None and said is not None and len(shape) == 2 and shape[0] not in {said, said + more}:
        message = f"config.json says {said} tokens, and {name} has {shape[0]} rows"
        hint = f"write vocab_size {shape[0]}, unless config.json is another model's"
        yield Finding(
            rule="vocabulary-size", severity="error", message=message, hint=hint, where=subject.place_of(name)
        )


def _ends(subject: Subject, ids: Mapping[str, int]) -> Iterator[Finding]:
    """Compare the special tokens of the tokenizer with those of the configs."""
    settings, generation = subject.documents.get(TOKENIZER_CONFIG, {}), subject.documents.get(GENERATION, {})
    for kind in ("eos", "bos", "pad"):
        token = _content(settings.get(f"{kind}_token"))
        if token is None:
            continue
        if token not in ids:
            message = f"{kind}_token is {token!r}, which is not in the vocabulary"
            hint = "copy tokenizer.json and tokenizer_config.json from the same model"
            yield _finding("token-unknown", "error", message, hint, TOKENIZER_CONFIG)
            continue
        known = {*token_ids(subject.text_config, f"{kind}_token_id"), *token_ids(generation, f"{kind}_token_id")}
        if known and ids[token] not in known:
            message = (
                f"the tokenizer's {kind}_token {token!r} is {ids[token]}, and the configs say"
                f" {', '.join(map(str, sorted(known)))}"
            )
            does = {"eos": "generation will not stop at it", "bos": "texts begin otherwise than in training"}
            message += f": {does[kind]}" if kind in does else ""
            hint = f"write {ids[token]} as {kind}_token_id into {GENERATION if generation else CONFIG}"
            severity = "note" if kind == "pad" else "warning"
            yield _finding("token-differs", severity, message, hint, TOKENIZER_CONFIG)


def _content(token: Any) -> str | None:
    """Return the text of a special token, which is a text or an object that has it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) and text else None


def _finding(rule: str, severity: str, message: str, hint: str, where: str = TOKENIZER) -> Finding:
    return Finding(rule=rule, severity=severity, message=message, hint=hint, where=where)
