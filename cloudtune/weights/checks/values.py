"""Whether a model's numbers are numbers, and some of them other than zero."""

from __future__ import annotations

from collections.abc import Iterator

from cloudtune.weights.checks.findings import Finding
from cloudtune.weights.checks.subject import Subject, elements
from cloudtune.weights.files.assembly import Progress
from cloudtune.weights.files.numbers import scan


def check_values(subject: Subject, progress: Progress | None = None) -> Iterator[Finding]:
    """Yield tensors that have NaN or infinities in them, or nothing but zeros."""
    weights = subject.weights
    found = scan(((name, weights.tensor(name).dtype, weights.span(name)) for name in weights), progress)
    for name, values in found.items():
        where = subject.place_of(name)
        tensor = weights.tensor(name)
        count = elements(tensor.shape)
        for what, number in (("NaN", values.nans), ("infinite", values.infinities)):
            if number:
                message = f"{number} of {count} elements are {what}; the first that is not finite is at {values.first}"
                hint = "the training or the merge went wrong: go back to a checkpoint from before, and look at its loss"
                yield Finding(rule="values-not-finite", severity="error", message=message, hint=hint, where=where)
        # norms and biases begin as zeros, and so do the adapters' second halves
        if values.zero and len(tensor.shape) > 1 and count and not subject.adapter:
            message = "all elements are zero"
            hint = "compare it with the base model's: it was probably never written"
            yield Finding(rule="values-zero", severity="warning", message=message, hint=hint, where=where)
    halves = [name for name in found if ".lora_B." in name or ".lora_embedding_B" in name]
    if subject.adapter and halves and all(found[name].zero for name in halves):
        message = "all B matrices are zero: the adapter changes nothing"
        hint = "it is as it was before training; look for a later checkpoint"
        yield Finding(rule="adapter-untrained", severity="error", message=message, hint=hint)
