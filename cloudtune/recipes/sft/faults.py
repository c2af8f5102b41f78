"""What to tell somebody whose training just failed: one sentence of cause, then what to try."""

from collections.abc import Iterator
from pathlib import Path

from flags import called, in_job
from options import Options


class RecipeError(Exception):
    """The training cannot be done as asked; the text says why and what to do instead."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and everything that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def out_of_memory(options: Options) -> str:
    """Return what to try, cheapest first, that the options do not do already."""
    tries = []
    if options.batch_size > 1:
        tries.append(
            f"{called('batch_size', options.batch_size // 2)}{', ' if in_job() else ' '}"
            f"{called('gradient_accumulation', options.gradient_accumulation * 2)} "
            "(the same training in smaller pieces)"
        )
    if options.gradient_checkpointing is False:
        tries.append(called("gradient_checkpointing", "true"))
    if options.max_length > 512:
        tries.append(called("max_length", options.max_length // 2))
    if options.method == "full":
        tries.append(called("method", "lora"))
    elif options.method == "lora" and "qlora" in Options.__dataclass_fields__["method"].metadata["choices"]:
        tries.append(f"{called('method', 'qlora')} (the frozen weights in four bits)")
    if getattr(options, "sharding", None) == "none":
        tries.append(f"{called('sharding', 'fsdp')} over several processes")
    tries.append("a shape with more memory")
    return "out of memory\n  try, in this order:\n" + "\n".join(f"    {item}" for item in tries)


def gated(options: Options) -> str:
    """Return how to come by a model that the Hub does not hand out to everybody."""
    return (
        f"the Hub refuses {options.model}: it does not exist, or it is private or gated (401/403)\n"
        "  hint: check the name (a folder is given by its full path on the node);\n"
        "    accept the licence on the model's page, and give the job a token that may read it:\n"
        "    env: [{name: HF_TOKEN, secret: ...}] in the job's runtime"
    )


def unreachable(options: Options, text: str) -> str:
    """Return what to do when the Hub does not answer; ``text`` says what was asked of it."""
    named_by = {name: getattr(options, name, "") for name in ("train_data", "eval_data", "data", "test_data")}
    kind = next((name for name, value in named_by.items() if value and value in text), "model")
    named = getattr(options, kind)
    return (
        f"{named} is not in {Path.cwd()}, and the Hub cannot be reached\n"
        f"  hint: write the full path, or fetch it with the job's inputs ({{URI: path}}) and give that path as "
        f"{called(kind)}"
    )


def explain(error: BaseException, options: Options) -> str | None:
    """Return the message for an error that has a known remedy, else None."""
    for cause in causes(error):
        name, text = type(cause).__name__, str(cause)
        lowered = text.lower()
        if name == "OutOfMemoryError" or "out of memory" in lowered or "can't allocate memory" in lowered:
            return out_of_memory(options)
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if name in ("GatedRepoError", "RepositoryNotFoundError") or status in (401, 403) or "gated repo" in lowered:
            return gated(options)
        if name == "RevisionNotFoundError":
            return (
                f"{options.model} has no revision {options.revision!r} on the Hub\n"
                f"  hint: {called('revision', 'BRANCH|TAG|COMMIT')}"
            )
        if name == "DatasetNotFoundError":
            return (
                f"the Hub has no such data set, or it is private: {text}\n  hint: check the name, or give a .jsonl file"
            )
        if name in ("LocalEntryNotFoundError", "OfflineModeIsEnabled") or "couldn't reach" in lowered:
            return unreachable(options, text)
        if "generation %}" in text and "template" in lowered:
            return (
                "the chat template does not mark the assistant's words ({% generation %}), which "
                f"{called('assistant_only_loss', 'true')} needs\n"
                f"  hint: give a template that does ({called('chat_template', 'FILE.jinja')}), "
                f"or take the loss of all words ({called('assistant_only_loss', 'false')})"
            )
        if name in ("DataError", "RecipeError"):
            return text
    return None
