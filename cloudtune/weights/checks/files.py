"""Which files are there, and whether those with weights are whole and say the same as the index."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cloudtune.weights.checks.findings import Finding
from cloudtune.weights.checks.subject import Subject
from cloudtune.weights.files.filenames import ADAPTER_CONFIG, ADAPTER_SINGLE, CONFIG, INDEX, SINGLE

#: What programs that are still writing, or were interrupted, leave behind.
_UNFINISHED = re.compile(r"\.(part|incomplete|partial|aria2|crdownload)$")
#: What training leaves beside a model and no server reads.
_OF_TRAINING = re.compile(
    r"(^|/)(checkpoint-\d+/|global_step\d+/|(optimizer|scheduler|scaler|trainer_state|rng_state\w*)\.(pt|pth|bin|json)$)"
    r"|\.distcp$"
)
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def check_files(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong with the files as such."""
    yield from _weights(subject)
    yield from _surplus(subject)
    if not subject.adapter and CONFIG not in subject.folder:
        yield Finding(
            rule="config-missing",
            severity="error",
            message=f"there is no {CONFIG}: no program can tell what model this is",
            hint=f"copy the {CONFIG} of the base model beside the weights",
            where=CONFIG,
        )
    if not subject.adapter and ADAPTER_CONFIG in subject.folder:
        yield Finding(
            rule="adapter-beside",
            severity="warning",
            message="an adapter's config lies beside a whole model: transformers then loads the adapter's base instead",
            hint=f"move {ADAPTER_CONFIG} and the adapter into a folder of their own",
            where=ADAPTER_CONFIG,
        )


def _weights(subject: Subject) -> Iterator[Finding]:
    for flaw in subject.flaws:
        yield Finding(
            rule=f"files-{flaw.kind}",
            severity="error",
            message=flaw.message,
            hint=flaw.hint or "copy it again",
            where=f"{flaw.file}: {flaw.tensor}" if flaw.tensor else flaw.file,
        )
    total = subject.documents.get(INDEX, {}).get("metadata", {})
    announced = total.get("total_size") if isinstance(total, dict) else None
    if announced is not None and not subject.flaws and announced != subject.weight_bytes:
        yield Finding(
            rule="files-total",
            severity="warning",
            message=f"the index says {announced} bytes of tensors in all, and the files have {subject.weight_bytes}",
            hint="compare with the place that it was copied from; shards of two models may have been mixed",
            where=INDEX,
        )


def _surplus(subject: Subject) -> Iterator[Finding]:
    read = {shard.name for shard in subject.weights.shards} | {flaw.file for flaw in subject.flaws}
    for name in subject.folder.files:
        if _UNFINISHED.search(name):
            yield Finding(
                rule="files-unfinished",
                severity="warning",
                message="a file that was not written to its end lies in the folder",
                hint="let whatever writes there finish, or remove it",
                where=name,
            )
        elif _OF_TRAINING.search(name):
            size_mb = subject.folder.files[name] / 1e6
            yield Finding(
                rule="files-of-training",
                severity="warning",
                message=f"only training reads these {size_mb:.1f} MB, and every server copies them",
                hint="serve from a folder without checkpoints and optimizer states; cloudtune merge makes one",
                where=name,
            )
        elif "/" not in name and name.endswith(".safetensors") and name not in {*read, SINGLE, ADAPTER_SINGLE}:
            yield Finding(
                rule="files-unused",
                severity="warning",
                message="no index names this file, but programs that load every safetensors file read it, too",
                hint="remove it, if it is left over from another model",
                where=name,
            )
        elif "/" not in name and name.endswith(PICKLES) and name != "training_args.bin":
            yield Finding(
                rule="files-pickle",
                severity="warning" if subject.weights.shards else "error",
                message="weights as a pickle: loading it can run any program that its maker put in",
                hint="remove it where the same weights are there in safetensors"
                if subject.weights.shards
                else "load and save the model with transformers once, which writes safetensors",
                where=name,
            )
